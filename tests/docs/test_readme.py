"""README's commands are commands that exist, its links lead somewhere, its numbers are measured."""

import json
import re
from pathlib import Path

from mico_competition.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_verbs_and_targets_exist():
    verbs = next(a for a in build_parser()._actions if a.dest == "verb").choices
    shown = set(re.findall(r"^mico ([a-z]+)", README, re.MULTILINE))
    assert len(shown) >= 5 and shown <= set(verbs)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "lint", "bench", "results"} <= targets
    assert set(re.findall(r"`?make ([a-z]+)`?", README)) - {"needed"} <= targets | {"it"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_demonstrations_time_and_table_are_those_that_were_measured():
    """After `benchmarks/real_runs.py demo` and `benchmarks/results_page.py`, mend the README."""
    report = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))
    seconds = f"{report['seconds']:.0f} s on"
    assert f"The demonstration ({seconds} two cores, {report['models']} models a" in README
    assert seconds in (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    assert report["seconds"] < 60 and "scikit-learn's digits, in a minute\n" in README
    for row in report["rows"]:
        cells = [row["scenario"], row["epsilon"]]
        cells += [f"{row[name]:.3f}" for name in ("accuracy", "final", "AUC")]
        assert f"\n| {' | '.join(cells)} |\n" in README
