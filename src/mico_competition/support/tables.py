"""Tables for people: aligned text for a terminal, and HTML that any notebook shows well.

The HTML has inline styles only, which notebooks and their web viewers keep, and no colour of its
own, so it is readable on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL = "padding:.3em .8em .3em 0;background:transparent;vertical-align:top"
_LINE = "border-bottom:1px solid rgba(128,128,128,.45)"
_SHORT = 20  # letters of a text that no column breaks
Cell = str | tuple[str, str]
SMALL = "opacity:.75;font-size:.85em"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines whose columns are aligned.

    >>> aligned([("method", "epsilon"), ("one-run", "1.20")])
    ['method   epsilon', 'one-run  1.20']
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]


def html_table(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: bool = False
) -> str:
    """A table in HTML; all texts are escaped.

    Args:
        heads: of the columns.
        rows: cells, of which the first is the row's head; a pair is a text with a smaller one.
        numbers: whether the cells are numbers, which stand to the right on one line.
    """
    side = "right;white-space:nowrap" if numbers else "left"
    styles = [f"{_CELL};text-align:left;white-space:nowrap", f"{_CELL};text-align:{side}"]
    top = "".join(
        f'<th scope="col" style="{styles[place > 0]};{_LINE}">{escape(head)}</th>'
        for place, head in enumerate(heads)
    )
    body = "\n".join(
        f'<tr><th scope="row" style="{styles[0]}">{_cell(row[0])}</th>'
        + "".join(f'<td style="{styles[1]}{_line(cell)}">{_cell(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;'
        f'font-variant-numeric:tabular-nums"><thead><tr>{top}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def html_line(words: str, *, small: bool = False, bold: bool = False) -> str:
    """A paragraph above or below a table."""
    inner = f"<b>{escape(words)}</b>" if bold else escape(words)
    style = f"margin:.5em 0;{SMALL}" if small else "margin:.5em 0"
    return f'<p style="{style}">{inner}</p>'


def _line(cell: Cell) -> str:
    """The style that keeps a short text on one line."""
    return ";white-space:nowrap" if len(cell) <= _SHORT else ""


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    small = f' <span style="{SMALL}">{escape(cell[1])}</span>' if cell[1] else ""
    return escape(cell[0]) + small
