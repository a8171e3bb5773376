"""The tables of docs/COMPATIBILITY.md, and which of their rows a test checks."""

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/COMPATIBILITY.md").read_text(encoding="utf-8")
OLD = ROOT / "tests/fixtures/2022"
SEEDS = (6230879983245502181, 1687448081092837719, 2966330672645457429)
SEED_FILES = ("seed_challenge", "seed_training", "seed_membership")
N, TRAINING, M = 150, 40, 10


def table(heading):
    """The first cell's name -> the row's cells: call, what it returns or holds, today, note."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = {}
    for line in part.splitlines():
        if line.startswith("| `"):
            call, *cells = (cell.strip() for cell in line.removesuffix("|").split(" | "))
            call = call.removeprefix("| ").strip("`")
            rows[call.partition("(")[0]] = (call, *cells)
    return rows


NAMES = {**table("The package"), **table("Scoring")}
FILES, COMMANDS = table("Files"), table("Commands")
CHECKED = set()


def check(name):
    """Make a test the check of the row `name`."""

    def keep(function):
        CHECKED.add(name)
        return function

    return keep


def found(name):
    """What a dotted name leads to, as in `import` and then attributes."""
    parts = name.split(".")
    thing = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], start=2):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            thing = importlib.import_module(".".join(parts[:end]))
    return thing
