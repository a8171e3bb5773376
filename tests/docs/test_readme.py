"""README's tree names what there is, and its commands are commands that exist."""

import re
from pathlib import Path

from mico_competition.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README.split("## The tree")[1].split("## Glossary")[0]


def sections():
    """Folder -> its part of the tree, "" for the modules at the top."""
    package = TREE.split("src/mico_competition/\n")[1].split("\nscoring/")[0]
    found = {"": ""}
    folder = ""
    for line in package.splitlines():
        if line.startswith("  ") and line[2] != " ":  # a module at the top, or a folder
            name = line.split()[0]
            folder = name.removesuffix("/") if name.endswith("/") else ""
        found[folder] = found.get(folder, "") + line + "\n"
    return found


def test_the_tree_names_every_module_and_no_other():
    package = ROOT / "src" / "mico_competition"
    there: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            parts = path.relative_to(package).parts
            there.setdefault(parts[0] if len(parts) > 1 else "", set()).add(path.name)
    named = {f: set(re.findall(r"\b[a-z0-9_]+\.py\b", text)) for f, text in sections().items()}
    assert named == there
    for folder in ("scoring", "training", "starting-kit", "benchmarks", "tests", "docs"):
        assert f"{folder}/" in TREE


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
