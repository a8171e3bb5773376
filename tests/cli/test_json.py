"""`--json`: a valid report alone on standard output, for every verb that reports."""

import argparse
import ast
import json
import math
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from mico_competition import __version__
from mico_competition.cli import build_parser, main
from mico_competition.demo import run_demo
from mico_competition.support.reports import REPORTS, SCHEMA, only_a_report, report, report_text

ROOT = Path(__file__).resolve().parents[2]
OF_A_STEP = {"fleet": "fleet status", "leaderboard": "leaderboard check", "bundle": "bundle check"}
OF_A_DRY_RUN = {"train": "train plan", "download": "download plan", "attacks": "attack list"}


def reported(capsys, *words):
    """The exit code and the report, of which standard output holds nothing else."""
    code = main([*map(str, words), "--json"])
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    name = found["report"]
    assert list(found) == ["report", "schema", "mico_competition", *REPORTS[name]]
    assert (found["schema"], found["mico_competition"]) == (SCHEMA, __version__)
    return code, found


def verbs_with_the_flag():
    """The verbs, and steps of `leaderboard`, that take --json."""
    (verbs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in verbs.choices.items():
        inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        parsers = [parser, *(p for a in inner for p in a.choices.values())]
        if any("--json" in p._option_string_actions for p in parsers):
            yield name


def test_a_row_describes_the_report_of_every_verb_with_the_flag():
    names = {(OF_A_STEP | OF_A_DRY_RUN).get(verb, verb) for verb in verbs_with_the_flag()}
    assert names | {"audit of scores", "fleet merge", "fleet plan"} == set(REPORTS)


def test_the_page_describes_every_report_and_field():
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    for name, fields in REPORTS.items():
        assert f"## {name}\n" in page
        for field, what in fields.items():
            assert f"- `{field}`: {what}" in page, f"{name}: {field}"


@dataclass
class Pair:
    first: float
    second: Path


def test_values_become_those_of_json():
    values = [math.inf, np.float32(0.5), Decimal("0.25"), Pair(math.nan, Path("a")), {1: (2,)}]
    found = json.loads(report_text("tracks", scenarios=values))
    assert found["scenarios"] == [None, 0.5, 0.25, {"first": None, "second": "a"}, {"1": [2]}]
    with pytest.raises(AssertionError, match="fields of the report tracks"):
        report_text("tracks", rows=[])


def test_without_the_flag_no_report_is_printed(capsys):
    with only_a_report(False):
        print("text")
        report("tracks", scenarios=[])
    assert capsys.readouterr().out == "text\n"


def test_tables(capsys):
    code, found = reported(capsys, "tracks")
    assert code == 0 and found["scenarios"][0]["name"] == "cifar10_inf"
    assert found["scenarios"][0]["target_epsilon"] is None
    assert [p["count"] for p in found["scenarios"][0]["phases"].values()] == [100, 50, 50]
    code, found = reported(capsys, "attacks", "lira", "suri")
    assert code == 0 and [row["name"] for row in found["attacks"]] == ["lira", "suri"]


def test_the_plan_of_a_training(capsys):
    assert main("train --scenario digits_inf --dry_run".split()) == 0
    plan = json.loads(capsys.readouterr().out)
    again = reported(capsys, "train", "--scenario", "digits_inf", "--dry_run")[1]["plan"]
    assert plan.pop("cost").keys() == again.pop("cost").keys() and plan == again


@pytest.mark.parametrize(
    "words",
    ["train --scenario digits_lo", "fleet digits_lo --out x --models 0", "bundle x", "download x"],
)
def test_the_flag_goes_with_what_reports(words, capsys):
    assert main([*words.split(), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.splitlines()[-1].startswith("mico: --json is for ")


def test_entries_of_a_leaderboard(capsys, tmp_path):
    shutil.copytree(ROOT / "leaderboard", tmp_path / "leaderboard")
    code, found = reported(capsys, "leaderboard", "check", tmp_path / "leaderboard")
    assert (code, found["faults"]) == (0, []) and found["entries"] >= 0
    (tmp_path / "leaderboard" / "digits").mkdir(exist_ok=True)
    (tmp_path / "leaderboard" / "digits" / "x.json").write_text("{}")
    code, found = reported(capsys, "leaderboard", "check", tmp_path / "leaderboard")
    assert code == 1 and found["faults"]


def test_a_bundle_that_is_none(capsys, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    code, found = reported(capsys, "bundle", "--check", tmp_path / "x.zip")
    assert code == 1 and not found["sound"]
    assert set(found["faults"][0]) == {"severity", "where", "what", "fix"}
    code, found = reported(capsys, "rehearse", tmp_path / "x.zip", tmp_path / "x.zip")
    assert code == 1 and found["phases"] == [] and found["faults"]


def test_before_a_folder_the_flag_names_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "purchase100").mkdir()
    for words, to in ((["--json", "purchase100"], True), (["purchase100", "--json", "-"], True)):
        assert build_parser("audit").parse_args(["audit", *words]).json is to
    parsed = build_parser("audit").parse_args(["audit", "purchase100", "--json", "a.json"])
    assert parsed.json == Path("a.json")


# --- reports of models


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What `mico demo` writes, with four models a scenario and phase."""
    out = tmp_path_factory.mktemp("demo")
    return run_demo(out / "demo", models_per_phase=4, workers=1, seed=1).parents[2]


@pytest.mark.slow
def test_reports_of_a_challenge(demo, capsys, tmp_path):
    capsys.readouterr()
    folder, predictions = demo / "released" / "digits", demo / "predictions" / "digits"
    there = [folder, "--predictions", predictions]
    code, found = reported(capsys, "check", *there)
    assert (code, found["sound"], found["faults"]) == (0, True, [])
    code, found = reported(capsys, "score", *there, "--html", tmp_path / "page.html")
    assert code == 0 and [one["models"] for one in found["scenarios"]] == [4, 4, 4]
    for one in found["scenarios"]:
        assert 0 <= one["metrics"]["TPR_FPR_1000"]["low"] <= 1
    mean = np.mean([one["metrics"][found["ranked"]]["value"] for one in found["scenarios"]])
    assert found["average"]["value"] == pytest.approx(mean)
    code, found = reported(capsys, "verify", folder)
    assert code == 0 and found["checked"] == "files" and found["count"] > 100
    code, found = reported(capsys, "leaks", demo / "released", "--trained", demo / "trained")
    assert (code, found["challenges"], found["faults"]) == (0, ["digits"], [])
    broken = tmp_path / "broken" / "digits"
    shutil.copytree(predictions, broken)
    next(broken.rglob("prediction.csv")).write_text("2\n")
    code, found = reported(capsys, "check", folder, "--predictions", broken)
    assert (code, found["sound"]) == (1, False) and found["faults"]


@pytest.mark.slow
def test_reports_of_attacks(demo, capsys, tmp_path):
    capsys.readouterr()
    folder, predictions = demo / "released" / "digits", demo / "predictions" / "digits"
    cache = ["--cache", tmp_path / "cache"]
    code, found = reported(capsys, "signals", folder, *cache)
    assert code == 0 and {one["models"] for one in found["scenarios"]} == {12}
    words = ["--scenario", "digits_inf", "--attack", "lira", "--resamples", 5, *cache]
    code, found = reported(capsys, "evaluate", folder, *words)
    assert code == 0 and [one["scenario"] for one in found["scenarios"]] == ["digits_inf"]
    code, found = reported(capsys, "audit", folder, "--predictions", predictions)
    assert code == 0 and found["alarm"] is False and len(found["scenarios"]) == 3
    words = ["--truth", demo / "trained", "--out", tmp_path / "board", "--resamples", 20]
    (tmp_path / "zips").mkdir()
    shutil.copy(demo / "predictions_digits.zip", tmp_path / "zips" / "a.zip")
    (tmp_path / "zips" / "b.zip").write_bytes(b"no zip")
    code, found = reported(capsys, "score-all", tmp_path / "zips", *words, "--workers", 1)
    assert (code, found["scored"], found["faulty"]) == (1, 1, 1)
    good, bad = sorted(found["outcomes"], key=lambda one: one["zip"])
    assert good["faults"] is None and len(good["entries"]) == 1 and bad["faults"]


@pytest.mark.slow
def test_reports_of_training(capsys, tmp_path):
    words = ["digits_inf", "--models", "0", "--out", tmp_path, "--num_epochs", 1, "--quiet"]
    assert main(["fleet", *map(str, words)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # the sum; --quiet has no line a model
    code, found = reported(capsys, "fleet", "status", tmp_path)
    assert (code, found["whole"]) == (0, True)
    assert {k: found["fleets"][0][k] for k in ("models", "done", "failed", "state")} == {
        **{"models": 1, "done": 1, "failed": [], "state": "finished"}
    }
    words = ["--num_epochs", 5, "--canaries", 100, "--record_canaries", 0, "--seed", 1]
    code, found = reported(capsys, "audit-train", "digits_lo", *words)
    assert (code, found["alarm"], found["scenario"]) == (0, False, "digits_lo")


def test_every_report_has_the_fields_that_the_page_lists():
    """Read from the calls, so that a field that is new shows before its verb runs."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            called, name = getattr(call.func, "id", ""), call.args[0]
            fields = {keyword.arg for keyword in call.keywords}
            if called in ("report", "report_text") and isinstance(name, ast.Constant):
                found.add(name.value)
                assert None in fields or fields == set(REPORTS[name.value]), (path, call.lineno)
    assert found == set(REPORTS)
