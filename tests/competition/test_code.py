"""The organiser's code: what is imported from beside a competition's file, and what never runs."""

import importlib
import re
import sys
from math import inf

import pytest
from helpers_competition import TASK, competition_text, write_own

from mico_competition import load_model
from mico_competition.cli import main
from mico_competition.competition.code import resolve
from mico_competition.competition.table import using
from mico_competition.data.datasets import load_dataset


@pytest.fixture
def file(tmp_path):
    """A competition's file in a folder of its own."""
    path = tmp_path / "mine" / "competition.toml"
    path.parent.mkdir()
    path.write_text(competition_text({"lo": {}}, task=TASK), encoding="utf-8")
    return path


def package(folder, name, code=""):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    (folder / name / "part.py").write_text("def load():\n    return 1\n")


def test_a_module_and_a_package_beside_the_file(file):
    package(file.parent, "mico_t_package")
    file.with_name("mico_t_module.py").write_text("import mico_t_helper\nload = mico_t_helper.f\n")
    file.with_name("mico_t_helper.py").write_text("def f():\n    return 2\n")
    with using(file):
        assert resolve("mico_t_package.part:load")() == 1
        assert resolve("mico_t_module:load")() == 2
    assert not [name for name in sys.modules if name.startswith("mico_t_")]


def test_no_code_of_an_installed_package_runs_in_the_place_of_ones_own(file, tmp_path, monkeypatch):
    package(tmp_path / "site", "mico_t_both", "raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    package(file.parent, "mico_t_both")
    with using(file), pytest.raises(ValueError, match="is not what Python imports by that name"):
        resolve("mico_t_both.part:load")
    assert "mico_t_both" not in sys.modules


def test_a_folder_of_data_is_no_module_and_hides_none(file):
    for name in ("mico_t_data", "json"):
        (file.parent / name).mkdir()
        (file.parent / name / "part.py").write_text("def load():\n    return 1\n")
    with using(file):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("mico_t_data")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("mico_t_data.part")
        with pytest.raises(ValueError, match=r"mico_t_data, which .*, is a folder without __init_"):
            resolve("mico_t_data.part:load")
        assert resolve("json:loads") is importlib.import_module("json").loads


def test_a_module_that_is_imported_already_is_the_one_beside_the_file(file, monkeypatch):
    file.with_name("mico_t_mine.py").write_text("def load():\n    return 3\n")
    (file.parent.parent / "link").symlink_to(file.parent)
    monkeypatch.syspath_prepend(str(file.parent.parent / "link"))
    mine = importlib.import_module("mico_t_mine")
    with using(file):
        assert resolve("mico_t_mine:load") is mine.load
    monkeypatch.delitem(sys.modules, "mico_t_mine")


@pytest.mark.parametrize(
    ("dotted", "missing"),
    [("mico_t_x:f", "mico_t_x"), ("mico_t_x.y.z:f", "mico_t_x"), ("mico_t_p.y.z:f", "mico_t_p.y")],
)
def test_a_missing_part_of_a_dotted_path_is_named(file, dotted, missing):
    package(file.parent, "mico_t_p")
    with using(file), pytest.raises(ValueError, match=f"There is no module {missing}, which .* as"):
        resolve(dotted)


def test_what_ones_own_module_lacks_is_named_as_such(file):
    file.with_name("mico_t_needs.py").write_text("import mico_t_absent\n")
    with using(file), pytest.raises(ModuleNotFoundError, match="mico_t_absent"):
        resolve("mico_t_needs:f")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "There is no module my_competition, .*: get my_competition.py from the organisers"),
        ("x = ", "my_competition, .*, does not run: SyntaxError in line 1"),
        ("1 / 0", "does not run: ZeroDivisionError in line 1 of my_competition.py: division"),
        ("def load_blob(): pass", "There is no load_blobs in .*: did you mean load_blob?"),
        ("load_blobs = 3", "Expected my_competition:load_blobs to be a function or a class, got 3"),
        ("def load_blobs(): raise KeyError('a')", "The loader .* failed: KeyError in line 1"),
        ("def load_blobs(): return 3", r"or a pair \(records, labels\) of arrays from .*, got int"),
        ("def load_blobs(): return [[1.0]], [0.5]", "Expected labels of .* as whole numbers"),
        ("def load_blobs(): return [['a']], [0]", "got an array of <U1"),
        ("def load_blobs(): return [[float('nan')]], [0]", "finite records .* got NaN"),
        (
            "def load_blobs(): return [[1.0]], [0]",
            r"my_competition:load_blobs gives 1 records where records = 600: correct the loader, "
            r"or \[task.faces\] in .*competition.toml",
        ),
        (
            "import torch\nfrom mico_competition.data.arrays import TextDataset\n"
            "def load_blobs(): return TextDataset(['a'] * 600, *[torch.zeros(600).long()] * 2)",
            "gives TextDataset, not an array, since it has no max_length: correct the loader",
        ),
        *(
            (
                f"def load_blobs(): return [[1.0]] * 600, [{label}] * 300 + [3] * 300",
                f"labels from {least} to {most} where classes = 4 has those from 0 to 3: correct",
            )
            for label, least, most in ((-1, -1, 3), (4, 3, 4))
        ),
        (
            "import torch\nfrom mico_competition.data.arrays import ArrayDataset\n"
            "def load_blobs(): return ArrayDataset(torch.zeros(600, 2), torch.ones(600) / 2, None)",
            "Expected labels as whole numbers, one a record, got fractions or NaN",
        ),
    ],
)
def test_code_that_does_not_fit_is_a_sentence(tmp_path, code, message):
    file = write_own(tmp_path, {"only": {}})
    module = file.with_name("my_competition.py")
    module.unlink()
    if code is not None:
        module.write_text(code + "\n")
    with using(file), pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        load_dataset("faces", None)


