"""The loaders as participants call them: what is found, in which form, and what is refused.

The files of CIFAR-10 and Purchase-100 have tests of their own.
"""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mico_competition.competition import rows
from mico_competition.competition.table import TASKS
from mico_competition.data import cifar10_files
from mico_competition.data.datasets import (
    LOADERS,
    load_cifar10,
    load_dataset,
    load_digits,
    load_purchase100,
    load_sst2,
)
from mico_competition.data.downloads import DownloadError

TRAIN = "sentence\tlabel\na \"quoted ' film \t1\ndull\u0085 , n/a \t0\n"
DEV = "sentence\tlabel\nnull \t1\n"


@pytest.fixture
def glue(tmp_path):
    (tmp_path / "train.tsv").write_text(TRAIN, encoding="utf-8")
    (tmp_path / "dev.tsv").write_text(DEV, encoding="utf-8")
    return tmp_path


def test_every_task_of_the_table_has_a_loader():
    assert set(LOADERS) == set(TASKS)
    assert tuple(LOADERS) == rows.LOADERS  # which files are held to without importing torch


def test_digits_are_scikit_learns():
    digits = load_digits()
    assert len(digits) == TASKS["digits"].len_dataset
    record, label = digits[0]
    assert (record.dtype, record.shape, type(label), label) == (torch.float32, (64,), int, 0)
    inputs = digits.inputs(range(len(digits)))
    assert inputs.min() == 0
    assert inputs.max() == 1
    assert torch.equal(
        inputs, torch.tensor(sys.modules["sklearn.datasets"].load_digits().data) / 16
    )
    assert digits.labels.bincount(minlength=10).min() > 170


def test_load_dataset_names_the_choices():
    assert len(load_dataset("digits", None)) == 1797
    with pytest.raises(ValueError, match="'mnist': choose one of cifar10, purchase100, sst2, dig"):
        load_dataset("mnist", ".")


def test_load_dataset_fetches_only_when_asked(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("nothing was to be fetched")

    monkeypatch.setattr(cifar10_files, "fetch_cifar10", refuse)
    with pytest.raises(FileNotFoundError, match="download=True"):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(AssertionError, match="nothing was to be fetched"):
        load_dataset("cifar10", tmp_path, download=True)


def test_a_dataset_of_your_own(monkeypatch):
    monkeypatch.setitem(LOADERS, "mine", lambda dataset_dir: f"what lies in {dataset_dir}")
    assert load_dataset("mine", "there") == "what lies in there"


@pytest.mark.parametrize("load", [load_purchase100, load_sst2])
def test_missing_data_is_one_sentence_and_a_value_error_too(load, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load(tmp_path)
    assert isinstance(caught.value, ValueError)
    assert str(tmp_path) in str(caught.value)
    assert "put" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"cifar-10-binary\.tar\.gz"):
        load_cifar10(tmp_path, download=False)


@pytest.mark.parametrize("folder", ["", "SST-2", "sst2"])
def test_sst2_is_read_as_it_stands(glue, folder):
    texts = load_sst2(glue) if not folder else None
    if folder:
        (glue / folder).mkdir()
        for name in ("train.tsv", "dev.tsv"):
            (glue / name).rename(glue / folder / name)
        texts = load_sst2(glue)
    assert [texts[i] for i in range(3)] == [
        {"sentence": "a \"quoted ' film ", "label": 1, "idx": 0},
        {"sentence": "dull\u0085 , n/a ", "label": 0, "idx": 1},
        {"sentence": "null ", "label": 1, "idx": 0},
    ]


def test_sst2_of_hugging_face_on_disk(tmp_path):
    table = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "sst2").mkdir()
    for name, lines in (
        ("train-00000-of-00002", [("good ", 1, 0)]),
        ("train-00001-of-00002", [("bad ", 0, 1)]),
        ("validation-00000-of-00001", [("fine ", 1, 0)]),
        ("test-00000-of-00001", [("unknown ", -1, 0)]),
    ):
        columns = dict(
            zip(("sentence", "label", "idx"), map(list, zip(*lines, strict=True)), strict=True)
        )
        parquet.write_table(table.table(columns), tmp_path / "sst2" / f"{name}.parquet")
    texts = load_sst2(tmp_path)
    assert texts.sentences == ["good ", "bad ", "fine "]
    assert (texts.labels.tolist(), texts.idx.tolist()) == ([1, 0, 1], [0, 1, 0])
    assert load_sst2(tmp_path / "sst2").sentences == texts.sentences
    (tmp_path / "sst2" / "validation-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"validation-00000-of-00001\.parquet is damaged"):
        load_sst2(tmp_path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("good \t2", "line 4: 'good \\\\t2' is not a sentence, a tab and 0 or 1"),
        ("good ", "line 4"),
        ("good \t1\t0", "line 4"),
    ],
)
def test_a_faulty_line_of_sst2_is_named(glue, line, complaint):
    (glue / "train.tsv").write_text(TRAIN + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"train\.tsv, " + complaint):
        load_sst2(glue)


