"""What a terminal shows: text in colour, its width, and tables that fit into it."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
STYLED = re.compile(rf"\x1b\[(?:0|{'|'.join(STYLES.values())})m")
"""The codes that `styled` writes; no other code reaches a terminal (support/output.py)."""

PLAIN_WIDTH = 100  # columns of what is written to a file or a pipe
_LEAST_WIDTH = 60
_LEAST_LAST_COLUMN = 20
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*(e[+-]?[0-9]+)?%?|[+-]?inf|-|none")
_GAP = "  "


def has_colours(stream: Any) -> bool:
    """Whether styles are shown on `stream`: a terminal, unless NO_COLOR or TERM=dumb forbids it."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def styled(text: str, style: str, stream: Any = None) -> str:
    """`text` in one of `STYLES` (or none, "") if it goes to a terminal with colours."""
    if not (text and style and has_colours(stream or sys.stdout)):
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def with_alarms(text: str) -> str:
    """A report in which the word ALARM is red on a terminal with colours."""
    return text.replace("ALARM", styled("ALARM", "red"))


def width() -> int:
    """The columns to fill: COLUMNS, else those of the terminal, else 100 for files and pipes."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given):
        return max(_LEAST_WIDTH, int(given))
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (AttributeError, OSError, ValueError):  # no terminal
        columns = 0
    return max(_LEAST_WIDTH, columns) if columns else PLAIN_WIDTH


def wrapped(text: str) -> str:
    """A sentence in lines that fit the terminal."""
    return textwrap.fill(text, width(), break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, wide: bool = False) -> list[str]:
    """The lines of a table; its last column is wrapped where it would pass the terminal's width.

    Args:
        header: the names of the columns.
        rows: the cells; a column whose cells are numbers is aligned to the right.
        wide: write the last column in one line, however long it is.
    """
    columns = list(zip(header, *rows))
    widths = [max(map(len, column)) for column in columns]
    numbers = [bool(rows) and all(map(_NUMBER.fullmatch, column[1:])) for column in columns]
    room = max(_LEAST_LAST_COLUMN, width() - sum(widths[:-1]) - len(_GAP) * len(widths[:-1]))
    lines = []
    for number, row in enumerate((header, *rows)):
        parts = [row[-1]] if wide else textwrap.wrap(row[-1], room) or [""]
        last = [part.rjust(widths[-1]) if numbers[-1] else part for part in parts]
        cells = [
            cell.rjust(size) if right else cell.ljust(size)
            for cell, size, right in zip(row[:-1], widths, numbers)
        ]
        hanging = " " * (sum(widths[:-1]) + len(_GAP) * len(cells))
        lines.append(styled(_GAP.join([*cells, last[0]]).rstrip(), "" if number else "bold"))
        lines += [hanging + part for part in last[1:]]
    return lines
