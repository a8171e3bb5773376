"""On which line of a TOML file each table and key stands; `tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]

_HEADER = re.compile(r"\s*\[\[?(.+?)\]\]?\s*(?:#.*)?")
_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")


class Lines:
    r"""The line of each table and key of a TOML text, which must be a valid one.

    >>> lines = Lines('[task.faces]\nrecords = 400')
    >>> lines.of("task", "faces", "records"), lines.of("task", "faces", "training")
    (2, 1)
    """

    def __init__(self, text: str) -> None:
        self._found: dict[Path, int] = {}
        table: Path = ()
        for number, line in enumerate(text.splitlines(), start=1):
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
    except tomllib.TOMLDecodeError:
        return ()
    parts = []
    while isinstance(value, Mapping) and len(value) == 1:
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)
