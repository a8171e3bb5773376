"""README's tree names what there is, and its commands are commands that exist."""

import re
from pathlib import Path

from mico_competition.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## The tree")[1].split("## Glossary")[0]


def test_the_tree_names_what_there_is_and_nothing_else():
    """Every module at the top, every folder; and no module that is not there."""
    package = ROOT / "src" / "mico_competition"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"\b[a-z0-9_]+\.py\b", TREE)) - {"setup.py"}
    assert modules <= named
    assert named <= {path.name for path in package.rglob("*.py")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    for folder in {"scoring", "training", "starting-kit", "benchmarks", "tests", "docs"} | folders:
        assert f"{folder}/" in TREE, folder


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
