"""Escapes untrusted text, so that it is safe to print.

Others choose file names, entries of zips, values in JSON, names of participants, and input that
libraries quote.  Printed unchanged, such text could forge lines, control a terminal or a log of
continuous integration, hide or reverse characters, or fail to be encoded.  `printable` escapes only
what could do that and leaves the rest readable; `shown` quotes text in ASCII.
"""

import re
import unicodedata
from typing import Any, Iterator, Tuple

MAX_PRINTABLE = 200
MAX_SHOWN = 60
MAX_MARKS = 2
"""Marks over one letter: two are Vietnamese; more of them run over the lines above and below."""

# Characters that are printable by their category but invisible: fillers, blanks, selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\ufffc"
    "\uffa0\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
# Commands in logs of continuous integration: "::name" at the beginning of a line, and "##[name]" or
# "##vso[name]" anywhere in it.
_COMMAND = re.compile(r"^( *):(?=:)|#(?=#\w*\[)")


def _escaped(char: str) -> str:
    code = ord(char)
    return "\\x%02x" % code if code < 256 else ("\\u%04x" if code < 65536 else "\\U%08x") % code


def _command_escaped(match: Any) -> str:
    return "\\x23" if match.group(1) is None else match.group(1) + "\\x3a"


def _judged(text: str) -> Iterator[Tuple[str, bool]]:
    """Each character, and whether it is safe: visible, and without effect on its neighbours."""
    marks = MAX_MARKS  # a mark at the beginning would combine with the character before the text
    for char in text:
        kind = unicodedata.category(char)
        marks = marks + 1 if kind == "Mn" else 0
        sound = char.isprintable() and kind != "Me" and marks <= MAX_MARKS
        yield char, sound and not _UNSEEN.match(char)


def is_plain(text: str) -> bool:
    """Whether no character in `text` is invisible, moves others, or stacks up on one letter."""
    return all(sound for _, sound in _judged(text))


def printable(text: Any, limit: int = MAX_PRINTABLE) -> str:
    r"""Escape `text` so that it is one line and safe to print.

    Escaped, as in `repr`, are control characters, line ends, invisible characters, characters that
    reverse text, the third and later marks on one letter, halves of surrogate pairs, unassigned
    characters, and commands in logs of continuous integration.  Letters of all scripts stay, and
    printable text comes back unchanged.

    Args:
        text: the untrusted text; other values are converted to a string.
        limit: the maximal length; longer results are cut and end in "...".

    >>> printable("a\n::set-output name=x\x1b[2J"), printable("José")
    ('a\\x0a::set-output name=x\\x1b[2J', 'José')
    """
    head = str(text)[: limit + 1]
    line = "".join(char if sound else _escaped(char) for char, sound in _judged(head))
    line = _COMMAND.sub(_command_escaped, line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def printable_lines(text: Any, lines: int = 100, limit: int = 2000) -> str:
    """Escape a text of several lines; of lines beyond `lines`, only the number is given."""
    found = str(text).split("\n")
    kept = [printable(line, limit) for line in found[:lines]]
    return "\n".join(kept + ["... and %d more lines" % (len(found) - lines)] * (len(found) > lines))


def shown(text: str) -> str:
    """`text` quoted for a log: control and non-ASCII characters escaped, and cut short."""
    quoted = _COMMAND.sub(_command_escaped, ascii(text[: MAX_SHOWN + 1]))
    return quoted if len(quoted) <= MAX_SHOWN + 2 else quoted[:MAX_SHOWN] + "...'"
