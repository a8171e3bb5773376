"""Makes standard output and error robust: they never fail, and print only visible characters.

If the reader has gone (`mico fleet ... | head -1`) or the disk is full, output is dropped and the
work continues.  Characters that the terminal's encoding lacks are replaced, and invisible ones are
escaped, except for line feeds, the cursor movements of progress bars, and the styles of a terminal
with colours.
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
from mico_competition.support.terminal import STYLED, has_colours

_HANDLER = "mico_competition.plain"
_WORDS = {
    **{"ε": "epsilon", "δ": "delta", "σ": "sigma", "≤": "<=", "≥": ">=", "×": "x", "±": "+-"},
    **{"–": "-", "—": "-", "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "→": "->"},
}
_UNSAFE = re.compile(r"[^\n\x20-\x7e]|::|##")
_BARS = r"\r|\x1b\[A"


def _in_words(error: UnicodeError) -> tuple[str, int]:
    """The replacement of characters that an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    words = (_WORDS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(words), error.end


codecs.register_error(_HANDLER, _in_words)


class PatientStream:
    """A text stream that drops output which cannot be written.

    `problem` says why, unless the reader has simply gone.

    Args:
        stream: the stream to write to.
        bars: whether progress bars are shown on it, so that cursor movements must pass.
    """

    def __init__(self, stream: Any, *, bars: bool) -> None:
        self._stream = stream
        passing = [_BARS] * bars + [STYLED.pattern] * has_colours(stream)
        self._passing = re.compile(f"({'|'.join(passing)})") if passing else None
        self.problem = ""

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        try:
            self._stream.write(self._safe(text) if _UNSAFE.search(text) else text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def _safe(self, text: str) -> str:
        parts = self._passing.split(text) if self._passing else [text]
        parts[::2] = (printable_lines(p, lines=sys.maxsize, limit=sys.maxsize) for p in parts[::2])
        return "".join(parts)

    def flush(self) -> None:
        """Flush, or drop what cannot be written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.problem = error.strerror or type(error).__name__
        # Redirect the descriptor itself, so that the content of buffers is dropped too.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output:
    """The two output streams of a command."""

    def __init__(self) -> None:
        for number in (1, 2):  # if one is closed, the next file that is opened would get its number
            with suppress(OSError):
                if not _is_open(number):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        self.streams = (
            PatientStream(sys.stdout or open(os.devnull, "w"), bars=False),  # noqa: SIM115
            PatientStream(sys.stderr or open(os.devnull, "w"), bars=True),  # noqa: SIM115
        )

    @property
    def problem(self) -> str:
        """Why output was dropped that a reader may have wanted; empty if none was."""
        return self.streams[0].problem


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def patient_output() -> Iterator[_Output]:
    """Replace `sys.stdout` and `sys.stderr` by robust streams in this block."""
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
