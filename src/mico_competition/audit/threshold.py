"""Epsilon from the best threshold, with exact bounds of both rates.

A lower bound on the TPR and an upper bound on the FPR exclude small epsilons: docs/METHODS.md,
section 9.2 (formula 75). Sources: Jagielski, Ullman and Oprea, NeurIPS 2020 (arXiv 2006.07709);
Nasr et al., S&P 2021 (arXiv 2101.04535). Points must be independent; those of one model are not,
and then the bound may fail. The one-run bounds do not need independence.

Every threshold of a fixed list of ranks is bounded on all points, with Bonferroni's correction. The
ranks are the k-th largest score of the non-members and the k-th smallest of the members, k = 1, 2,
3, 4, 6, ..., so the bounded counts do not choose the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mico_competition.audit import binomial
from mico_competition.audit.bound import Bound
from mico_competition.audit.checked import check_delta, check_level, check_scores

_STRIDE = 1.5  # the ratio of one rank of the list to the next
_MOST = 2**20  # an error message searches up to this number of points of a kind

Worth = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rates:
    """Thresholds with bounds of both rates that hold for all thresholds jointly.

    Attributes:
        threshold, true_positives, false_positives, tpr_low, fpr_high: one number for each
            threshold.
        members, nonmembers: the numbers of points counted.
    """

    threshold: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    tpr_low: np.ndarray
    fpr_high: np.ndarray
    members: int
    nonmembers: int

    def detail(self, best: int) -> dict[str, float]:
        """The numbers of threshold number `best`."""
        names = ("threshold", "true_positives", "false_positives", "tpr_low", "fpr_high")
        found = {name: float(getattr(self, name)[best]) for name in names}
        counts = (self.members, self.nonmembers, len(self.threshold))
        return found | dict(zip(("members", "nonmembers", "thresholds"), map(float, counts)))


def threshold_bound(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    seed: int = 0,
) -> Bound:
    """A lower bound on epsilon from the best threshold, for independent points.

    Args:
        truth, scores: see `check_scores`; only the order of the scores counts.
        delta: in [0, 1).
        level: in (0, 1), the least probability with which the bound holds.
        seed: for the order of tied scores.

    Returns:
        A `Bound`: the larger of log((TPR - delta) / FPR) and log((TNR - delta) / FNR), computed
        from the bounds of the rates, or 0. All scores equal give 0. `detail` has the threshold, the
        counts and the bounds of the rates there, and the number of thresholds tried.

    Raises:
        ValueError: as `check_scores`; if `delta` or `level` is out of range; if there are so few
            points that even perfect scores would prove nothing (at 95 % and a small delta, fewer
            than 9 of each kind).

    >>> truth = np.arange(1000) % 2
    >>> scores = truth + np.arange(1000) % 5 / 4
    >>> threshold_bound(truth, scores, delta=1e-5).epsilon > 2
    True
    """
    member, value = check_scores(truth, scores)
    check_delta(delta)

    def worth(tpr_low: np.ndarray, fpr_high: np.ndarray) -> np.ndarray:
        return epsilon_of_rates(tpr_low, fpr_high, delta)

    rates = honest_rates(member, value, level=level, worth=worth, seed=seed)
    found = worth(rates.tpr_low, rates.fpr_high)
    best = int(found.argmax())
    epsilon = 0.0 if (value == value[0]).all() else max(0.0, float(found[best]))
    return Bound("threshold", epsilon, delta, level, rates.detail(best))


def epsilon_of_rates(tpr: Any, fpr: Any, delta: float) -> np.ndarray:
    """The least epsilon that permits a TPR at an FPR in (0, 1]; -inf if every epsilon does.

    `tradeoff.dp_tpr`, solved for epsilon; it may be negative.

    >>> round(float(epsilon_of_rates(0.5, 0.1, 0.0)), 3)  # log(0.5 / 0.1)
    1.609
    """
    tpr, fpr = np.asarray(tpr, dtype=float), np.asarray(fpr, dtype=float)
    with np.errstate(divide="ignore"):
        above = np.log(np.maximum(tpr - delta, 0)) - np.log(fpr)
        below = np.log(np.maximum(1 - fpr - delta, 0)) - np.log(1 - tpr)
    epsilon: np.ndarray = np.maximum(above, below)
    return epsilon


def honest_rates(
    member: np.ndarray, value: np.ndarray, *, level: float, worth: Worth, seed: int
) -> Rates:
    """Bounds of both rates at thresholds that do not depend on the counted points.

    Args:
        member, value: bool[n] and float64[n], of `check_scores`.
        level: the least probability with which all bounds hold jointly; TPR and FPR share the rest.
        worth: (lower bounds of TPR, upper bounds of FPR) -> the value to maximise, which is above 0
            if the bound on epsilon is.
        seed: see `threshold_bound`.

    Raises:
        ValueError: if `level` is out of range, or there are too few points.
    """
    check_level(level)
    _enough(int(np.count_nonzero(member)), int(np.count_nonzero(~member)), level, worth)
    rng = np.random.default_rng(seed)
    # Tied scores are ordered at random; like any processing, this costs no privacy.
    order = np.lexsort((rng.random(value.size), value))
    inside, outside = np.flatnonzero(member[order]), np.flatnonzero(~member[order])
    top, bottom = _ranks(outside.size), _ranks(inside.size)
    each = 1 - (1 - level) / (2 * (top.size + bottom.size))
    # Accept scores above the k-th non-member from the top ...
    places = outside[outside.size - top]
    tp = inside.size - inside.searchsorted(places)
    # ... or from the k-th member from the bottom on.
    places = np.append(places, inside[bottom - 1])
    tp = np.append(tp, inside.size - bottom + 1)
    fp = np.append(top - 1, outside.size - outside.searchsorted(places[top.size :]))
    tpr_low = binomial.lower(tp, inside.size, each)
    fpr_high = binomial.upper(fp, outside.size, each)
    return Rates(value[order][places], tp, fp, tpr_low, fpr_high, inside.size, outside.size)


def _ranks(points: int) -> np.ndarray:
    """1, 2, 3, 4, 6, ... up to half of the points: from their number alone."""
    found, rank = [1], 1.0
    while (rank := rank * _STRIDE) <= points / 2:
        found.append(math.ceil(rank))
    return np.unique(found)


def _enough(inside: int, outside: int, level: float, worth: Worth) -> None:
    """ValueError if even perfect scores of so many points give no positive bound."""
    if _proves(inside, outside, level, worth):
        return
    low, high = 1, 2
    while high <= _MOST and not _proves(high, high, level, worth):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = _proves(middle, middle, level, worth)
        low, high = (low, middle) if enough else (middle, high)
    raise ValueError(
        f"Expected at least {high} members and {high} non-members for a bound above 0 at level "
        f"{level}, got {inside} and {outside}: add points, or lower the level."
    )


def _proves(inside: int, outside: int, level: float, worth: Worth) -> bool:
    tried = _ranks(inside).size + _ranks(outside).size
    each = 1 - (1 - level) / (2 * tried)
    perfect = binomial.lower(inside, inside, each), binomial.upper(0, outside, each)
    return bool(worth(*(np.array([rate]) for rate in perfect))[0] > 0)
