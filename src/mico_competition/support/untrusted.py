"""Reads files that somebody else wrote, as bytes, text or JSON, within limits on their size.

The limit applies to the size of the file before it is read, and again while it is read.  Pipes,
devices and folders are never opened, and the pointer of a git-LFS file is recognised.  A file that
is refused raises a ValueError of one sentence that names it; errors of the disk stay OSErrors.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NoReturn

from mico_competition.scoring.files import HOSTS_ERRORS
from mico_competition.scoring.printable import printable

PathLike = str | os.PathLike[str]

SEED_LIMIT = 1_000
TEXT_LIMIT = 1_000_000
JSON_LIMIT = 4_000_000
MAX_DEPTH = 50
MAX_OBJECTS = 1_000_000
_MAX_DIGITS = 100
_LONGEST_POINTER = 1_000
POINTER = b"version https://git-lfs.github.com/spec/"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_AGAIN = "fetch or write it again"


class HostError(OSError):
    """A failure of this machine, such as a full disk; the file being read is not at fault."""


def is_hosts(error: OSError) -> bool:
    """Whether an error is a failure of this machine, and not of the file."""
    return isinstance(error, HostError) or error.errno in HOSTS_ERRORS


@contextmanager
def hosts_folder(folder: PathLike) -> Iterator[None]:
    """Turn errors of work in one of our own folders into `HostError`.

    Errors of names stay: a name that somebody else chose may be too long or invalid.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST):
            raise
        raise HostError(error.errno, error.strerror, os.fspath(folder)) from error


def read_limited(path: PathLike, limit: int, what: str = "a file", fix: str = _AGAIN) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Args:
        path: the file; links are followed.
        limit: the most bytes; a longer file is refused before any of it is read.
        what: what the file should be, for messages: "a seed".
        fix: what the user can do about another file, for messages.

    Raises:
        ValueError: if it is too long, not a regular file, or the pointer of a file that git-LFS
            has not fetched.
        OSError: if there is no such file, or the machine cannot read it.
    """
    check_file(path, limit, what, fix)
    # If a pipe has replaced the file meanwhile, O_NONBLOCK keeps this from waiting for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        _refuse(path, f"is longer than the {limit:,} bytes that {what} may have: {fix}")
    return content


def check_file(path: PathLike, limit: int, what: str = "a file", fix: str = _AGAIN) -> None:
    """Raise the errors of `read_limited`, reading only the beginning of the file."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        _refuse(path, f"is not a regular file, as {what} is: {fix}")
    if status.st_size > limit:
        _refuse(
            path,
            f"has {status.st_size:,} bytes, more than the {limit:,} that {what} may have: {fix}",
        )
    refuse_pointer(path)


def refuse_pointer(path: PathLike) -> None:
    """Raise ValueError if the file at `path` is a pointer that git-LFS has not replaced yet.

    Such a pointer is some 130 bytes of text, which would otherwise look like a damaged file.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST_POINTER:
        return
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            _refuse(
                path,
                "is a pointer of git-LFS, not the file itself: run `git lfs pull` in its "
                "repository, or fetch the file from where it was published",
            )


def read_limited_text(
    path: PathLike, limit: int = SEED_LIMIT, what: str = "a small text file", fix: str = _AGAIN
) -> str:
    """Read the UTF-8 text of a file of at most `limit` bytes, without a byte order mark.

    Raises:
        ValueError, OSError: as `read_limited`; also if it is not text in UTF-8.
    """
    return _decoded(read_limited(path, limit, what, fix), path, fix)


def read_limited_json(
    path: PathLike, limit: int = JSON_LIMIT, what: str = "a JSON object", fix: str = _AGAIN
) -> Any:
    """Read the value of a JSON file of at most `limit` bytes; see `parse_json`.

    Raises:
        ValueError, OSError: as `read_limited_text`; also if it is not JSON.
    """
    text = read_limited_text(path, limit, what, fix)
    try:
        return parse_json(text)
    except ValueError as error:
        _refuse(path, f"is not {what} ({error}): {fix}")


def parse_json(text: str) -> Any:
    """Parse a JSON text within limits.

    Refused are repeated keys, nesting deeper than `MAX_DEPTH`, more than `MAX_OBJECTS` objects and
    lists (an empty one takes 30 times the memory of its two bytes), numbers of over 100 digits,
    and halves of surrogate pairs, which cannot be printed.  `NaN` and infinities are accepted,
    since Python writes them.

    Raises:
        ValueError: saying in a few words what is wrong, without quoting the text.
    """
    if text.count("{") + text.count("[") > MAX_OBJECTS:
        raise ValueError(f"over {MAX_OBJECTS:,} objects and lists")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_int=_integer)
        _check_depth(value)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"nested over {MAX_DEPTH} deep") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair in a text") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of over {_MAX_DIGITS} digits")
    return int(digits)


def _check_depth(value: Any) -> None:
    """Raise ValueError if lists and objects are nested deeper than `MAX_DEPTH`."""
    level = _outer([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return
        parts = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = _outer(chain.from_iterable(parts))
    if not level:
        return
    raise ValueError(f"nested over {MAX_DEPTH} deep")


def _outer(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (list, dict))]


def _decoded(content: bytes, path: PathLike, fix: str) -> str:
    if content.startswith(_WIDE):
        _refuse(path, "is text in UTF-16: save it in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse(path, f"is not text in UTF-8: {fix}")


def _refuse(path: PathLike, problem: str) -> NoReturn:
    raise ValueError(f"{printable(os.fspath(path))} {problem}.")
