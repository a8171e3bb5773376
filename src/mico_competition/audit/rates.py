"""An exact interval of the TPR at an FPR, for a single model.

A single model gives no information about others. If its points are independent draws, their counts
are binomial, and the interval is exact: docs/METHODS.md, section 7.6 (formula 64).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import betainc

from mico_competition.audit import binomial
from mico_competition.audit.checked import check_level, check_scores
from mico_competition.evaluation.measure import LEVEL

Interval = tuple[float, float]


def tpr_interval(
    truth: Any, scores: Any, fpr: float, *, level: float = LEVEL, seed: int = 0
) -> Interval:
    """An interval for the TPR at a true FPR, for independent points.

    The threshold at which the FPR is `fpr` is unknown, but lies between two scores of non-members:
    the number of them above it is binomial (David and Nagaraja, "Order Statistics", 2003, section
    7.1). The TPR is above the one at the upper score, below the one at the lower, and both have
    Clopper-Pearson bounds, as the members are independent of the non-members. Each of the four
    bounds has an error probability of a quarter of 1 - `level`.

    Args:
        truth, scores: see `check_scores`.
        fpr: in [0, 1].
        level: in (0, 1), the least probability with which the interval holds.
        seed: for the random order of tied scores.

    Returns:
        `(low, high)`, 0 <= low <= high <= 1.

    Raises:
        ValueError: as `check_scores`; if a number is out of range.

    >>> truth = np.arange(200) % 2
    >>> low, high = tpr_interval(truth, truth + np.arange(200) % 3, fpr=0.1)
    >>> 0 < low < high < 1
    True
    """
    member, value = check_scores(truth, scores)
    check_level(level)
    if not 0 <= fpr <= 1:
        raise ValueError(f"Expected fpr={fpr} in [0, 1]: give the rate as a fraction.")
    order = np.lexsort((np.random.default_rng(seed).random(value.size), value))[::-1]
    ranked = member[order]
    outside = np.flatnonzero(~ranked)
    # members_above[k]: members above the k-th non-member from the top, k = 1, ..., n.
    members_above = np.cumsum(ranked)[outside]
    members, n = int(member.sum()), outside.size
    each = 1 - (1 - level) / 4
    ranks = np.arange(1, n + 1)
    # The FPR above the k-th has the distribution Beta(k, n + 1 - k).
    below = betainc(ranks, n + 1 - ranks, fpr)  # P[that FPR is below `fpr`]
    sure_below, sure_above = np.flatnonzero(below >= each), np.flatnonzero(below <= 1 - each)
    low, high = 0.0, 1.0
    if sure_below.size:
        low = binomial.lower(int(members_above[sure_below[-1]]), members, each)
    if sure_above.size:
        high = binomial.upper(int(members_above[sure_above[0]]), members, each)
    assert not math.isnan(low + high)
    return low, high
