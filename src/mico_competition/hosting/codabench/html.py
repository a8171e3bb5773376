"""Converts the Markdown of a bundle's pages to HTML, for CodaLab, which does not render Markdown.

It supports headings, paragraphs, lists of one level, tables, fenced code, and in lines code, bold,
italics and links.  All text is escaped first, so a page cannot inject HTML.
"""

from __future__ import annotations

import re
from html import escape

_INLINE = (
    (re.compile(r"\*\*(.+?)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\*([^*\s][^*]*)\*"), r"<em>\1</em>"),
    (re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+)\)"), r'<a href="\2">\1</a>'),
)
_HEADING = re.compile(r"(#{1,6}) (.+)")
_BAR = re.compile(r"(?<!\\)\|")
_ITEM = re.compile(r"(-|\d+\.) +")


def as_html(markdown: str) -> str:
    """The HTML of a page, without `<html>` and `<body>`."""
    blocks, lines = [], markdown.splitlines()
    while lines:
        if lines[0].startswith("```"):
            end = next((i for i, line in enumerate(lines) if i and line == "```"), len(lines))
            code = escape("\n".join(lines[1:end]))
            blocks.append(f"<pre><code>{code}</code></pre>")
            del lines[: end + 1]
        elif not lines[0].strip():
            del lines[0]
        else:
            end = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
            blocks.append(_block(lines[:end]))
            del lines[:end]
    return "\n".join(blocks) + "\n"


def _block(lines: list[str]) -> str:
    """The HTML of lines without an empty line between them."""
    heading = _HEADING.fullmatch(lines[0])
    if heading:
        level = len(heading[1])
        return f"<h{level}>{_inline(heading[2])}</h{level}>"
    if lines[0].startswith("|"):
        return _table(lines)
    if _ITEM.match(lines[0]):
        return _list(lines)
    return f"<p>{_inline(' '.join(lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [[c.strip().replace("\\|", "|") for c in _BAR.split(line)[1:-1]] for line in lines]
    head, body = rows[0], rows[2:]
    cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
    html = [f'<table class="table">\n<thead><tr>{cells}</tr></thead>\n<tbody>']
    for row in body:
        html.append(f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>")
    return "\n".join([*html, "</tbody>\n</table>"])


def _list(lines: list[str]) -> str:
    """A list, bulleted or numbered; lines that begin with a space continue an item."""
    items: list[str] = []
    for line in lines:
        if _ITEM.match(line):
            items.append(_ITEM.sub("", line, count=1))
        else:
            items[-1] += f" {line.strip()}"
    tag = "ul" if lines[0].startswith("-") else "ol"
    return "\n".join([f"<{tag}>", *(f"<li>{_inline(item)}</li>" for item in items), f"</{tag}>"])


def _inline(text: str) -> str:
    """Code, bold, italics and links in a line; the content of code is not converted."""
    parts = re.split(r"`([^`]+)`", text)
    for i, part in enumerate(parts):
        part = escape(part, quote=False)
        if i % 2:
            part = f"<code>{part}</code>"
        else:
            for pattern, html in _INLINE:
                part = pattern.sub(html, part)
        parts[i] = part
    return "".join(parts)
