"""docs/ATTACKS.md: what its script writes, and an attack in ten lines that runs as it stands."""

import json
import re
import shlex
from pathlib import Path

import pytest
from helpers_problem import ATTACKS, make_source
from helpers_scripts import script_of

from mico_competition.attacks.registry import ROWS, WINNERS_BEST
from mico_competition.cli import main
from mico_competition.evaluation.cross_fitting import make_task
from mico_competition.evaluation.custom import find_attack
from mico_competition.evaluation.evaluate import Options, evaluate

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ATTACKS.md"


@pytest.fixture
def script():
    with script_of("attacks_page") as module:
        yield module


def test_the_page_is_what_its_script_writes(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "DOCS", tmp_path)
    script.main()
    assert (tmp_path / "ATTACKS.md").read_text() == PAGE.read_text()


def test_every_attack_that_was_measured_has_its_name_still():
    known = {*ROWS, WINNERS_BEST}
    files = list((ROOT / "docs/results/attacks").glob("*.json"))
    assert files
    for path in files:
        for found in json.loads(path.read_text()):
            assert {attack["name"] for attack in found["attacks"]} <= known
            assert re.fullmatch("[0-9a-f]{7,}", found["commit"]), f"{path}: whose code made it?"


@pytest.mark.slow
def test_the_ten_line_attack_runs_as_the_page_has_it(small_fleet, tmp_path, monkeypatch, capsys):
    page = PAGE.read_text()
    code, with_mean = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    assert len([line for line in with_mean.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    Path("my_attack.py").write_text(code)
    Path("my_mean.py").write_text(with_mean)
    Path("released").mkdir()
    Path("released/digits").symlink_to(small_fleet)
    blocks = re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL)
    makes, releases, *lines = "".join(blocks).splitlines()
    assert makes.startswith("mico fleet digits_inf") and releases.startswith("mico release trained")
    assert len(lines) == 3
    for line in lines:
        assert main(shlex.split(line.removeprefix("mico "))) == 0, capsys.readouterr()
    assert "my_attack.py:attack" in capsys.readouterr().out
    assert Path("report.html").is_file()
    assert len(list(Path("predictions").rglob("prediction.csv"))) == 18


def test_a_function_of_ones_own_leaves_its_target_out(tmp_path):
    """The page's function equals the built-in one; without target_index it is refused."""
    _, code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "my_mean.py").write_text(code)
    leaky, count = re.subn(r"    if target_index is not None:.*\n.*\n", "", code)
    assert count == 1
    (tmp_path / "leaky.py").write_text(leaky)
    source = make_source(train=30, dev=10, asked=60, points=300, shift=2.0)
    task, few = make_task(source, "train"), Options(resamples=20)
    attacks = [find_attack(f"{tmp_path}/my_mean.py:attack"), ATTACKS["calibrate-logit-out"]]
    mine, built_in = evaluate(task, attacks, options=few).rows[1:]
    assert mine.measured["AUC"].value == pytest.approx(built_in.measured["AUC"].value)
    with pytest.raises(ValueError, match=r"leaky.py:attack leaks.* Use target_index"):
        evaluate(task, [find_attack(f"{tmp_path}/leaky.py:attack")], options=few)
