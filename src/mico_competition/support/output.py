"""Standard output and error that outlive their readers, and print whatever they are given.

When nobody reads on (`mico fleet ... | head -1`), or the disk that output goes to is full, the
work goes on and what it prints is dropped.  What the terminal's encoding lacks is replaced, and
what is not visible is escaped, but for the ends of lines and what bars move the cursor by.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mico_competition.scoring.printable import printable_lines

_HANDLER = "mico_competition.plain"
_WORDS = {
    **{"ε": "epsilon", "δ": "delta", "σ": "sigma", "≤": "<=", "≥": ">=", "×": "x", "±": "+-"},
    **{"–": "-", "—": "-", "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "→": "->"},
}
_UNSAFE = re.compile(r"[^\n\x20-\x7e]|::|##")
_BARS = re.compile(r"(\r|\x1b\[A)")


def _in_words(error: UnicodeError) -> tuple[str, int]:
    """What stands in for characters that an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    words = (_WORDS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(words), error.end


codecs.register_error(_HANDLER, _in_words)


class PatientStream:
    """A stream of text that drops what nobody takes any more; `problem` says why, if not for that.

    Args:
        stream: what to write to.
        bars: whether bars are shown there, which go to the beginning of a line, and a line up.
    """

    def __init__(self, stream: Any, *, bars: bool) -> None:
        self._stream = stream
        self._bars = bars
        self.problem = ""

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        try:
            self._stream.write(self._safe(text) if _UNSAFE.search(text) else text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def _safe(self, text: str) -> str:
        parts = _BARS.split(text) if self._bars else [text]
        parts[::2] = (printable_lines(p, lines=sys.maxsize, limit=sys.maxsize) for p in parts[::2])
        return "".join(parts)

    def flush(self) -> None:
        """Flush, or drop what was not taken."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.problem = error.strerror or type(error).__name__
        # The descriptor itself is led elsewhere: what is left in buffers goes there too.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output:
    """The two streams of a command."""

    def __init__(self) -> None:
        for number in (1, 2):  # closed descriptors would be taken by the next file that is opened
            with suppress(OSError):
                if not _is_open(number):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        self.streams = (
            PatientStream(sys.stdout or open(os.devnull, "w"), bars=False),  # noqa: SIM115
            PatientStream(sys.stderr or open(os.devnull, "w"), bars=True),  # noqa: SIM115
        )

    @property
    def problem(self) -> str:
        """Why output was dropped that somebody may have wanted; empty if none was."""
        return self.streams[0].problem


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def patient_output() -> Iterator[_Output]:
    """Make `sys.stdout` and `sys.stderr` patient in the block."""
    before = sys.stdout, sys.stderr
    output = _Output()
    errors = []
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            errors.append((stream, stream.errors))
            stream.reconfigure(errors=_HANDLER)
    sys.stdout, sys.stderr = output.streams
    try:
        yield output
    finally:
        for one in output.streams:
            one.flush()
        sys.stdout, sys.stderr = before
        for stream, handler in errors:
            with suppress(OSError):
                stream.reconfigure(errors=handler)
