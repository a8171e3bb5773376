"""Exact binomial intervals of scores that depend on few records.

Resampling models fails if a score is at or near 0 or 1: if no member is below any non-member, every
draw gives 1, and the interval has no width.  The same holds for a rate at which few non-members are
accepted.  Then a score is known only as well as a count of so few records (Clopper & Pearson,
Biometrika 26, 1934).  docs/METHODS.md, section 7.3, says what is counted for each score.
`intervals.py` never makes an interval over models narrower than this one.

The records of one model are not independent, so these intervals are used only together with
intervals over models.
"""

import math
from functools import lru_cache
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from .metrics import FPR_UNIT

FEW = 20
"""A score that depends on fewer records than this needs an interval of the records, too."""

ACCEPTED = 10
"""So does the TPR at a rate at which fewer non-members than this are accepted."""

Interval = Tuple[float, float]


@lru_cache(maxsize=4096)
def exact_interval(count: float, total: int, level: float) -> Interval:
    """The Clopper-Pearson interval of a probability; the count need not be whole.

    >>> low, high = exact_interval(0, 10, 0.95)
    >>> round(low, 4), round(high, 4)  # 1 - 0.025 ** (1 / 10)
    (0.0, 0.3085)
    """
    tail = (1 - level) / 2
    low = 0.0 if count <= 0 else _beta_quantile(tail, count, total - count + 1)
    high = 1.0 if count >= total else _beta_quantile(1 - tail, count + 1, total - count)
    return low, high


def interval_of_records(
    key: Any, result: Any, counts: Tuple[int, int], level: float
) -> Optional[Interval]:
    """The interval of a score from its records alone; None if it depends on enough records.

    Args:
        key: one of `metrics.SCALARS`, or a false positive rate in (0, 1], for the TPR below it.
        result: the result of `metrics.score`.
        counts: the numbers of members and non-members.
        level: the confidence level.
    """
    if key == "AUC":
        return area_interval(float(result[key]), counts, level)
    fpr, tpr = result["fpr"], result["tpr"]
    if key in ("MIA", "accuracy"):
        found = lead_interval(fpr, tpr, counts, level)
        if found is None or key == "MIA":
            return found
        return (1 + found[0]) / 2, (1 + found[1]) / 2
    return rate_interval(fpr, tpr, counts, rate_of(key), level)


def rate_of(key: Any) -> float:
    """The false positive rate of a key such as "TPR_FPR_1000" or 0.1."""
    if isinstance(key, str):
        return int(key[len("TPR_FPR_") :]) / FPR_UNIT
    return float(key)


def rate_interval(
    fpr: Any, tpr: Any, counts: Tuple[int, int], rate: float, level: float
) -> Optional[Interval]:
    """The interval of the TPR below a false positive rate; None if it has enough records.

    Args:
        fpr, tpr: the ROC curve, as `metrics.score` returns it.
        counts: the numbers of members and non-members.
        rate: the false positive rate, in (0, 1].
        level: the confidence level.
    """
    members, nonmembers = counts
    value = float(tpr[fpr < rate].max())
    if min(value, 1 - value) * members >= FEW and rate * nonmembers >= ACCEPTED:
        return None
    fewest, most = _accepted(nonmembers, rate, level)
    # With k accepted by the true threshold, it lies between the k-th non-member and the next.
    least = float(tpr[fpr < (fewest - 0.5) / nonmembers].max()) if fewest else 0.0
    best = float(tpr[fpr < (most + 0.5) / nonmembers].max())
    low, _ = exact_interval(round(least * members), members, level)
    _, high = exact_interval(round(best * members), members, level)
    return low, high


def area_interval(value: float, counts: Tuple[int, int], level: float) -> Optional[Interval]:
    """The interval of the AUC; None if it depends on enough records."""
    records = min(counts)
    if min(value, 1 - value) * records >= FEW:
        return None
    return exact_interval(value * records, records, level)


def lead_interval(fpr: Any, tpr: Any, counts: Tuple[int, int], level: float) -> Optional[Interval]:
    """The interval of the advantage; None if it depends on enough records."""
    members, nonmembers = counts
    best = int(np.argmax(tpr - fpr))
    wrong = (1 - float(tpr[best])) * members, float(fpr[best]) * nonmembers
    if max(wrong) >= FEW:
        return None
    missed = exact_interval(round(wrong[0]), members, level)
    accepted = exact_interval(round(wrong[1]), nonmembers, level)
    return max(0.0, 1 - missed[1] - accepted[1]), 1 - missed[0] - accepted[0]


def joined(one: Interval, other: Optional[Interval]) -> Interval:
    """The union of two intervals, without a gap; `one` itself if `other` is unknown.

    >>> joined((0.9, 0.9), (0.8, 1.0)), joined((0.1, 0.2), None)
    ((0.8, 1.0), (0.1, 0.2))
    """
    if other is None or math.isnan(one[0]) or math.isnan(other[0]):
        return one
    return min(one[0], other[0]), max(one[1], other[1])


def of_sum(
    values: Sequence[float], intervals: Sequence[Interval], weights: Sequence[float]
) -> Interval:
    """The interval of a weighted sum of independent estimates, from their intervals.

    Source: Zou & Donner, "Construction of confidence limits about effect measures", Statistics in
    Medicine 27 (2008).

    >>> low, high = of_sum([0.5, 0.5], [(0.47, 0.6), (0.46, 0.5)], [1, 1])
    >>> round(low, 3), round(high, 3)
    (0.95, 1.1)
    """
    total, below, above = 0.0, 0.0, 0.0
    for value, (low, high), weight in zip(values, intervals, weights):
        down, up = weight * (value - low), weight * (high - value)
        total += weight * value
        below += (down if weight > 0 else up) ** 2
        above += (up if weight > 0 else down) ** 2
    return total - math.sqrt(below), total + math.sqrt(above)


@lru_cache(maxsize=4096)
def _accepted(nonmembers: int, rate: float, level: float) -> Tuple[int, int]:
    """Bounds, at `level`, of the non-members above the threshold that accepts `rate` of all."""
    tail = (1 - level) / 2
    if rate >= 1:
        return nonmembers, nonmembers
    found = []
    for share in (tail, 1 - tail):
        low, high = 0, nonmembers
        while low < high:  # the least k for which P(count <= k) reaches the share
            k = (low + high) // 2
            below = 1.0 - _beta_below(rate, k + 1, nonmembers - k) if k < nonmembers else 1.0
            low, high = (low, k) if below >= share else (k + 1, high)
        found.append(low)
    return found[0], found[1]


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """The inverse of `_beta_below`, by bisection, to 12 digits: all systems agree on so many."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_below(middle, a, b) < probability else (low, middle)
    return round(high, 12)


def _beta_below(x: float, a: float, b: float) -> float:
    """The probability that a beta variable is below x.

    Source: Abramowitz & Stegun, "Handbook of Mathematical Functions" (1964), 26.5.8; the continued
    fraction by Lentz' method (Press et al., "Numerical Recipes", 1992, section 6.4).
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_below(1 - x, b, a)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logs + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    total = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d, tiny)
            c = _away(1 + term / c, tiny)
            total *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * total


def _away(value: float, tiny: float) -> float:
    """The value, kept away from 0, by which it will be divided."""
    return value if abs(value) > tiny else tiny
