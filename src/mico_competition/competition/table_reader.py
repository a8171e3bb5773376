"""Reads the tables of a competition's file by their columns, and collects all their faults.

A fault has a line and a sentence; `reader` joins them into one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mico_competition.competition.columns import INNER, KINDS
from mico_competition.competition.names import name_fault, twins
from mico_competition.competition.row_checks import Faults
from mico_competition.competition.toml_lines import Lines
from mico_competition.support.spelling import nearest

TWINS = "{0} {1!r} and {0} {2!r} would share a folder on some systems: rename one"
_SHOWN = 40  # shown characters of a name that cannot be used

Fault = tuple[int, str]


class TableReader:
    """Reads the tables of one file; `faults` are the faults of these."""

    def __init__(self, values: Mapping[str, Any], lines: Lines) -> None:
        self.values, self.lines = values, lines
        self.faults: list[Fault] = []

    def _fault(self, what: str, *path: str) -> None:
        self.faults.append((self.lines.of(*path), what))

    def _faults_of(self, found: Faults, *path: str) -> None:
        for column, what in found:
            self._fault(what, *path, *([column] if column else []))

    def _at(self, *where: str) -> Any:
        """The value at a path in the file; an empty table if there is none."""
        value: Any = self.values
        for part in where:
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
        return value

    def _table(self, *where: str) -> Mapping[str, Any]:
        """The table at a path; an empty one if the file has another value there."""
        table = self._at(*where)
        return table if isinstance(table, Mapping) else {}

    def _unknown(self, name: str, known: Iterable[str], what: str, *path: str) -> None:
        known = list(known)
        near = nearest(name, known)
        fix = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        self._fault(f"unknown {what}: {fix}", *path)

    def _rows(self, *where: str) -> dict[str, dict[str, Any]]:
        """The fields of each row without faults, by its name, of the kind at the end of a path."""
        table, kind, head = self._table(*where), where[-1], ".".join(where)
        if not isinstance(self._at(*where), Mapping):
            self._fault(f"expected tables [{head}.NAME], got {kind} = ...", *where)
        elif not table and kind in ("task", "scenario"):
            self._fault(f"no {kind} is described: add a table [{kind}.NAME]", kind)
        found = {}
        for name, row in table.items():
            before = len(self.faults)
            if not isinstance(row, Mapping):
                self._fault(f"expected a table [{head}.{name}]", *where, name)
                continue
            if kind != "phase":
                self._check_name(kind, name, self.lines.of(*where, name))
            fields = self._fields(row, *where, name)
            if len(self.faults) == before:
                found[name] = fields
        for one, other in twins(table):
            self._fault(TWINS.format(kind, one, other), *where, other)
        return found

    def _fields(self, row: Mapping[str, Any], *where: str) -> dict[str, Any]:
        """The fields of one row, of the kind before the last part of a path."""
        columns, inner = KINDS[where[-2]], INNER.get(where[-2], ())
        fields = {}
        for key, value in row.items():
            if key in inner:  # a table of its own
                continue
            if key not in columns:
                self._unknown(key, [*columns, *inner], f"column {key}", *where, key)
                continue
            try:
                fields[columns[key].field] = columns[key].read(value)
            except ValueError as error:
                self._fault(f"{key}: {error}", *where, key)
        missing = [key for key, column in columns.items() if column.required and key not in row]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            what = f"[{'.'.join(where)}] lacks the column{plural} {', '.join(missing)}"
            self._fault(what, *where)
        return fields

    def _check_name(self, kind: str, name: str, line: int) -> None:
        if reason := name_fault(kind, name):
            short = name if len(name) <= _SHOWN else f"{name[: _SHOWN - 3]}..."
            self.faults.append((line, f"{kind} {short!r} cannot be called that: {reason}"))
