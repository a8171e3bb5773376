"""Checks a file of results before anything is made of it: every field has its type and range."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from mico_competition.attacks.cost import NO_COST
from mico_competition.evaluation.measure import METRICS

_SLACK = 1e-9  # rounding of a rate
_ENDS = 100.0  # no end of an interval of a rate lies further from 0
_MOST = 10**15  # of a count
_MOST_SECONDS = 1e12
_MOST_RESAMPLES = 10**6
_MOST_SEED = 2**128
_LARGEST = sys.float_info.max

Numbers = tuple[float, float]


class Misfit(ValueError):
    """A field of the file is not what `save` writes; the message names it."""


def check_content(content: Mapping[str, Any]) -> None:
    """Raise Misfit unless the content of a file is what `save` writes.

    Args:
        content: of the JSON file, whose format and version are right.
    """
    for name in ("subject", "phase", "against"):
        _text(content, name, "")
    about = _table(content, "about", "")
    _text(about, "date", "about.")
    versions = _table(about, "versions", "about.")
    for name in versions:
        _text(versions, name, "about.versions.")
    if "resamples" in about:
        _count(about, "resamples", "about.", 1, _MOST)
    attacks = _field(content, "attacks", "")
    if not isinstance(attacks, list) or not attacks:
        raise Misfit(f"attacks to be a list of at least one attack, got {_shown(attacks)}")
    for place, entry in enumerate(attacks):
        if not isinstance(entry, dict):
            raise Misfit(f"attacks[{place}] to be a table, got {_shown(entry)}")
        _check_attack(entry, f"attacks[{place}].")


def _check_attack(entry: Mapping[str, Any], at: str) -> None:
    _text(entry, "name", at)
    if not entry["name"]:
        raise Misfit(f"{at}name to be a text that is not empty")
    _text(entry, "title", at)
    if not isinstance(_field(entry, "white_box", at), bool):
        raise Misfit(f"{at}white_box to be true or false, got {_shown(entry['white_box'])}")
    _number(entry, "seconds", at, (0, _MOST_SECONDS))
    cost = _table(entry, "cost", at)
    _keys(cost, list(vars(NO_COST)), f"{at}cost")
    for name, default in vars(NO_COST).items():
        if isinstance(default, int):
            _count(cost, name, f"{at}cost.", 0, _MOST)
        else:
            _number(cost, name, f"{at}cost.", (0, _MOST_SECONDS))
    _count(entry, "resamples", at, 1, _MOST_RESAMPLES)
    _count(entry, "seed", at, 0, _MOST_SEED)
    if "scores" in entry:  # everything else follows from them
        _check_points(entry, at)
        return
    for name in ("models", "members", "nonmembers"):
        _count(entry, name, at, 1, _MOST)
    _check_estimates(_table(entry, "metrics", at), f"{at}metrics", (0, 1))
    if _field(entry, "gain", at) is not None:
        _check_estimates(_table(entry, "gain", at), f"{at}gain", (-1, 1))
    _check_curve(_table(entry, "curve", at), f"{at}curve.")


def _check_estimates(numbers: Mapping[str, Any], at: str, within: Numbers) -> None:
    _keys(numbers, list(METRICS), at)
    for metric in METRICS:
        one = _table(numbers, metric, f"{at}.")
        for end in ("value", "low", "high"):
            if _field(one, end, f"{at}.{metric}.") is not None:
                allowed = within if end == "value" else (-_ENDS, _ENDS)
                _number(one, end, f"{at}.{metric}.", allowed)


def _check_curve(curve: Mapping[str, Any], at: str) -> None:
    """Rates of one length; `low` and `high` may be empty, if there are no intervals."""
    for name in ("fpr", "tpr", "low", "high"):
        values = _field(curve, name, at)
        if not isinstance(values, list) or not all(_within(v, (0, 1)) for v in values):
            raise Misfit(f"{at}{name} to be a list of numbers in [0, 1]")
        wanted = len(curve["fpr"])
        empty = not values and name in ("low", "high")
        if len(values) != wanted and not empty:
            raise Misfit(f"{at}{name} to be of the length of fpr, {wanted}, got {len(values)}")
    if len(curve["low"]) != len(curve["high"]):
        raise Misfit(f"{at}low and {at}high to be of one length")
    if any(one >= other for one, other in pairwise(curve["fpr"])):
        raise Misfit(f"{at}fpr to rise")
    if any(one > other for one, other in pairwise(curve["tpr"])):
        raise Misfit(f"{at}tpr never to fall")


def _check_points(entry: Mapping[str, Any], at: str) -> None:
    """Truth and scores [targets, points], and `known`, which may be null."""
    widths = [len(row) for row in _rows(entry, "scores", at)]
    if len(set(widths)) != 1 or not widths[0]:
        raise Misfit(f"{at}scores to have the same number of points for every model")
    names = ["truth"] if _field(entry, "known", at) is None else ["truth", "known"]
    for name in names:
        rows = _rows(entry, name, at)
        if [len(row) for row in rows] != widths:
            raise Misfit(f"{at}{name} to be of the shape of {at}scores")
        if not all(value in (0, 1) for row in rows for value in row):
            raise Misfit(f"{at}{name} to hold 0 and 1 alone")
    if "known" in names and not any(map(any, entry["known"])):
        raise Misfit(f"{at}known to hold a 1, since no membership is known otherwise")


def _rows(table: Mapping[str, Any], name: str, at: str) -> list[list[Any]]:
    rows = _field(table, name, at)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise Misfit(f"{at}{name} to be a list with a list of points for every model")
    if not all(_within(value, (-_LARGEST, _LARGEST)) for row in rows for value in row):
        raise Misfit(f"{at}{name} to hold finite numbers alone")
    return rows


def _field(table: Mapping[str, Any], name: str, at: str) -> Any:
    if name not in table:
        raise Misfit(f"a field {at}{name}, which is missing")
    return table[name]


def _table(table: Mapping[str, Any], name: str, at: str) -> Mapping[str, Any]:
    found = _field(table, name, at)
    if not isinstance(found, dict):
        raise Misfit(f"{at}{name} to be a table, got {_shown(found)}")
    return found


def _keys(table: Mapping[str, Any], names: list[str], at: str) -> None:
    if sorted(table) != sorted(names):
        raise Misfit(f"{at} to have the fields {', '.join(names)}, got {_shown(list(table))}")


def _text(table: Mapping[str, Any], name: str, at: str) -> None:
    if not isinstance(_field(table, name, at), str):
        raise Misfit(f"{at}{name} to be a text, got {_shown(table[name])}")


def _count(table: Mapping[str, Any], name: str, at: str, least: int, most: int) -> None:
    value = _field(table, name, at)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Misfit(f"{at}{name} to be a whole number in {least}..{most}, got {_shown(value)}")


def _number(table: Mapping[str, Any], name: str, at: str, within: Numbers) -> None:
    value = _field(table, name, at)
    if not _within(value, within):
        raise Misfit(
            f"{at}{name} to be a number in [{within[0]:g}, {within[1]:g}], got {_shown(value)}"
        )


def _within(value: Any, within: Numbers) -> bool:
    """Whether this is a number of the range; NaN is in none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and within[0] - _SLACK <= value <= within[1] + _SLACK


def _shown(value: Any) -> str:
    """A value, shortened: a file may hold anything."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
