"""A rule that compares the board with the solutions, whose scenarios are numbered in its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mico_competition.competition.table import SOLUTION_FILE
from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.fault import Fault, silent, warning
from mico_competition.hosting.codabench.rules.files import open_inner

_KEY = re.compile(r"scenario([1-9][0-9]?)_")
_SOLUTION = re.compile(rf"[^/]+/([^/]+)/[^/]+/model_\d+/{re.escape(SOLUTION_FILE)}")


def scenarios_rule(spec: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    """Faults of scenarios without a column, and of columns without a scenario."""
    shown = {int(match[1]) for key in _column_keys(spec) if (match := _KEY.match(key))}
    for name in dict.fromkeys(_references(spec)) if shown else ():
        inner = open_inner(archive, name)
        found = {m[1] for n in inner.names if (m := _SOLUTION.fullmatch(n))} if inner else ()
        scored = set(range(1, len(found) + 1))
        for number in sorted(scored - shown) if scored else ():
            what = silent(f"shows no score of scenario{number}, of {len(found)} in {name}")
            yield warning("leaderboard", what, "Give each scenario its columns.")
        for number in sorted(shown - scored) if scored else ():
            what = silent(f"shows n/a for scenario{number}, as {name} has {len(found)}")
            yield warning("leaderboard", what, "Take the columns out, or add the truth.")


def _mappings(value: Any) -> list[Mapping[Any, Any]]:
    """The mappings in a list, or among the values of a mapping; others are skipped."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in parts if isinstance(part, dict)]


def _references(spec: Mapping[str, Any]) -> list[str]:
    """The names of the reference data of all phases, in either form."""
    parts = [*_mappings(spec.get("tasks")), *_mappings(spec.get("phases"))]
    return [part["reference_data"] for part in parts if isinstance(part.get("reference_data"), str)]


def _column_keys(spec: Mapping[str, Any]) -> list[str]:
    """The keys of the columns of the first board, in either form."""
    board = spec.get("leaderboard")
    if isinstance(board, dict) and isinstance(board.get("columns"), dict):
        return [str(key) for key in board["columns"]]
    first = _mappings(spec.get("leaderboards"))[:1]
    columns = _mappings(first[0].get("columns")) if first else []
    return [column["key"] for column in columns if isinstance(column.get("key"), str)]
