"""Rules for the leaderboard in Codabench's form."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    choice_rule,
    error,
    keys,
    listed,
    log,
    mappings,
    says,
    shown,
    silent,
    text_rule,
    unknown_keys,
    warning,
    whole,
)

BOARD = frozenset({"title", "key", "columns", "submission_rule", "hidden", "primary_index"})
COLUMN = keys("title key index sorting precision hidden computation computation_indexes")
SUBMISSION_RULES = (
    *("Add", "Add_And_Delete", "Add_And_Delete_Multiple"),
    *("Force_Last", "Force_Latest_Multiple", "Force_Best"),
)
COMPUTATIONS = ("sum", "avg", "min", "max")
TITLE_LIMIT = 36


def boards_rule(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """The list of leaderboards, of which the first is that of all phases."""
    absent = says("Could not find leaderboards in the competition yaml") + "."
    empty = log("list index out of range") + "."
    boards, faults = listed(spec, "leaderboards", absent, empty, "List one leaderboard.")
    yield from faults
    if not boards:
        return
    for where, _ in boards[1:]:
        what = silent("shows the first leaderboard alone: the columns of this one are lost")
        yield warning(where, what, "Put all columns into the first.")
    where, board = boards[0]
    yield from unknown_keys(where, board, BOARD)
    yield from text_rule(where, board, "title", 64)
    yield from text_rule(where, board, "key", 36)
    yield from _submission_rule(where, board, spec.get("phases"))
    yield from _columns_rule(where, board)


def _submission_rule(where: str, board: Mapping[str, Any], phases: Any) -> Iterator[Fault]:
    """By default participants put submissions on the board themselves, and few do."""
    yield from choice_rule(where, board, "submission_rule", SUBMISSION_RULES)
    manual = ("Add", "Add_And_Delete", "Add_And_Delete_Multiple")
    if board.get("submission_rule", "Add") not in manual:
        return
    migrates = isinstance(phases, list) and any(
        isinstance(phase, dict) and phase.get("auto_migrate_to_this_phase") for phase in phases
    )
    if "submission_rule" not in board or migrates:
        also = ", and submissions that are not on it do not migrate" if migrates else ""
        what = silent(f"puts no submission on the leaderboard automatically{also}")
        yield warning(f"{where}.submission_rule", what, "Write Force_Last or Force_Best.")


def _columns_rule(where: str, board: Mapping[str, Any]) -> Iterator[Fault]:
    if not board.get("columns"):
        words = "columns: Leaderboards require at least 1 column"
        yield error(f"{where}.columns", says(words) + ".", "List one column a score.")
        return
    columns, faults = mappings(f"{where}.columns", board["columns"])
    yield from faults
    for place, column in columns:
        yield from _column_rule(place, column)
    indexes = [whole(column.get("index")) for _, column in columns]
    known = {index for index in indexes if index is not None}
    if len(known) < sum(index is not None for index in indexes):
        words = "Columns must have unique indexes!"
        yield error(f"{where}.columns", says(words), "Number columns from 0 on.")
    names = [shown(column.get("key")) for _, column in columns if "key" in column]
    if len(set(names)) < len(names):
        words = "Columns must have unique keys!"
        yield error(f"{where}.columns", says(words), "Give each score one column.")
    primary = whole(board.get("primary_index", 0))
    if primary not in known:
        what = silent("the page of the leaderboard is an error 500: there is no column to rank by")
        place = f"{where}.primary_index"
        yield error(place, what, f"Give a column the index {shown(board.get('primary_index', 0))}.")

    for place, column in columns:
        yield from _computation_rule(place, column, known)


def _column_rule(where: str, column: Mapping[str, Any]) -> Iterator[Fault]:
    """The faults of one column."""
    yield from unknown_keys(where, column, COLUMN)
    for key in ("title", "key"):
        for fault in text_rule(where, column, key, TITLE_LIMIT):
            yield error(fault.where, fault.what.replace('"', '"columns: ', 1), fault.fix)
    if whole(column.get("index")) is None:
        reason = (
            "This field is required." if "index" not in column else "A valid integer is required."
        )
        yield error(
            f"{where}.index", says(f"columns: index: {reason}"), "Number columns from 0 on."
        )
    yield from choice_rule(where, column, "sorting", ("desc", "asc"))
    if "precision" in column and whole(column["precision"]) is None:
        words = "columns: precision: A valid integer is required."
        yield error(f"{where}.precision", says(words), "Write a number of digits, such as 4.")


def _computation_rule(
    where: str, column: Mapping[str, Any], indexes: Collection[int]
) -> Iterator[Fault]:
    """A column that is computed from others."""
    yield from choice_rule(where, column, "computation", COMPUTATIONS)
    place, fix = f"{where}.computation_indexes", "List the indexes of other columns: [1, 2]."
    others = column.get("computation_indexes")
    if column.get("computation") and others is None:
        words = "Column with computation must have at least 1 column selected"
        yield error(place, says(words) + ".", fix)
    elif others is None:
        return
    elif not isinstance(others, list):
        yield error(place, f"{shown(others)} is not a list, and unpacking fails.", fix)
    elif not column.get("computation"):
        words = "Cannot add computation columns without a computation function set"
        yield error(place, says(words) + ".", f"Add a `computation`: {', '.join(COMPUTATIONS)}.")
    else:
        for other in others:
            number = whole(other)
            if number is not None and number == whole(column.get("index")):
                words = f"Column with index {number} referencing itself."
                yield error(place, says(words), fix)
            elif number not in indexes:
                words = f"Column index {shown(other)} does not exist in available indexes"
                yield error(place, says(words) + ".", fix)
