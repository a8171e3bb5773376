"""README's commands are commands that exist, its links lead somewhere, its numbers are measured."""

import json
import re
from pathlib import Path
from statistics import median

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


def test_it_is_short():
    assert len(README.splitlines()) <= 130


def test_the_demonstrations_time_is_that_which_was_measured():
    """After `benchmarks/real_runs.py demo` and `benchmarks/results_page.py`, mend the README."""
    report = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))
    assert f"{report['seconds']:.0f} s on" in (ROOT / "docs" / "RESULTS.md").read_text("utf-8")
    assert report["seconds"] < 60 and "scikit-learn's digits, in a minute\n" in README


def test_its_results_are_those_of_the_pages():
    """Each cell of its tables stands on the page that the measurement wrote."""
    pages = "".join(
        (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("ATTACKS", "PEERS")
    )
    rows = [line.split("|")[2:-1] for line in README.splitlines() if re.match(r"\| .*\d", line)]
    assert len(rows) >= 8
    measured = [cell.strip() for row in rows for cell in row if re.match(r" [+\d]", cell)]
    assert len(measured) >= 20 and not [cell for cell in measured if cell not in pages]


def test_its_figures_of_a_gpu_are_those_of_the_page_with_card_and_commit():
    """And it says that later code was not measured on one."""
    found = json.loads((ROOT / "docs" / "results" / "gpu.json").read_text("utf-8"))
    text = " ".join(README.split())
    assert f"On an {found['device']} " in text and f"code of commit {found['code']};" in text
    assert "later code was not measured on a GPU ([speed](benchmarks/RESULTS.md#on-a-gpu))" in text
    for mode, said in (("bookkeeping", "it took {} times"), ("hooks", "with hooks {}, by")):
        steps = [case["seconds"] for case in found["steps"]]
        ratios = [median(seconds[mode]) / median(seconds["plain"]) for seconds in steps]
        assert said.format(f"{min(ratios):.1f} to {max(ratios):.1f}") in text
