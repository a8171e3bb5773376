"""Reads a TOML text, and finds the lines of its faults, tables and keys."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]

_HEADER = re.compile(r"\s*\[\[?(.+?)\]\]?\s*(?:#.*)?")
_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_MOST_DOTS = 200  # tomllib takes time quadratic in the parts of a name
_AT_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$")


class NotToml(ValueError):
    """A text that is not TOML; `line` is the line of the fault, which the message describes."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def parse_toml(text: str) -> dict[str, Any]:
    """The values in a TOML text, by tables.

    Raises:
        NotToml: if it is not TOML, or holds nested lists or numbers that Python cannot read.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MOST_DOTS:
            what = f"has over {_MOST_DOTS} dots, too many to be read: break the line up"
            raise NotToml(number, what)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        what = f"is not valid TOML: {_AT_LINE.sub('', str(error))}"
        raise NotToml(int(at[1]) if at else text.count("\n") + 1, what) from None
    except RecursionError:
        what = "holds lists or tables in each other, too deep to be read: take them apart"
        raise NotToml(_line_that_raises(RecursionError, text), what) from None
    except ValueError:  # Python does not convert longer numbers
        what = "holds a number of thousands of digits: write a shorter one"
        raise NotToml(_line_that_raises(ValueError, text), what) from None


def _line_that_raises(kind: type[Exception], text: str) -> int:
    """The first line such that the text up to it raises an error of a kind."""
    lines = text.split("\n")

    def raises(count: int) -> bool:
        try:
            tomllib.loads("\n".join(lines[:count]))
        except Exception as error:  # a text that ends too early raises a TOMLDecodeError
            return isinstance(error, kind) and not isinstance(error, tomllib.TOMLDecodeError)
        return False

    return bisect_left(range(len(lines)), True, key=lambda at: raises(at + 1)) + 1


class Lines:
    r"""The line of each table and key of a valid TOML text.

    >>> lines = Lines('[task.faces]\nrecords = 400')
    >>> lines.of("task", "faces", "records"), lines.of("task", "faces", "training")
    (2, 1)
    """

    def __init__(self, text: str) -> None:
        self._found: dict[Path, int] = {}
        table: Path = ()
        for number, line in enumerate(text.split("\n"), start=1):
            if header := _HEADER.fullmatch(line):
                named = _path(header[1])
                table = named or table
                self._note(named, number)
            elif key := _KEY.match(line):
                self._note((*table, *_path(key[1])), number)

    def _note(self, path: Path, number: int) -> None:
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], number)

    def of(self, *path: str) -> int:
        """The line where `path` begins; that of the table around it if it has none."""
        while path and path not in self._found:
            path = path[:-1]
        return self._found.get(path, 1)


def _path(key: str) -> Path:
    """The parts of a dotted key; none if the text is no key."""
    try:
        value: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):  # a line inside a text or a list that looks like a key
        return ()
    parts = []
    while isinstance(value, Mapping) and len(value) == 1:
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)
