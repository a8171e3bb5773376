"""Fingerprints of sentences, of tokenizers and of text models' code."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import draw_seeds
from mico_competition.competition.table import SCENARIOS, TASKS
from mico_competition.data.arrays import TextDataset
from mico_competition.models.inputs import prepare
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.models.text_models import read_config
from mico_competition.signals import open_signals
from mico_competition.training.fingerprints import architecture_fingerprint
from mico_competition.training.settings import resolve
from mico_competition.training.train_many import Run, train_many

WORDS = ("a the film plot is was good bad dull charming slow funny moving mess joy").split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """120 sentences, a small RoBERTa's folder, and a folder of one model trained on them."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(1)
    sentences = [" ".join(rng.choice(WORDS, 6)) for _ in range(120)]
    dataset = TextDataset(sentences, torch.arange(120) % 2, torch.arange(120))
    sizes = {"vocab_size": 290, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    base = make_small_roberta(folder / "base", sentences, **sizes)
    small = {"len_training": 40, "len_challenge": 10, "batch_size": 10, "num_epochs": 1}
    settings = resolve({"scenario": "sst2_inf", "model_name": str(base), **small})
    tokens, tokenizer = prepare("sst2", dataset, base)
    runs = [Run(draw_seeds(), model_path(folder, SCENARIOS["sst2_inf"], "train", 0), 0)]
    list(train_many(settings, tokens, runs, tokenizer=tokenizer, progress=False))
    return dataset, base, folder / "sst2"


def test_a_text_model_is_opened_with_its_sentences_only(text, tmp_path):
    dataset, _, challenge = text
    open_signals(challenge, "sst2_inf", dataset, cache=tmp_path).get("loss")
    folder = challenge / "sst2_inf/train/model_0"
    order = list(range(120))[::-1]
    wrong = TextDataset([dataset.sentences[i] for i in order], dataset.labels, dataset.idx)
    labels = TextDataset(dataset.sentences, 1 - dataset.labels, dataset.idx)
    spaces = TextDataset([f"{s} " for s in dataset.sentences], dataset.labels, dataset.idx)
    for other in (wrong, labels, spaces, Subset(dataset, order)):
        with pytest.raises(ValueError, match="another dataset"):
            ChallengeDataset.from_path(folder, other)
    for same in (dataset, [dataset[i] for i in range(120)], prepare("sst2", dataset, folder)[0]):
        ChallengeDataset.from_path(folder, same)


def test_another_tokenizer_is_refused(text, tmp_path):
    dataset, _, challenge = text
    own = shutil.copytree(challenge, tmp_path / "sst2")
    sizes = {"vocab_size": 262, "hidden_size": 16, "num_layers": 1, "num_heads": 2}
    other = make_small_roberta(tmp_path / "other", dataset.sentences, **sizes)
    folder = own / "sst2_inf/train/model_0"
    shutil.copy(other / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(ValueError, match="or tokenizer has changed"):
        open_signals(own, "sst2_inf", dataset, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_act", "relu"), ("layer_norm_eps", 0.1), ("hidden_dropout_prob", 0.3)],
)
def test_a_text_models_configuration_counts(text, tmp_path, name, value):
    dataset, _, challenge = text
    own = shutil.copytree(challenge, tmp_path / "sst2")
    path = own / "sst2_inf/train/model_0/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match="code that computes something else"):
        open_signals(own, "sst2_inf", dataset, cache=tmp_path / "cache")


def test_an_edit_of_a_text_models_code_shows(text, monkeypatch):
    transformers = pytest.importorskip("transformers")
    dataset, base, _ = text
    tokens = prepare("sst2", dataset, base)[0]
    config = read_config(TASKS["sst2"], base, num_labels=2)
    before = architecture_fingerprint(TASKS["sst2"], tokens, config)
    assert architecture_fingerprint(TASKS["sst2"], tokens, config) == before
    head = transformers.models.roberta.modeling_roberta.RobertaClassificationHead
    original = head.forward
    monkeypatch.setattr(head, "forward", lambda self, x, **k: 1.01 * original(self, x, **k))
    assert architecture_fingerprint(TASKS["sst2"], tokens, config) != before