def test_faulty_files_of_sst2_are_named(glue):
    (glue / "dev.tsv").write_text("index\tsentence\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 1: 'index\\tsentence' is not the header"):
        load_sst2(glue)
    (glue / "dev.tsv").write_text("sentence\tlabel\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv holds no sentence"):
        load_sst2(glue)
    (glue / "dev.tsv").write_bytes(b"sentence\tlabel\n\xff \t1\n")
    with pytest.raises(ValueError, match=r"dev\.tsv is not UTF-8 at byte 15"):
        load_sst2(glue)
    (glue / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv"):
        load_sst2(glue)


def hub(monkeypatch, load):
    """Puts a `datasets` in place whose load_dataset is `load`."""
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))


def test_sst2_without_a_folder_is_hugging_faces(monkeypatch, tmp_path):
    asked = []

    def load(*name):
        asked.append(name)
        split = {"sentence": ["good ", "bad "], "label": [1, 0], "idx": [0, 1]}
        return {part: SimpleSplit(split) for part in ("train", "validation", "test")}

    hub(monkeypatch, load)
    texts = load_sst2()
    assert asked == [("nyu-mll/glue", "sst2")]
    assert texts[3] == {"sentence": "bad ", "label": 0, "idx": 1}
    assert len(load_sst2(tmp_path, download=True)) == 4


class SimpleSplit(dict):
    """The slice of a Hugging Face split is a dict of columns."""

    def __getitem__(self, key):
        return dict(self) if key == slice(None) else super().__getitem__(key)


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch):
    def load(*_):
        raise ConnectionError("no route to huggingface.co\nand a page of details")

    hub(monkeypatch, load)
    with pytest.raises(DownloadError) as caught:
        load_sst2()
    assert str(caught.value) == (
        "Could not load nyu-mll/glue/sst2 from Hugging Face (no route to huggingface.co): give a "
        "folder with GLUE's train.tsv and dev.tsv instead."
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install"):
        load_sst2()


def test_the_real_sst2_comes_through_whole(shared):
    folder = shared / "data" / "sst2"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    texts = load_sst2(folder)
    assert len(texts) == TASKS["sst2"].len_dataset
    assert texts[0] == {
        "sentence": "hide new secretions from the parental units ",
        "label": 0,
        "idx": 0,
    }
    assert texts[67_348]["idx"] == 67_348
    assert texts[67_349]["sentence"] == "it 's a charming and often affecting journey . "
    assert texts[67_349]["idx"] == 0
    assert texts.labels.unique().tolist() == [0, 1]
    assert texts.idx.tolist() == [*range(67_349), *range(872)]
    assert all(sentence.strip() for sentence in texts.sentences)


def test_optional_packages_are_imported_only_when_needed():
    check = "import sys, mico_competition.data.datasets\n"
    check += "print(sorted({'pandas', 'sklearn', 'datasets', 'pyarrow'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
