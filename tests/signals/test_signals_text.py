"""Signals of text models: tokenised as they want it, or refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from mico_competition.attacks.masked_source import MaskedSource
from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import draw_seeds, seed_text
from mico_competition.competition.table import SCENARIOS, TASKS
from mico_competition.data.datasets import load_dataset
from mico_competition.models.architectures import load_model, new_model, save_model
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.signals import Signals, open_signals


class Text:
    """Two fresh sst2 models with a tokenizer, and a dataset of 160 sentences."""

    def __init__(self, folder):
        (folder / "sst2").mkdir(parents=True)
        rng = np.random.default_rng(0)
        words = "a the film plot is was good bad dull charming slow funny moving mess joy".split()
        for name, count in (("train", 140), ("dev", 20)):
            lines = [f"{' '.join(rng.choice(words, 8))} \t{rng.integers(2)}" for _ in range(count)]
            (folder / f"sst2/{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
        self.datasets, self.challenge = folder, folder / "models/sst2"
        self.base = self.make_base("base")
        for i in (0, 1):
            self.write(i)

    def make_base(self, name, **sizes):
        wanted = {"vocab_size": 300, "hidden_size": 16, "num_layers": 1, "num_heads": 2, **sizes}
        sentences = load_dataset("sst2", self.datasets).sentences
        return make_small_roberta(self.datasets / name, sentences, **wanted)

    def path(self, i):
        return model_path(self.challenge.parent, SCENARIOS["sst2_inf"], "train", i)

    def write(self, i, base=None):
        path = self.path(i)
        path.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(i)
        model = new_model(TASKS["sst2"], base_model=str(base or self.base))
        save_model(TASKS["sst2"], model, path)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(self.base / name, path)
        for name, seed in vars(draw_seeds()).items():
            (path / f"seed_{name}").write_text(seed_text(seed))
        (path / "metadata.json").write_text(
            '{"len_dataset": 160, "len_training": 40, "len_challenge": 10}'
        )

    def open(self, cache) -> Signals:
        return open_signals(self.challenge, "sst2_inf", self.datasets, cache=cache)


@pytest.fixture
def text(tmp_path):
    return Text(tmp_path / "text")


def test_text_is_tokenised_as_its_models_want(text, tmp_path):
    signals = text.open(tmp_path / "c")
    where = torch.from_numpy(signals.fleet.records)
    model = load_model("sst2", text.path(1))
    with torch.inference_mode():
        inputs = signals.data.inputs(where)
        z = model(**inputs).logits
    assert np.allclose(signals.logits(1), z.numpy(), atol=1e-5)
    assert signals.get("gradient_norm").shape == (2, len(where))
    assert (text.open(tmp_path / "c").get("loss") == signals.get("loss")).all()


def test_text_without_its_tokenizer_is_refused(text, tmp_path):
    for i in (0, 1):
        (text.path(i) / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"train/model_0 has no usable tokenizer"):
        text.open(tmp_path / "c")


def test_text_with_two_tokenizers_is_refused(text, tmp_path):
    tokenizer = text.path(1) / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("joy", "yoj"))
    with pytest.raises(ValueError, match=r"model_0 and \S*model_1 have different tokenizers"):
        text.open(tmp_path / "c")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"hidden_size": 32, "num_layers": 2}, "hidden_size 16 and 32"),
        ({"num_layers": 2}, "num_hidden_layers 1 and 2"),
        ({"num_heads": 4}, "num_attention_heads 2 and 4"),  # weights of the same shapes
    ],
)
def test_text_models_of_another_architecture_are_refused(text, tmp_path, sizes, words):
    text.write(1, text.make_base("other", **sizes))
    match = rf"model_0 and \S*model_1 have different architectures \({words}\)"
    with pytest.raises(ValueError, match=match):
        text.open(tmp_path / "c")


def test_a_size_left_out_is_its_default(text, tmp_path):
    """Half of the writers of config.json leave defaults out, the others do not."""
    path = text.path(1) / "config.json"
    fields = json.loads(path.read_text())
    assert fields.pop("hidden_act", "gelu") == "gelu"
    path.write_text(json.dumps(fields))
    assert text.open(tmp_path / "c").get("loss").shape[0] == 2


def test_tokens_beyond_the_vocabulary_are_refused(text, tmp_path):
    signals = text.open(tmp_path / "c")
    signals.data.input_ids[signals.fleet.records[0], 3] = 5000
    with pytest.raises(
        ValueError, match=r"model_0 has \d+ tokens, but the dataset holds token 5000"
    ):
        Signals(signals.fleet, signals.data, tmp_path / "c").get("loss")


def test_a_known_base_reaches_attacks_as_a_copy_with_its_weights(text, tmp_path):
    base = tmp_path / "base"
    trained = new_model(TASKS["sst2"], base_model=str(text.base))
    save_model(TASKS["sst2"], trained, base)
    signals = open_signals(
        text.challenge, "sst2_inf", text.datasets, cache=tmp_path / "c", base_model=base
    )
    known = MaskedSource(signals, signals.fleet.known_membership)
    rows = "roberta.embeddings.word_embeddings.weight"
    assert torch.equal(known.base.get_parameter(rows), trained.get_parameter(rows))
    assert known.base is not signals.base and not known.base.training
    assert text.open(tmp_path / "c").base is None
