"""Rules for the leaderboard in CodaLab's form, on legacy CodaLab and on Codabench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mico_competition.hosting.codabench.rules.board import TITLE_LIMIT
from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    choice_rule,
    error,
    log,
    plain,
    says,
    shown,
    silent,
    text_rule,
    warning,
    whole,
)

_LEGACY_LIMIT = 50


def board15_rule(spec: Mapping[str, Any], *, legacy: bool) -> Iterator[Fault]:
    """`leaderboard` with its `leaderboards` and `columns`."""
    board = spec.get("leaderboard")
    if not isinstance(board, dict):
        words = "Could not find leaderboard in the competition yaml"
        yield error("leaderboard", says(words) + ".", "Write one, with leaderboards and columns.")
        return
    boards, columns = board.get("leaderboards"), board.get("columns")
    if not isinstance(boards, dict) or not boards:
        words = "Could not find leaderboards declared on the competition leaderboard"
        yield error("leaderboard.leaderboards", says(words) + ".", "Map a name to one.")
        boards = {}
    if not isinstance(columns, dict) or not columns:
        words = "Could not find columns declared on the competition leaderboard"
        yield error("leaderboard.columns", says(words) + ".", "Map each score's key to a column.")
        columns = {}
    labels = set()
    for i, (key, one) in enumerate(boards.items()):
        place = f"leaderboard.leaderboards.{key}"
        one = one if isinstance(one, dict) else {}
        for needed in ("label", "rank") if legacy else ("label",):
            if needed not in one:
                yield error(place, log(f"'{needed}'") + ".", f"Give it a `{needed}`.")
        labels.add(plain(one.get("label")))
        if i and not legacy:
            what = silent("shows the first leaderboard alone: the columns of this one are lost")
            yield warning(place, what, "Put all columns into the first.")
    groups = board.get("column_groups")
    known = _group_labels(groups)
    if legacy:
        yield from _groups_rule(groups)
    elif groups:
        what = silent("shows columns without their groups")
        yield warning("leaderboard.column_groups", what, "Name the group in each column's label.")
    for key, column in columns.items():
        yield from _column_rule(str(key), column, labels, known, legacy)


def _group_labels(groups: Any) -> set[str]:
    values = groups.values() if isinstance(groups, dict) else ()
    return {plain(group.get("label")) for group in values if isinstance(group, dict)}


def _groups_rule(groups: Any) -> Iterator[Fault]:
    for key, group in groups.items() if isinstance(groups, dict) else ():
        if isinstance(group, dict):
            yield from text_rule(f"leaderboard.column_groups.{key}", group, "label", _LEGACY_LIMIT)


def _column_rule(
    key: str, column: Any, boards: set[str], groups: set[str], legacy: bool
) -> Iterator[Fault]:
    where = f"leaderboard.columns.{key}"
    if not isinstance(column, dict):
        yield error(where, f"{shown(column)} is not a mapping.", "Write its keys below it.")
        return
    mend = "Refer to a leaderboard by its anchor: leaderboard: *RESULTS."
    board = column.get("leaderboard")
    if not isinstance(board, dict) or "label" not in board:
        yield error(f"{where}.leaderboard", log("'leaderboard'") + ".", mend)
    elif plain(board["label"]) not in boards:
        what = silent("the column is lost: no leaderboard has that label")
        yield error(f"{where}.leaderboard", what, mend)
    yield from _length_rule(where, key, column, legacy)
    if column.get("sort") or "sort" not in column:
        yield from choice_rule(where, column, "sort", ("desc", "asc"))
    if "numeric_format" in column and whole(column["numeric_format"]) is None:
        words = "columns: precision: A valid integer is required."
        found = warning if legacy else error
        what = f"Codabench takes whole numbers alone. {says(words)}"
        yield found(f"{where}.numeric_format", what, "Write a number of digits, such as 4.")
    if not legacy and "computed" in column:
        what = silent("computes nothing: the column stays empty")
        yield warning(f"{where}.computed", what, "Have the scoring program write the number.")
    group = column.get("column_group")
    if legacy and group is not None:
        label = group.get("label") if isinstance(group, dict) else None
        if label is None or plain(label) not in groups:
            what = "Legacy CodaLab crashes on a column group that is not declared."
            place = f"{where}.column_group"
            yield error(place, what, "Refer to one of column_groups by its anchor.")


def _length_rule(where: str, key: str, column: Mapping[str, Any], legacy: bool) -> Iterator[Fault]:
    """Labels and keys: 50 characters on legacy CodaLab, 36 on Codabench."""
    for name, text in (("title", plain(column.get("label", key))), ("key", key)):
        place = f"{where}.label" if name == "title" else where
        words = f"columns: {name}: Ensure this field has no more than {TITLE_LIMIT} characters."
        if legacy and len(text) > _LEGACY_LIMIT:
            what = f"It has {len(text)} characters; legacy CodaLab keeps {_LEGACY_LIMIT}."
            yield error(place, what, "Shorten it.")
        elif len(text) > TITLE_LIMIT:
            what = f"On Codabench it is refused. {says(words)}"
            yield (warning if legacy else error)(place, what, "Shorten it.")
