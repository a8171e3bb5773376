"""The organiser's code: what is imported from beside a competition's file, and what never runs."""

import importlib
import sys

import pytest
from helpers_competition import TASK, competition_text

from mico_competition.competition.code import resolve
from mico_competition.competition.table import using


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
