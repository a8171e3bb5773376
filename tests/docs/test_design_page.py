"""docs/DESIGN.md: its tree names the folders that there are, and its way to a score exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "DESIGN.md").read_text(encoding="utf-8")
TREE = PAGE.split("## The tree")[1].split("\n## ")[0]
WALK = PAGE.split("## From a model to a score in eight files")[1].split("\n## ")[0]


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
    walk = re.findall(r"`(\w+(?:/\w+)+)\.py`", WALK)
    assert len(walk) == 8
    texts = [(ROOT / "src/mico_competition" / f"{path}.py").read_text() for path in walk]
    for i, path in enumerate(walk[1:], 1):
        name = path.split("/")[-1]
        assert any(name in text for text in texts[:i]), path
