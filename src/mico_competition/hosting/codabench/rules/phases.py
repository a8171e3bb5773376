"""Rules for dates and phases in Codabench's form; version15.py uses those that both forms share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import pairwise
from typing import Any

from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    error,
    keys,
    listed,
    log,
    plain,
    says,
    shown,
    silent,
    text_rule,
    unknown_keys,
    warning,
    whole,
)
from mico_competition.hosting.codabench.rules.files import data_rule, public_rule

PHASE = keys(
    "index name description start end tasks max_submissions_per_day max_submissions "
    "execution_time_limit auto_migrate_to_this_phase hide_output hide_prediction_output "
    "hide_score_output public_data starting_kit"
)
LIMIT_OF_QUEUE = 600
_DATE = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[T ](\d\d?):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?\s*(Z|[+-]\d\d:?\d\d)?"
)
_MEND_DATE = 'Write it in quotes, in UTC: "2027-01-13 12:00:00".'


@dataclass(frozen=True)
class Span:
    """The times of a phase as the platform understands them; None if it cannot read them."""

    where: str
    name: str
    start: datetime | None
    end: datetime | None


def read_date(where: str, value: Any) -> tuple[datetime | None, list[Fault]]:
    """A date as the platform reads it, and faults if it reads another date."""
    if value is None or value == "":
        return None, []
    if isinstance(value, datetime):
        midnight = datetime.combine(value.date(), time())
        if value.replace(tzinfo=None) == midnight and value.tzinfo is None:
            return midnight, []
        what = silent(f"takes a date and time without quotes for midnight: {midnight} (#1399)")
        return midnight, [warning(where, what, _MEND_DATE)]
    if isinstance(value, date):
        return datetime.combine(value, time()), []
    match = _DATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        what = f"{shown(value)} is guessed at, day and month the wrong way round, or refused."
        return None, [error(where, what, _MEND_DATE)]
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
        read = datetime(year, month, day, hour, minute, second)
    except ValueError as fault:
        return None, [error(where, log(str(fault)) + ".", _MEND_DATE)]
    offset = match[7]
    if offset and offset != "Z" and int(offset[1:].replace(":", "")):
        what = silent(f"drops the offset {offset} and takes the time for UTC: {read}")
        return read, [warning(where, what, _MEND_DATE)]
    return read, []


def phases_rule(spec: Mapping[str, Any], archive: Archive, tasks: set[Any]) -> Iterator[Fault]:
    """Faults of all phases; `tasks` are the existing indexes of tasks."""
    absent = says("Unable to find any phases for this competition") + "."
    empty = says("phases: Competitions must have at least one phase") + "."
    phases, faults = listed(spec, "phases", absent, empty, "List at least one phase.")
    yield from faults
    if not phases:
        return
    try:
        phases = sorted(phases, key=lambda entry: entry[1].get("index", 0))
    except TypeError as fault:
        yield error("phases", log(str(fault)) + ".", "Number phases from 0 on.")
    spans = []
    for where, phase in phases:
        span, found = _phase(where, phase, archive, tasks)
        spans.append(span)
        yield from found
    yield from order_rule(spans)
    yield from _migration_rule(phases)


def _phase(
    where: str, phase: Mapping[str, Any], archive: Archive, tasks: set[Any]
) -> tuple[Span, list[Fault]]:
    """Faults of a single phase."""
    faults = []
    if "max_submissions_per_person" in phase:
        what = silent("allows the default of 100: in a bundle the key has another name")
        place = f"{where}.max_submissions_per_person"
        faults.append(warning(place, what, "Call it `max_submissions`."))
    faults += unknown_keys(where, phase, PHASE | {"max_submissions_per_person"})
    faults += text_rule(where, phase, "name", 256)
    faults += _tasks_rule(where, phase, tasks)
    faults += limits_rule(where, phase)
    for key in ("public_data", "starting_kit"):
        if key in phase:
            faults += data_rule(f"{where}.{key}", archive, phase[key])
            faults += public_rule(f"{where}.{key}", archive, phase[key])
    start, found = read_date(f"{where}.start", phase.get("start"))
    faults += found
    if start is None and not found:
        what = "Without a `start` unpacking the bundle fails with a bare Python error."
        faults.append(error(where, what, _MEND_DATE))
    end, found = read_date(f"{where}.end", phase.get("end"))
    return Span(where, plain(phase.get("name")), start, end), faults + found


def _tasks_rule(where: str, phase: Mapping[str, Any], tasks: set[Any]) -> Iterator[Fault]:
    fix = "List the index of one task: tasks: [0]."
    if "tasks" not in phase:
        yield error(where, says("Phases must contain at least one task to be valid") + ".", fix)
        return
    numbers = phase["tasks"]
    if not isinstance(numbers, list):
        kind = type(numbers).__name__
        yield error(f"{where}.tasks", log(f"'{kind}' object is not iterable") + ".", fix)
        return
    if not numbers:
        yield error(f"{where}.tasks", silent("nothing is ever scored in this phase"), fix)
    for number in numbers:
        if isinstance(number, (dict, list)) or number not in tasks:
            what = f"{log(shown(number))}: there is no task of that index."
            yield error(f"{where}.tasks", what, fix)
    if len(numbers) > 1 and phase.get("auto_migrate_to_this_phase"):
        what = silent("migrates nothing to a phase with several tasks (#2247)")
        yield warning(f"{where}.tasks", what, fix)


def limits_rule(where: str, phase: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the limits on submissions and time."""
    for key in ("max_submissions", "max_submissions_per_day"):
        if key not in phase:
            continue
        number = whole(phase[key])
        if number is None or number < 0:
            words = f"{key}: A valid integer is required."
            yield error(f"{where}.{key}", says(words), "Write a whole number above 0.")
        elif number == 0:
            what = silent("takes 0 for no limit, not for none")
            yield warning(f"{where}.{key}", what, "Write the number that you mean.")
    if phase.get("execution_time_limit") is None:
        return
    seconds = whole(phase["execution_time_limit"])
    place = f"{where}.execution_time_limit"
    if seconds is None or seconds < 0:
        words = "execution_time_limit: A valid integer is required."
        yield error(place, says(words), "Write seconds, as a whole number.")
    elif seconds > LIMIT_OF_QUEUE:
        what = silent(f"its own queue stops after {LIMIT_OF_QUEUE} seconds all the same")
        yield warning(place, what, f"Write {LIMIT_OF_QUEUE} at most, or bring a queue.")


