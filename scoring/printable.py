"""Text from outside, made fit to be printed: the one place that escapes it.

File names, entries of zips, values of JSON, names of participants and what libraries quote of
their input are written by strangers.  Printed as they are, they could start a line of their own,
steer a terminal or a log of continuous integration, hide characters or turn them round, or fail
to be encoded.  `printable` keeps text readable and escapes just what could do that; `shown`
quotes it in ASCII, for logs whose reader takes nothing else.
"""

import re
import unicodedata
from typing import Any, Iterator, Tuple

MAX_PRINTABLE = 200
MAX_SHOWN = 60
MAX_MARKS = 2
"""Marks over one letter: two are Vietnamese; more of them run over the lines above and below."""

# Printable by their category, and yet nothing is to be seen of them: fillers, blanks, selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\ufffc"
    "\uffa0\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
# What logs of continuous integration take for a command: "::name" that begins a line, and
# "##[name]" or "##vso[name]" anywhere in it.
_COMMAND = re.compile(r"^( *):(?=:)|#(?=#\w*\[)")


def _escaped(char: str) -> str:
    code = ord(char)
    return "\\x%02x" % code if code < 256 else ("\\u%04x" if code < 65536 else "\\U%08x") % code


def _command_escaped(match: Any) -> str:
    return "\\x23" if match.group(1) is None else match.group(1) + "\\x3a"


def _judged(text: str) -> Iterator[Tuple[str, bool]]:
    """Each character, and whether it is visible, is one, and stays where it stands."""
    marks = MAX_MARKS  # a mark at the very beginning would sit on what is printed before it
    for char in text:
        kind = unicodedata.category(char)
        marks = marks + 1 if kind == "Mn" else 0
        sound = char.isprintable() and kind != "Me" and marks <= MAX_MARKS
        yield char, sound and not _UNSEEN.match(char)


def is_plain(text: str) -> bool:
    """Whether nothing in `text` is invisible, moves what is around it, or piles up on it."""
    return all(sound for _, sound in _judged(text))


def printable(text: Any, limit: int = MAX_PRINTABLE) -> str:
    r"""`text` in one line that is safe to print: what is not visible is escaped, as in `repr`.

    Escaped are control characters and the ends of lines, what is invisible or turns text round,
    the third and later of marks over one letter, halves of surrogate pairs, characters that
    Unicode does not know, and what logs of continuous integration take for commands.  Letters
    of all scripts stay as they are, and what is printable already comes back unchanged.

    Args:
        text: from outside; whatever is no string is turned into one.
        limit: longer results end in "..." at this length.

    >>> printable("a\n::set-output name=x\x1b[2J"), printable("José")
    ('a\\x0a::set-output name=x\\x1b[2J', 'José')
    """
    head = str(text)[: limit + 1]
    line = "".join(char if sound else _escaped(char) for char, sound in _judged(head))
    line = _COMMAND.sub(_command_escaped, line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def printable_lines(text: Any, lines: int = 100, limit: int = 2000) -> str:
    """`text` of several lines, each `printable`; what is over `lines` of them is counted."""
    found = str(text).split("\n")
    kept = [printable(line, limit) for line in found[:lines]]
    return "\n".join(kept + ["... and %d more lines" % (len(found) - lines)] * (len(found) > lines))


def shown(text: str) -> str:
    """`text` quoted for a log: control and non-ASCII characters escaped, and cut short."""
    quoted = _COMMAND.sub(_command_escaped, ascii(text[: MAX_SHOWN + 1]))
    return quoted if len(quoted) <= MAX_SHOWN + 2 else quoted[:MAX_SHOWN] + "...'"
