"""Text models: 2022's RoBERTa, configurations that are not believed, and tokenizers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers_models import SENTENCES, TINY, saved, write_base

from mico_competition.competition.table import TASKS
from mico_competition.models.architectures import (
    load_model,
    load_tokenizer,
    logits,
    new_model,
    save_model,
)

OLD = Path(__file__).parents[1] / "fixtures" / "2022"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("prefix", ["", "_module."])
def test_roberta_of_2022_gives_its_logits(prefix, tmp_path):
    shutil.copy(OLD / "roberta" / "config.json", tmp_path)
    state = torch.load(OLD / "roberta" / "pytorch_model.bin", weights_only=True)
    assert "roberta.embeddings.position_ids" in state
    torch.save({prefix + name: v for name, v in state.items()}, tmp_path / "pytorch_model.bin")
    folder = tmp_path if prefix else OLD / "roberta"
    torch.testing.assert_close(
        logits(load_model("sst2", folder), SENTENCES),
        torch.tensor(EXPECTED["roberta"]),
        rtol=0,
        atol=5e-6,  # attention is computed by another kernel today
    )


def test_text_has_no_path_in_its_configuration(tmp_path):
    _, base = saved("sst2", tmp_path)
    folder = tmp_path / "fine_tuned"
    save_model(TASKS["sst2"], new_model(TASKS["sst2"], base_model=str(base)), folder)
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert fields["model_type"] == "roberta"
    assert fields["architectures"] == ["RobertaForSequenceClassification"]
    assert str(tmp_path) not in json.dumps(fields)


def test_new_model_takes_over_pretrained_weights(tmp_path):
    model, folder = saved("sst2", tmp_path)
    again = new_model(TASKS["sst2"], base_model=str(folder))
    assert again.training
    assert torch.equal(
        again.state_dict()["roberta.embeddings.word_embeddings.weight"],
        model.state_dict()["roberta.embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "its type is 'bert' where 'roberta'"),
        ({"model_type": ["roberta"]}, "where 'roberta' is expected"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "3 labels where 2"),
        ({"hidden_size": "many"}, "not usable"),
        ({"hidden_size": 31}, "not usable .*not a multiple"),
        ({"hidden_size": -32}, "not usable"),
        ({"num_attention_heads": 0}, "not usable"),
        ({"pad_token_id": 999}, "not usable"),
        ({"num_hidden_layers": 1}, r"16 unknown keys, first roberta\.encoder\.layer\.1"),
        ({"intermediate_size": 10**7}, r"shape \(64,\) where \(10000000,\)"),
    ],
)
def test_configuration_that_does_not_fit(change, message, tmp_path):
    _, folder = saved("sst2", tmp_path)
    (folder / "config.json").write_text(json.dumps({**TINY, **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_model("sst2", folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 10**5])
def test_configuration_that_is_none(content, tmp_path):
    _, folder = saved("sst2", tmp_path)
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="not a model configuration"):
        load_model("sst2", folder)


def test_code_beside_the_configuration_is_not_executed(tmp_path):
    model, folder = saved("sst2", tmp_path)
    mark = tmp_path / "executed"
    (folder / "own.py").write_text(f"import os; os.mkdir({str(mark)!r})", encoding="utf-8")
    auto = {"AutoConfig": "own.C", "AutoModelForSequenceClassification": "own.M"}
    hostile = {**TINY, "auto_map": auto, "attn_implementation": "someone/kernel"}
    (folder / "config.json").write_text(json.dumps(hostile), encoding="utf-8")
    assert torch.equal(logits(load_model("sst2", folder), SENTENCES), logits(model, SENTENCES))
    assert not mark.exists()


def test_base_model_that_cannot_be_fetched():
    with pytest.raises(ValueError, match=r"base model 'no/model' .* --model_name FOLDER"):
        new_model(TASKS["sst2"], base_model="no/model")
    with pytest.raises(ValueError, match=r"tokenizer 'no/model' .* --model_name FOLDER"):
        load_tokenizer("no/model")


def write_tokenizer(folder: Path) -> None:
    """vocab.json and merges.txt of a byte-level tokenizer with one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), "go"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\ng o\n", encoding="utf-8")


def test_tokenizer_of_the_folder_or_of_the_fallback(tmp_path):
    model, folder = saved("sst2", tmp_path)
    with pytest.raises(ValueError, match=r"sst2_model holds no tokenizer \(looked for"):
        load_tokenizer(folder)
    base = write_base(tmp_path)
    write_tokenizer(Path(base))
    tokenizer = load_tokenizer(folder, fallback=base)
    ids = tokenizer("go", max_length=6, padding="max_length")["input_ids"]
    assert ids == [0, 261, 2, 1, 1, 1]
    save_model(TASKS["sst2"], model, tmp_path / "whole", tokenizer)
    again = load_tokenizer(tmp_path / "whole")
    assert again("go", max_length=6, padding="max_length")["input_ids"] == ids
    assert str(tmp_path) not in "".join(
        file.read_text(encoding="utf-8") for file in (tmp_path / "whole").glob("*.json")
    )
    elsewhere = tmp_path / "josé, two\nlines"  # the same tokenizer gives the same bytes
    shutil.copytree(base, elsewhere / "base")
    tokenizer = load_tokenizer(folder, fallback=str(elsewhere / "base"))
    save_model(TASKS["sst2"], model, elsewhere / "whole", tokenizer)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (elsewhere / "whole" / file.name).read_bytes(), file.name
