"""README's tree names what there is, and its commands are commands that exist."""

import json
import re
from pathlib import Path

from mico_competition.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## The tree")[1].split("## Glossary")[0]


def folders_of_the_tree():
    """Paths of the package's folders, as the tree's indentation puts them."""
    package = TREE.split("src/mico_competition/\n")[1].split("\nscoring/")[0]
    above: list[str] = []
    for line in package.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        above = [*above[:depth], line.split()[0].rstrip("/")]
        yield "/".join(above)


def test_the_tree_has_one_line_a_folder():
    package = ROOT / "src" / "mico_competition"
    there = {str(path.parent.relative_to(package)) for path in package.rglob("*.py")} - {"."}
    assert sorted(folders_of_the_tree()) == sorted(there)
    for folder in ("scoring", "training", "starting-kit", "benchmarks", "tests", "docs"):
        assert f"{folder}/" in TREE


def test_a_score_is_reached_in_eight_files():
    """Each file of the walk is there, and one before it names its module."""
    walk = re.findall(r"`(\w+(?:/\w+)+)\.py`", TREE)
    assert len(walk) == 8
    texts = [(ROOT / "src/mico_competition" / f"{path}.py").read_text() for path in walk]
    for i, path in enumerate(walk[1:], 1):
        name = path.split("/")[-1]
        assert any(name in text for text in texts[:i]), path


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
