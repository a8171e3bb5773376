"""Checks the form of a leaderboard entry, and lists all its faults.

This is code and not a JSON Schema, because half of the rules relate fields to each other (the
scenarios are those of the challenge, the average is that of the scores, a curve is monotone), which
a schema cannot express.  It also gives better messages, checks 1,000 entries in a second, and needs
no other package.  Entries come from pull requests, so the values are untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from mico_competition.competition.table import CHALLENGES, SCORED_PHASES, get_phase
from mico_competition.hosting.leaderboard.names import is_line, is_name
from mico_competition.scoring.metrics import SCALARS
from mico_competition.scoring.printable import shown

FORMAT = 1
RANKED = "TPR_FPR_1000"
MAX_POINTS = 60
_FIRST = datetime(2020, 1, 1, tzinfo=UTC)
_LAST = datetime(2099, 12, 31, tzinfo=UTC)
_DAYS_AHEAD = 366  # so that a board can be rehearsed with the dates of a coming competition
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_COMMIT = re.compile(r"|[0-9a-f]{7,64}")
_HOST = re.compile(r"[^\s\"'<>\\^`{|}]+")

Values = Mapping[str, Any]
Rule = tuple[Callable[[Any], bool], str]


def parse_time(text: str) -> datetime:
    """Parse a date and time with an offset, and convert it to UTC; ValueError if invalid."""
    try:
        when = datetime.fromisoformat(text.strip())
        if when.tzinfo is not None:
            return when.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):  # the first of January of the year 1, east of Greenwich
        pass
    raise ValueError(f"Expected a time such as 2027-01-13T12:00:00Z, got {shown(text)}.")


def check_submitted(when: datetime) -> datetime:
    """Return `when`; ValueError if it is not a plausible time of submission.

    The latest submission of a name counts, so one of the year 9999 would count for ever.
    """
    latest = datetime.now(UTC) + timedelta(days=_DAYS_AHEAD)
    if not _FIRST <= when <= latest:
        raise ValueError(
            f"Expected a time of submission from {_FIRST:%Y-%m-%d} to {latest:%Y-%m-%d}, got "
            f"{when.isoformat()}."
        )
    return when


def time_text(when: datetime) -> str:
    """A time as text in the form of entries."""
    return when.astimezone(UTC).strftime(_TIME)


def is_link(text: str) -> bool:
    """Whether `text` is an http or https address; pages must not contain other schemes."""
    if not _HOST.fullmatch(text) or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def is_link_or_none(value: Any) -> bool:
    """Whether a value is an address that pages may contain, of at most 300 characters, or ""."""
    return is_line(value, 300) and (value == "" or is_link(value))


def is_time(value: Any) -> bool:
    """Whether a value is a time in UTC in the form of entries, from 2020 to 2099."""
    try:
        when = datetime.strptime(value, _TIME).replace(tzinfo=UTC)
        return _FIRST <= when <= _LAST and time_text(when) == value
    except (TypeError, ValueError):
        return False


def _line(longest: int, shortest: int = 0) -> Callable[[Any], bool]:
    return lambda value: is_line(value, longest, shortest)


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and pattern.fullmatch(value) is not None


def is_sha256(value: Any) -> bool:
    """Whether a value is a SHA-256 in hex, in lower case."""
    return type(value) is str and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _none_or(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def is_names(value: Any) -> bool:
    """Whether a value is a list of at most 20 names."""
    return type(value) is list and len(value) <= 20 and all(map(is_name, value))


def _is_versions(value: Any) -> bool:
    names = {"python", "numpy", "mico_competition"}
    return type(value) is dict and set(value) == names and all(map(_line(40, 1), value.values()))


def _is_rate(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_interval(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and _climbs(value)


def _climbs(value: Any) -> bool:
    rates = type(value) is list and all(map(_is_rate, value))
    return rates and value == sorted(value)


_FIELDS: Mapping[str, Rule] = {
    "format": (lambda v: type(v) is int and v == FORMAT, str(FORMAT)),
    "challenge": (lambda v: type(v) is str and v in CHALLENGES, f"one of {', '.join(CHALLENGES)}"),
    "phase": (lambda v: v in SCORED_PHASES, f"one of {', '.join(SCORED_PHASES)}"),
    "name": (is_name, "a line of 1 to 80 printable characters, in Unicode's form NFKC"),
    "authors": (is_names, "a list of at most 20 names of at most 80 printable characters, NFKC"),
    "link": (
        is_link_or_none,
        "an address that starts with https:// or http://, of at most 300 characters, or nothing",
    ),
    "description": (_line(1000), "a line of at most 1000 printable characters"),
    "command": (_line(1000), "a line of at most 1000 printable characters"),
    "commit": (_matches(_COMMIT), "7 to 64 hexadecimal digits, or nothing"),
    "versions": (_is_versions, "the versions of python, numpy and mico_competition"),
    "submitted": (is_time, "a time in UTC such as 2027-01-13T12:00:00Z, from 2020 to 2099"),
    "data_version": (_none_or(_line(100, 1)), "a line of at most 100 characters, or null"),
    "predictions_sha256": (is_sha256, "64 hexadecimal digits"),
    "submission_sha256": (_none_or(is_sha256), "64 hexadecimal digits, or null"),
    "average": (lambda v: type(v) is dict, "an object with score and interval"),
    "scenarios": (lambda v: type(v) is dict, "an object with the challenge's scenarios"),
}
_AVERAGE: Mapping[str, Rule] = {
    "score": (_is_rate, "a number from 0 to 1"),
    "interval": (_none_or(_is_interval), "two numbers from 0 to 1, the lower first, or null"),
}
_SCENARIO: Mapping[str, Rule] = {
    "models": (lambda v: type(v) is int and v > 0, "a whole number above 0"),
    "scores": (lambda v: type(v) is dict, "an object with the metrics"),
    "intervals": (lambda v: type(v) is dict, "an object with the metrics"),
    "roc": (lambda v: type(v) is dict, "an object with fpr and tpr"),
}
_SCORES: Mapping[str, Rule] = dict.fromkeys(SCALARS, _AVERAGE["score"])
_INTERVALS: Mapping[str, Rule] = dict.fromkeys(SCALARS, _AVERAGE["interval"])
_RATES: Rule = (
    lambda v: _climbs(v) and 2 <= len(v) <= MAX_POINTS,
    f"2 to {MAX_POINTS} rates that never fall",
)
_CURVE: Mapping[str, Rule] = {"fpr": _RATES, "tpr": _RATES}


def check_values(values: Any) -> list[str]:
    """All faults of the values of an entry, each in a line that names the field."""
    if type(values) is not dict:
        return ["expected an object"]
    return list(_faults_of(values))


def check_fields(values: Values) -> list[str]:
    """All faults of single fields of an entry, which need not be complete."""
    return list(faults_by("", values, {name: _FIELDS[name] for name in values}))


def _faults_of(values: dict[str, Any]) -> Iterator[str]:
    yield from faults_by("", values, _FIELDS)
    yield from faults_by("average.", values.get("average"), _AVERAGE)
    results = values.get("scenarios")
    names = CHALLENGES.get(str(values.get("challenge")), ())
    if type(results) is not dict or not names:
        return
    if set(results) != set(names):
        yield f"scenarios: expected {', '.join(names)}, got {shown(', '.join(results))}"
    for name in sorted(set(names) & set(results)):
        place, result = f"scenarios.{name}.", results[name]
        yield from faults_by(place, result if type(result) is dict else {}, _SCENARIO)
        if type(result) is dict:
            yield from faults_by(f"{place}scores.", result.get("scores"), _SCORES)
            yield from faults_by(f"{place}intervals.", result.get("intervals"), _INTERVALS)
            yield from faults_by(f"{place}roc.", result.get("roc"), _CURVE)
    yield from _joint_faults(values, names)


def faults_by(place: str, values: Any, rules: Mapping[str, Rule]) -> Iterator[str]:
    """Faults of single fields; if `values` is not an object, the caller has reported it."""
    if type(values) is not dict:
        return
    for name in sorted(set(values) - set(rules)):
        yield f"{place}{shown(name)[1:-1]}: there is no such field"
    for name, (fits, expected) in rules.items():
        if name not in values:
            yield f"{place}{name}: is missing; expected {expected}"
        elif not fits(values[name]):
            yield f"{place}{name}: expected {expected}, got {shown(str(values[name]))}"


def _joint_faults(values: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Faults of fields that contradict each other, if each is valid by itself."""
    try:
        curves = {name: values["scenarios"][name]["roc"] for name in names}
        lengths = {name: (len(c["fpr"]), len(c["tpr"])) for name, c in curves.items()}
        scores = [values["scenarios"][name]["scores"][RANKED] for name in names]
        away = abs(sum(scores) / len(scores) - values["average"]["score"])
        # Both are rounded: to four decimals, or to the step of the phase.
        allowed = 1.01e-4 + get_phase(values["challenge"], values["phase"]).step / 2
    except (KeyError, TypeError, ValueError):
        return
    for name, (fpr, tpr) in lengths.items():
        if fpr != tpr:
            yield f"scenarios.{name}.roc: expected as many fpr as tpr, got {fpr} and {tpr}"
    if away > allowed:
        yield f"average.score: expected the mean of the scenarios' {RANKED}"