def order_rule(spans: Sequence[Span]) -> Iterator[Fault]:
    """Faults of the order of phases, which need gaps between them."""
    for one, two in pairwise(spans):
        fix = "End each phase a minute before the next one starts."
        if one.end is None:
            words = f"Phase: {one.name} must have an end time because it has a phase after it."
            yield error(f"{one.where}.end", says(words), fix)
        elif two.start is not None and two.start < one.end:
            words = (
                f"Phases must be sequential. Phase: {two.name}starts before Phase: {one.name} "
                "has ended"
            )
            yield error(f"{two.where}.start", says(words) + ".", fix)
        elif two.start == one.end:
            words = (
                f"Phases dates conflict. Phase: {two.name} should start after Phase: {one.name} "
                "has ended"
            )
            yield error(f"{two.where}.start", says(words) + ".", fix)
    for span in spans:
        if span.start is not None and span.end is not None and span.end <= span.start:
            what = silent("the phase, which ends before it starts, is never open")
            yield warning(f"{span.where}.end", what, "Exchange start and end, or correct them.")


def _migration_rule(phases: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Fault]:
    where, first = phases[0]
    if first.get("auto_migrate_to_this_phase"):
        words = (
            "phases: You cannot auto migrate in a competition with one phase"
            if len(phases) == 1
            else "phases: You cannot auto migrate to the first phase of a competition"
        )
        place = f"{where}.auto_migrate_to_this_phase"
        yield error(place, says(words) + ".", "Leave it to the phases after the first.")