def test_a_model_that_cannot_be_made_is_a_sentence(tmp_path):
    file = write_own(tmp_path, {"only": {}}, model="my_competition:load_blobs")
    with using(file), pytest.raises(ValueError, match=r"to be a torch module, got tuple"):
        load_model("faces", _folder_of_weights(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nn.Linear(32, 64)", "nn.Linear(31, 64)", "BlobNet does not take records of shape [32], "),
        ("import numpy as np", "import numpy as np, nmpy", "ModuleNotFoundError in line"),
        ("self.layers(x)", "self.layers(x.nope)", "AttributeError in line"),
    ],
)
def test_a_fault_of_ones_own_code_is_not_called_ours(tmp_path, capsys, old, new, words):
    file = write_own(tmp_path / "mine", {"only": {}})
    module = file.with_name("my_competition.py")
    text = module.read_text()
    assert old in text
    module.write_text(text.replace(old, new))
    line = 1 + text[: text.index(old if "import" in old else "self.layers(x)")].count("\n")
    flags = ["--scenario", "only", "--model_id", "5", "--output_dir", str(tmp_path / "out")]
    with using(None):
        assert main(["--competition", str(file), "train", *flags]) == 1
    told = capsys.readouterr().err
    assert words in told and re.search(rf"Error in line {line} of \S*my_competition\.py: ", told)
    assert "report" not in told and "pip" not in told


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ("[[float('nan')]] * 600", "finite records of my_competition:load_blobs, got NaN"),
        ("[[1.0]] * 600 + [[1.0]]", "my_competition:load_blobs gives 601 records"),
    ],
)
def test_a_dry_run_refuses_the_wrong_data_of_ones_own_loader(tmp_path, capsys, records, words):
    file = write_own(tmp_path / "mine", {"only": {}})
    code = f"def load_blobs(): return {records}, [0] * len({records})\n"
    file.with_name("my_competition.py").write_text(code)
    with using(None):
        flags = ["--scenario", "only", "--dry_run"]
        assert main(["--competition", str(file), "train", *flags]) == 1
    told = capsys.readouterr()
    assert words in told.err and "Not checked" not in told.err and not told.out


def test_a_model_of_too_few_classes_is_a_sentence(tmp_path, capsys):
    file = write_own(tmp_path / "mine", {"only": {"target_epsilon": inf}})
    module = file.with_name("my_competition.py")
    module.write_text(module.read_text().replace("nn.Linear(64, 4)", "nn.Linear(64, 3)"))
    flags = ["--scenario", "only", "--model_id", "5", "--output_dir", str(tmp_path / "out")]
    with using(None):
        assert main(["--competition", str(file), "train", *flags]) == 1
    assert "gives outputs of shape [30, 3], which do not cover" in capsys.readouterr().err


def _folder_of_weights(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    return tmp_path


def test_code_of_one_competition_is_gone_with_it(tmp_path):
    one, two = (write_own(tmp_path / name, {"only": {}}) for name in ("one", "two"))
    code = "def load_blobs():\n    return [[2]] * 600, [1] * 600\n"
    two.with_name("my_competition.py").write_text(code)
    before = list(sys.path)
    with using(one):
        assert len(load_dataset("faces", None)) == 600
    assert "my_competition" not in sys.modules
    with using(two):
        record, label = load_dataset("faces", None)[0]
        assert (record.tolist(), label) == ([2.0], 1)
    assert sys.path == before


def test_a_module_never_hides_an_installed_one(tmp_path):
    file = write_own(tmp_path, {"only": {}}, loader="json:loads")
    file.with_name("json.py").write_text("def loads(): return [[1]], [0]\n")
    with using(file), pytest.raises(ValueError, match="is not what Python imports by that name"):
        load_dataset("faces", None)
