#!/usr/bin/env python3
"""The technical report: docs/report/ and README's picture from docs/results/report/*.md.

    python benchmarks/report_page.py            # writes the page and its figures
    python benchmarks/report_page.py --check    # says whether what is there is up to date

The templates name results, as `{{ gain("full_inf", "best") }}`; the functions are those of
`report_numbers`, `report_facts` and `report_tables`. A result that docs/results does not have, or a
sentence that it does not support any more (`holds`), ends the script with a message.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import report_facts as facts
import report_figures as figures
import report_numbers as numbers
import report_tables as tables
from attacks_glance import REAL, SHOWN
from jinja2 import Environment, StrictUndefined, UndefinedError

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES, OUT = ROOT / "docs/results/report", ROOT / "docs/report"
PICTURE = ROOT / "docs/found.svg"
FILTERS = ("thousands", "percent", "fixed")
HEAD = "<!-- benchmarks/report_page.py writes this page from docs/results/report; edit that. -->\n"


def main(arguments: list[str]) -> None:
    """Write the files, or compare them with those that are there."""
    try:
        files = written()
    except (numbers.Missing, facts.Outdated) as error:
        sys.exit(error.args[0])
    if "--check" in arguments:
        old = [str(p.relative_to(ROOT)) for p, text in files.items() if _now(p) != text]
        if old:
            sys.exit(f"{', '.join(old)}: not what docs/results has; run benchmarks/report_page.py")
        return
    OUT.mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    print(f"Wrote {OUT} and {PICTURE}")


def _now(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def written() -> dict[Path, str]:
    """Path -> text of the page and of each picture."""
    files = {OUT / f"{name}.svg": draw() for name, draw in figures.FIGURES.items()}
    parts = [filled(path) for path in sorted(TEMPLATES.glob("*.md"))]
    return {OUT / "index.md": HEAD + "\n" + "\n".join(parts), **files, PICTURE: figures.readme()}


def filled(path: Path) -> str:
    """A template with its numbers."""
    environment = Environment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters |= {name: getattr(numbers, name) for name in FILTERS}
    text = path.read_text(encoding="utf-8")
    try:
        page = environment.from_string(text).render(**names())
    except UndefinedError as error:
        raise numbers.Missing(f"docs/results/report/{path.name}: {error.message}") from None
    return re.sub(r"\n{3,}", "\n\n", page)


def names() -> dict[str, Any]:
    """What templates may use."""
    found: dict[str, Any] = {}
    for module in (numbers, facts, tables):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                found[name] = function
    found |= {"POWER": figures.POWER, "PRIVATE": figures.PRIVATE, "REAL": REAL}
    found["SHOWN"] = [s.fleet for s in SHOWN if not s.fleet.endswith("_ddp")]
    found |= {"mean": numbers.average, "alt": figures.alt}
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
