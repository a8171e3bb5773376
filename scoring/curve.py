"""The ROC curve for a public page: few points, rounded, so that it does not reveal the labels.

The exact curve reveals all labels.  It goes up at a member and right at a non-member, in the order
of the predictions, and whoever made the predictions knows that order: with 5,000 members and 5,000
non-members it reveals 10,000 labels, 9,993 bits (log2 of "10,000 choose 5,000").  Result pages are
public, so a page contains only this part of it:

- The true positive rate at no more than 36 false positive rates from a fixed list, with
  `RECORDS` non-members or more between any two of them.
- Each is rounded to a multiple of 0.001 or of `RECORDS` members, whichever is larger, and the ends
  of its interval to a multiple of 0.005 or of twice as many members.
- The rates that `metrics.score` reports are exact, because they are on the leaderboard anyway.

A rising curve of L levels at G points is one of "L + G choose G": for 5,000 and 5,000 records that
is 150 bits, 1.5 % of the labels', and never above 8 % however few records there are.
The ends of the intervals add at most 232 bits, and those in the table of scores 160, which makes
5.5 % in total, and far less in fact, since these numbers nearly follow from each other.  If the
predictions were not chosen for the purpose, no single record is revealed: each piece of the curve
mixes at least `RECORDS` non-members with members whose number is known only to that precision.

Predictions that are chosen for the purpose reveal single records by the exact scores alone: with
one record at 1 and the others at 0, the AUC gives its label away, and a well-designed submission
reveals some twenty.  This module cannot prevent that.  Scores in steps (`coarse.py`; a curve then
has only the scored rates) help, and above all a limit on submissions: docs/HOST.md (Dinur &
Nissim, "Revealing Information while Preserving Privacy", PODS 2003).

The mathematics is in docs/METHODS.md, section 7.7 (formula 65).
"""

import math
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from .metrics import FPR_THRESHOLDS, FPR_UNIT

RECORDS = 10
"""How many records of a kind lie between two points of the curve, at least."""

TPR_UNIT = 0.001
BAND_UNIT = 0.005

SCORED = tuple(k / FPR_UNIT for k in FPR_THRESHOLDS)
"""The rates whose true positive rates are scores, and public whatever is done here."""

_LOW = (0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.04)
_MIDDLE = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15)
_HIGH = tuple(k / 20 for k in range(4, 20))
RATES = _LOW + _MIDDLE + _HIGH
"""All rates at which a curve may be shown: dense where attacks differ, even to the end."""


class Curve:
    """Points of a curve, rising in both rates, without the ends (0, 0) and (1, 1).

    `fpr` and `tpr` are lists of one length; `low` and `high`, the ends of the intervals of `tpr`,
    are too, or empty if there are no intervals.
    """

    def __init__(
        self, fpr: List[float], tpr: List[float], low: List[float], high: List[float]
    ) -> None:
        self.fpr, self.tpr, self.low, self.high = fpr, tpr, low, high


def grid(nonmembers: int) -> List[float]:
    """The rates at which a curve with so many non-members is shown, in order.

    >>> len(grid(5000)), grid(5000)[:6]
    (33, [0.001, 0.003, 0.005, 0.007, 0.01, 0.015])
    >>> grid(30)  # the scores' rates, and what lies 10 records or more from them and each other
    [0.001, 0.01, 0.05, 0.1, 0.15, 0.2, 0.55, 0.9]
    """
    gap = (RECORDS - 0.1) / nonmembers  # a tenth of a record: what rounding may take away
    kept = list(SCORED)
    for rate in RATES:
        if rate not in SCORED and rate >= gap and min(abs(rate - other) for other in kept) >= gap:
            kept.append(rate)
    return sorted(kept)


def _unit(members: int) -> float:
    """The unit of which shown true positive rates are multiples."""
    return min(1.0, max(TPR_UNIT, RECORDS / members))


def _records(rates: np.ndarray) -> int:
    """A lower bound on the number of records that `rates` are shares of."""
    steps = np.diff(np.asarray(rates, dtype=float))
    return max(1, int(round(1 / steps[steps > 0].min())))


def _rounded(fpr: List[float], exact: np.ndarray, unit: float) -> np.ndarray:
    """`exact` rounded to multiples of `unit`, except for the scores, and still monotone."""
    scored = np.isin(fpr, SCORED)
    values = np.where(scored, exact, np.round(exact / unit) * unit)
    # Rounding may have lifted a point above a score to its right, or sunk one below its left.
    low = np.maximum.accumulate(np.where(scored, exact, 0.0))
    high = np.minimum.accumulate(np.where(scored, exact, 1.0)[::-1])[::-1]
    rounded: np.ndarray = np.minimum(np.maximum(values, low), high)
    return rounded


def shown_curve(result: Mapping[str, Any], intervals: Optional[Mapping[str, Any]] = None) -> Curve:
    """The points of a scenario's curve that may be shown.

    Args:
        result: what `metrics.score` returned for the scenario.
        intervals: what `intervals_of` with `rates=RATES` has for the scenario.  Without it,
            nobody knows how many records there are; the curve is then as coarse as it must be
            for the fewest records that it may be of.  Not used for a coarse score.

    Returns:
        A `Curve`: at each of its rates f, the best true positive rate at a false positive rate
        strictly below f, as in the scores, and its interval where intervals are known.
    """
    fpr, tpr = np.asarray(result["fpr"], dtype=float), np.asarray(result["tpr"], dtype=float)
    if "step" in result:  # made of rounded numbers already: see coarse.py
        return Curve(fpr[1:-1].tolist(), tpr[1:-1].tolist(), [], [])
    counts: Dict[str, int] = {"members": _records(tpr), "nonmembers": _records(fpr)}
    if intervals is not None and "nonmembers" in intervals:
        counts = {key: int(intervals[key]) for key in counts}
    rates = grid(counts["nonmembers"])
    exact = np.array([tpr[fpr < rate].max() for rate in rates])
    values = _rounded(rates, exact, _unit(counts["members"])).tolist()
    unit = max(BAND_UNIT, 2 * _unit(counts["members"]))
    ends = _band(rates, values, (intervals or {}).get("curve", {}), unit)
    return Curve(rates, values, [low for low, _ in ends], [high for _, high in ends])


def _band(
    rates: List[float],
    values: List[float],
    curve: Mapping[float, Tuple[float, float]],
    unit: float,
) -> List[Tuple[float, float]]:
    """The intervals at `rates`, rounded outward; [0, 1] where one is unknown.

    If all are unknown, there is no band.
    """
    ends = [curve.get(rate, (math.nan, math.nan)) for rate in rates]
    if all(math.isnan(low) for low, _ in ends):
        return []
    ends = [(0.0, 1.0) if math.isnan(low) else (low, high) for low, high in ends]
    shown = []
    for rate, (low, high), value in zip(rates, ends, values):
        if rate not in SCORED:  # others are in the table of scores
            low = round(math.floor(low / unit) * unit, 9)
            high = round(math.ceil(high / unit) * unit, 9)
        shown.append((min(low, value), max(min(high, 1.0), value)))
    return shown
