"""Epsilon from the best threshold, if the mechanism is Gaussian: a bound of mu first.

One pair of rates proves much more about a mechanism whose whole trade-off curve has one parameter:
docs/METHODS.md, section 9.3 (formula 72).  Source: Nasr et al., "Tight auditing of differentially
private machine learning", USENIX Security 2023 (arXiv 2302.07956), section 4.

The bound presumes that the family is right, Gaussian noise once or without sampling, besides
independent points.  Of a subsampled mechanism it says which Gaussian curve the attack reached, and
the epsilon that is read from that curve at a small delta may lie above the true one.  Another
family, such as the mechanism's own curve with its noise as the parameter, can be passed instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from mico_competition.audit.bound import Bound, largest_excluded
from mico_competition.audit.checked import check_delta, check_scores
from mico_competition.audit.threshold import honest_rates
from mico_competition.audit.tradeoff import GAUSSIAN, Family


def gaussian_bound(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    choice: str = "corrected",
    seed: int = 0,
    curve: Family = GAUSSIAN,
) -> Bound:
    """A lower bound of epsilon, if the mechanism's curve is one of a family.

    Args:
        truth, scores: see `check_scores`; only the order of the scores counts.
        delta: in (0, 1); at 0 a Gaussian has no epsilon.
        level: in (0, 1), how often the bound holds, at least.
        choice, seed: see `threshold_bound`.
        curve: the family; Gaussian DP by default.

    Returns:
        A `Bound`, by "Gaussian DP", or "curve of NAME" for another family.  `detail` has the
        parameter ("mu"), and for the threshold at which rates are furthest apart what
        `threshold_bound` tells.  All scores equal give 0.

    Raises:
        ValueError: as `threshold_bound`.
    """
    member, value = check_scores(truth, scores)
    check_delta(delta, zero=False)
    rates = honest_rates(member, value, level=level, choice=choice, worth=_distance, seed=seed)
    best = int(_distance(rates.tpr_low, rates.fpr_high).argmax())
    parameter = 0.0 if (value == value[0]).all() else _parameter(rates, curve, best)
    detail = {curve.name: parameter} | rates.detail(best)
    method = "Gaussian DP" if curve is GAUSSIAN else f"curve of {curve.name}"
    return Bound(method, curve.epsilon(parameter, delta), delta, level, detail)


def _distance(tpr: np.ndarray, fpr: np.ndarray) -> np.ndarray:
    """Phi^-1(TPR) - Phi^-1(FPR), -inf at a TPR of 0 or an FPR of 1."""
    return ndtri(tpr) - ndtri(fpr)


def _parameter(rates: Any, curve: Family, best: int) -> float:
    """The largest parameter that the rates exclude; 0 if they exclude none."""
    if curve is GAUSSIAN:
        return max(0.0, float(_distance(rates.tpr_low, rates.fpr_high)[best]))
    pairs = list(zip(rates.tpr_low.tolist(), rates.fpr_high.tolist()))
    return largest_excluded(lambda p: any(curve.tpr(p, fpr) < tpr for tpr, fpr in pairs))
