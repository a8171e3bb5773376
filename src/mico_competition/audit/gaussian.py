"""Epsilon from the best threshold, if the mechanism is Gaussian: it bounds mu first.

One pair of rates implies more about a mechanism whose trade-off curve has a single parameter:
docs/METHODS.md, section 9.3 (formula 76). Source: Nasr et al., "Tight auditing of differentially
private machine learning", USENIX Security 2023 (arXiv 2302.07956), section 4.

The bound assumes independent points and Gaussian noise without sampling. For a subsampled mechanism
it gives the Gaussian curve that the attack reached, and the epsilon of that curve at a small delta
may exceed the true one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from mico_competition.audit.bound import Bound
from mico_competition.audit.checked import check_delta, check_scores
from mico_competition.audit.threshold import honest_rates
from mico_competition.audit.tradeoff import gdp_epsilon


def gaussian_bound(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    seed: int = 0,
) -> Bound:
    """A lower bound on epsilon, if the mechanism's curve is Gaussian.

    Args:
        truth, scores: see `check_scores`; only the order of the scores counts.
        delta: in (0, 1); at 0 a Gaussian has no epsilon.
        level: in (0, 1), the least probability with which the bound holds.
        seed: for the order of tied scores.

    Returns:
        A `Bound`, by "Gaussian DP". `detail` has "mu" and, for the threshold at which the rates are
        furthest apart, the details of `threshold_bound`. All scores equal give 0.

    Raises:
        ValueError: as `threshold_bound`.
    """
    member, value = check_scores(truth, scores)
    check_delta(delta, zero=False)
    rates = honest_rates(member, value, level=level, worth=_distance, seed=seed)
    distance = _distance(rates.tpr_low, rates.fpr_high)
    best = int(distance.argmax())
    mu = 0.0 if (value == value[0]).all() else max(0.0, float(distance[best]))
    detail = {"mu": mu} | rates.detail(best)
    return Bound("Gaussian DP", gdp_epsilon(mu, delta), delta, level, detail)


def _distance(tpr: np.ndarray, fpr: np.ndarray) -> np.ndarray:
    """Phi^-1(TPR) - Phi^-1(FPR), -inf at a TPR of 0 or an FPR of 1."""
    distance: np.ndarray = ndtri(tpr) - ndtri(fpr)
    return distance
