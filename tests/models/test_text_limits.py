"""Configurations and tokenizers that cost much are refused before a library sees them."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_models import TINY, saved, write_base

from mico_competition.competition.table import TASKS
from mico_competition.models import text_models
from mico_competition.models.architectures import load_model, load_tokenizer, new_model
from mico_competition.models.tokenizer_files import check_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"


@pytest.fixture
def folder(tmp_path):
    return saved("sst2", tmp_path)[1]


# --- configurations


@pytest.mark.parametrize(
    "change",
    [
        *({"num_hidden_layers": 20_000}, {"num_hidden_layers": 201}, {"num_hidden_layers": 10**30}),
        *({"hidden_size": 10**10}, {"vocab_size": 2**63}, {"num_attention_heads": 10**18}),
        *({"max_position_embeddings": 10**12}, {"intermediate_size": 10**15}),
        {"type_vocab_size": 10**10},
    ],
)
def test_a_configuration_of_a_model_that_nobody_has(change, folder, monkeypatch):
    (folder / "config.json").write_text(json.dumps({**TINY, **change}))
    monkeypatch.setattr(text_models, "_transformers", lambda *_: pytest.fail("was built"))
    with pytest.raises(ValueError, match=r"config.json is not usable \(a model of "):
        text_models.read_config(TASKS["sst2"], folder)


def test_a_fresh_model_has_a_number_of_parameters_that_fits(tmp_path):
    base = Path(write_base(tmp_path))
    fields = {"num_hidden_layers": 100, "hidden_size": 8192, "num_attention_heads": 8}
    (base / "config.json").write_text(json.dumps({**TINY, **fields}))
    with pytest.raises(ValueError, match="parameters, over 2,000,000,000"):
        new_model(TASKS["sst2"], base_model=str(base))
    (base / "config.json").write_text(json.dumps({**TINY, "hidden_act": "no_such_function"}))
    with pytest.raises(ValueError, match="base is not usable"):
        new_model(TASKS["sst2"], base_model=str(base))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(TINY) + " " * 10**6, "more than the 1,000,000"),
        ('{"model_type": "roberta", "x": ' + "[" * 500_000, "nested over 50 deep"),
        (POINTER, "is a pointer of git-LFS"),
        ('{"hidden_size": 1' + "0" * 9_999 + "}", "over 100 digits"),
    ],
)
def test_a_configuration_that_costs_much_to_read(text, words, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_model("sst2", folder)


def test_a_configuration_with_a_byte_order_mark(folder):
    (folder / "config.json").write_text(json.dumps(TINY), encoding="utf-8-sig")
    load_model("sst2", folder)


# --- tokenizers


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SOUND: dict = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
    "normalizer": None,
    "pre_tokenizer": BYTES,
    "post_processor": None,
    "decoder": BYTES,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}
TEMPLATE: dict = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"s": {"id": "s", "ids": [0], "tokens": ["a"]}},
}
MANY = {"s": {"id": "s", "ids": [0] * 1000, "tokens": ["a"] * 1000}}
REGEX = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated"}
TIMES = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}


def pad(strategy, multiple=None):
    return {"strategy": strategy, "pad_to_multiple_of": multiple, "pad_id": 0, "pad_token": "a"}


def added(number):
    return [{"id": number, "content": "<s>", "special": True}]


BOMBS = {
    "padding": ({"padding": pad({"Fixed": 10**12})}, "over 100,000 tokens"),
    "padding to a multiple": ({"padding": pad("BatchLongest", 10**12)}, "over 100,000 tokens"),
    "padding of text": ({"padding": pad({"Fixed": "1"})}, "over 100,000 tokens"),
    "stride": ({"truncation": {"max_length": 9, "stride": 10**12}}, "over 100,000 tokens"),
    "replacing": ({"normalizer": TIMES}, "the normalizer Replace, which may cost"),
    "replacing again and again": (
        {"normalizer": {"type": "Sequence", "normalizers": [TIMES] * 5}},
        "the normalizer Replace",
    ),
    "prepending": ({"normalizer": {"type": "Prepend", "prepend": "a"}}, "the normalizer Prepend"),
    "a map": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/"}}, "Precompiled"),
    "an expression": ({"pre_tokenizer": REGEX}, "the pre_tokenizer Split"),
    "many parts": (
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 21}},
        "over 20 parts",
    ),
    "parts of parts": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Sequence"}]}},
        "the pre_tokenizer Sequence",
    ),
    "a template": (
        {"post_processor": {**TEMPLATE, "single": TEMPLATE["single"] * 99}},
        "adds many",
    ),
    "tokens of one": ({"post_processor": {**TEMPLATE, "special_tokens": MANY}}, "adds many"),
    "in a sequence": (
        {
            "post_processor": {
                "type": "Sequence",
                "processors": [{**TEMPLATE, "special_tokens": MANY}],
            }
        },
        "adds many",
    ),
    "a decoder": ({"decoder": TIMES}, "the decoder Replace"),
    "another model": ({"model": {"type": "Unigram", "vocab": [["a", 0]]}}, "the model Unigram"),
    "no model": ({"model": None}, "holds no model"),
    "a large number": (
        {"model": {"type": "BPE", "vocab": {"a": 2**40}}},
        "numbers up to 2,000,000",
    ),
    "a negative one": ({"model": {"type": "BPE", "vocab": {"a": -1}}}, "numbers up to 2,000,000"),
    "an added one": ({"added_tokens": added(2**40)}, "added tokens whose ids are not numbers"),
    "an added word": ({"added_tokens": added("1")}, "added tokens whose ids are not numbers"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_tokenizer_that_costs_much(name, tmp_path, monkeypatch):
    change, words = BOMBS[name]
    (tmp_path / "tokenizer.json").write_text(json.dumps({**SOUND, **change}))
    refuse = "transformers.AutoTokenizer.from_pretrained"
    monkeypatch.setattr(refuse, lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(ValueError, match=words) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/tokenizer.json ")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tokenizer.json", "[" * 10**5, "nested over 50 deep"),
        ("tokenizer.json", "[]", "is not a JSON object"),
        ("tokenizer.json", POINTER, "is a pointer of git-LFS"),
        ("merges.txt", POINTER, "is a pointer of git-LFS"),
        ("vocab.json", '{"a": 1e999}', "has no vocabulary of numbers"),
        ("vocab.json", '{"a": 4294967295}', "has no vocabulary of numbers"),
        ("tokenizer_config.json", '{"tokenizer_class": "LlamaTokenizer"}', "names the class Llama"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"4294967295": {}}}', "added tokens"),
        ("added_tokens.json", '{"x": 1e3}', "has no vocabulary"),
        ("special_tokens_map.json", "[]", "is not a JSON object"),
    ],
)
def test_files_of_a_tokenizer_that_are_none(name, text, words, tmp_path):
    for other in ("tokenizer.json", name):
        (tmp_path / other).write_text(json.dumps(SOUND) if other != name else text)
    with pytest.raises(ValueError, match=words):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "config.json"])
def test_a_large_file_of_a_tokenizer_is_not_opened(name, tmp_path, monkeypatch):
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 10 << 30)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ValueError, match="has 10,737,418,240 bytes, more than the"):
        check_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}],
            }
        },
        {"post_processor": TEMPLATE, "padding": pad({"Fixed": 67}, 8)},
        {"truncation": {"max_length": 512, "stride": 0, "strategy": "LongestFirst"}},
    ],
)
def test_tokenizers_of_the_usual_kinds_pass(change, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({**copy.deepcopy(SOUND), **change}))
    check_tokenizer(tmp_path)


def test_a_panic_of_the_library_is_a_sentence(tmp_path):
    model = {**SOUND["model"], "continuing_subword_prefix": "x" * 10}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**SOUND, "model": model}))
    with pytest.raises(ValueError, match="Could not load the tokenizer"):
        load_tokenizer(tmp_path)


# --- a machine whose packages do not fit each other


@pytest.mark.slow
def test_an_unusable_torchvision_is_not_a_fault_of_the_files(folder, tmp_path):
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms is gone")')
    about = tmp_path / "site" / "torchvision-0.99.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99.0\n")
    program = (
        "import sys; from mico_competition.models.architectures import load_model, new_model;"
        "from mico_competition.competition.table import TASKS;"
        "call = {'load': lambda f: load_model('sst2', f),"
        " 'new': lambda f: new_model(TASKS['sst2'], base_model=f)}[sys.argv[1]]\n"
        "try: call(sys.argv[2])\n"
        "except ImportError as error: print(error)"
    )
    for call in ("load", "new"):
        finished = subprocess.run(
            [sys.executable, "-c", program, call, folder],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        )
        assert "operator torchvision::nms is gone" in finished.stdout, finished.stderr
        assert "The model's files are not the cause" in finished.stdout
        assert "fetch it again" not in finished.stdout
