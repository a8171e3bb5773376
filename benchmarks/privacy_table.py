#!/usr/bin/env python3
"""The table of docs/PRIVACY.md: reported epsilons against a second accountant (two minutes).

`make results` ends with this. It rewrites what stands between the page's two markers.
"""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path

from mico_competition.support.progress import tracked
from mico_competition.training.accounting_check import Row, private_rows

PAGE = Path(__file__).resolve().parent.parent / "docs" / "PRIVACY.md"
BEGIN, END = "<!-- accounting: begin -->", "<!-- accounting: end -->"
COLUMNS = (
    "scenario",
    "n",
    "L",
    "q",
    "steps",
    "sigma",
    "reported",
    "PLD at most",
    "PLD at least",
    "reported - PLD",
    "RDP",
    "replace one",
    "sigma by PLD",
)


def main() -> None:
    """Write the table into the page."""
    rows = list(tracked(private_rows(), "Accounting", "row"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    print(f"Wrote the table of {PAGE}")


def filled(page: str, rows: list[Row]) -> str:
    """`page` with the table of `rows` between its markers."""
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    software = ", ".join(f"{name} {version(name)}" for name in ("opacus", "dp_accounting", "scipy"))
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join([*cells(row), at_least(row), *more_cells(row)])} |" for row in rows),
        "",
        "Command: `.venv/bin/python benchmarks/privacy_table.py`.",
        f"Versions: Python {platform.python_version()}, {software}.",
    ]
    return "\n".join([head + BEGIN, *lines, END + tail])


def cells(row: Row) -> list[str]:
    """The columns up to the upper bound."""
    mechanism = row.mechanism
    return [
        row.scenario,
        f"{row.len_training:,}",
        str(row.batch_size),
        f"1/{1 / mechanism.sample_rate:.0f}",
        f"{mechanism.num_steps:,}",
        f"{mechanism.noise_multiplier:.4f}",
        rounded_up(row.reported),
        rounded_up(row.upper),
    ]


def at_least(row: Row) -> str:
    """The lower bound: the slow column."""
    return f"{math.floor(row.lower * 1000) / 1000:.3f}"


def more_cells(row: Row) -> list[str]:
    """The columns after the lower bound."""
    return [
        f"{row.difference:.3f}",
        rounded_up(row.rdp),
        rounded_up(row.replace_one),
        f"{row.least_noise:.4f}",
    ]


def rounded_up(bound: float) -> str:
    """Three decimals of an upper bound, still an upper bound."""
    return f"{math.ceil(bound * 1000) / 1000:.3f}"


if __name__ == "__main__":
    main()
