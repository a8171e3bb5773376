"""Trade-off curves of (epsilon, delta) and of Gaussian DP: the TPR that a privacy claim permits.

A curve gives the largest true positive rate (TPR) at each false positive rate (FPR):
docs/METHODS.md, sections 8.1 and 8.2 (formulas 66 to 68).  It is 1 - f, with f the trade-off
function of Dong, Roth and Su, "Gaussian differential privacy" (JRSS B 84, 2022), who write it in
the two errors FPR and 1 - TPR.  Numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtr, ndtri

from mico_competition.audit.checked import check_delta

_SQRT2 = math.sqrt(2)


def dp_tpr(epsilon: Any, delta: Any, fpr: Any) -> np.ndarray:
    """The largest TPR that (epsilon, delta) permits at each FPR.

    min(1, e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)): Wasserman and Zhou, JASA 2010,
    theorem 2.4; Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1.

    Args:
        epsilon: >= 0; infinite permits every TPR.
        delta: in [0, 1].
        fpr: in [0, 1].  All three may be arrays whose shapes broadcast.

    Returns:
        float64 of the broadcast shape, each in [fpr, 1].

    Raises:
        ValueError: if an argument is out of range.

    >>> dp_tpr(math.log(3), 0.0, [0.0, 0.1, 0.5]).round(4).tolist()
    [0.0, 0.3, 0.8333]
    """
    epsilon, delta, fpr = (np.asarray(part, dtype=np.float64) for part in (epsilon, delta, fpr))
    _check("epsilon", epsilon, math.inf)
    _check("delta", delta, 1)
    _check("fpr", fpr, 1)
    with np.errstate(divide="ignore"):
        rate = np.log(fpr)  # so that a large epsilon does not overflow
    grown = np.where(fpr > 0, np.exp(np.minimum(0, np.where(fpr > 0, rate, 0) + epsilon)), 0)
    grown = np.where(np.isinf(epsilon), 1.0, grown)
    # The second line, written so that small rates are not lost beside 1.
    other = -np.expm1(-epsilon) + np.exp(-epsilon) * (delta + fpr)
    tpr: np.ndarray = np.minimum(1, np.minimum(grown + delta, other))
    return tpr


def gdp_tpr(mu: Any, fpr: Any) -> np.ndarray:
    """The largest TPR that Gaussian DP permits at each FPR: Phi(Phi^-1(FPR) + mu).

    Dong, Roth and Su (2022), definition 3 and equation (6): telling N(0, 1) from N(mu, 1).

    Args:
        mu: >= 0; infinite permits every TPR.
        fpr: in [0, 1].  Both may be arrays whose shapes broadcast.

    Returns:
        float64 of the broadcast shape; 0 where the FPR is 0 and mu finite, 1 where it is 1.

    Raises:
        ValueError: if an argument is out of range.
    """
    mu, fpr = np.asarray(mu, dtype=np.float64), np.asarray(fpr, dtype=np.float64)
    _check("mu", mu, math.inf)
    _check("fpr", fpr, 1)
    known = np.isfinite(mu)
    return np.where(known, ndtr(ndtri(fpr) + np.where(known, mu, 0)), 1.0)


def gdp_delta(mu: float, epsilon: float) -> float:
    """The least delta of a mu-GDP mechanism at an epsilon.

    Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu): Balle and Wang, ICML 2018 (arXiv
    1805.06530), theorem 8, with mu for sensitivity / sigma; Dong, Roth and Su (2022), corollary 1.

    Args:
        mu: >= 0, finite.
        epsilon: >= 0, finite.

    Returns:
        delta in [0, 1].

    Raises:
        ValueError: if an argument is out of range.
    """
    _check_finite("mu", mu)
    _check_finite("epsilon", epsilon)
    if mu == 0:
        return 0.0
    high, low = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    if high > 0:
        return float(max(0.0, ndtr(high) - math.exp(min(0.0, epsilon + log_ndtr(low)))))
    # Both terms may be tiny: factor out their common density, phi(high) = e^epsilon phi(low).
    ratios = float(erfcx(-high / _SQRT2) - erfcx(-low / _SQRT2))
    return max(0.0, 0.5 * math.exp(-high * high / 2) * ratios)


def gdp_epsilon(mu: float, delta: float) -> float:
    """The least epsilon of a mu-GDP mechanism at a delta: the inverse of `gdp_delta`.

    Args:
        mu: >= 0, finite.
        delta: in [0, 1).

    Returns:
        epsilon >= 0; infinite at delta = 0, unless mu is 0.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check_finite("mu", mu)
    check_delta(delta)
    if mu == 0 or gdp_delta(mu, 0.0) <= delta:
        return 0.0
    if delta == 0:
        return math.inf
    # At this epsilon the first of the two terms is delta already.
    most = mu * mu / 2 - mu * float(ndtri(delta)) + 1e-9
    return float(brentq(lambda e: gdp_delta(mu, e) - delta, 0.0, max(most, 1e-9), xtol=1e-12))


def gdp_mu(epsilon: float, delta: float) -> float:
    """The largest mu whose delta at `epsilon` is at most `delta`.

    Args:
        epsilon: >= 0, finite.
        delta: in [0, 1).

    Returns:
        mu >= 0; 0 at delta = 0, where no Gaussian has a finite epsilon.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check_finite("epsilon", epsilon)
    check_delta(delta)
    if delta == 0:
        return 0.0
    high = 1.0
    while gdp_delta(high, epsilon) <= delta:
        high *= 2
    low = 0.0 if high == 1 else high / 2
    return float(brentq(lambda mu: gdp_delta(mu, epsilon) - delta, low, high, xtol=1e-13))


@dataclass(frozen=True)
class Family:
    """Trade-off curves with one parameter, of which a bound finds the least that is not excluded.

    Attributes:
        name: of the parameter, in a bound's detail.
        tpr: (parameter, FPR) -> the largest TPR; concave and growing in the FPR, and growing in
            the parameter.  It must hold in both directions, record added and record removed.
        fpr: (parameter, TPR) -> the least FPR at which that TPR is permitted: the inverse of `tpr`.
        epsilon: (parameter, delta) -> the least epsilon of the curve.
        Parameters are >= 0, and at 0 the curve is the diagonal.
    """

    name: str
    tpr: Callable[[float, float], float]
    fpr: Callable[[float, float], float]
    epsilon: Callable[[float, float], float]


def _gaussian_fpr(mu: float, tpr: float) -> float:
    return float(ndtr(ndtri(tpr) - mu))


def _gaussian_tpr(mu: float, fpr: float) -> float:
    return float(ndtr(ndtri(fpr) + mu))


GAUSSIAN = Family("mu", _gaussian_tpr, _gaussian_fpr, gdp_epsilon)
"""Gaussian DP: Gaussian noise once, or many times without sampling; others by approximation."""


def _check(name: str, values: np.ndarray, most: float) -> None:
    fits = (values >= 0) & (values <= most)  # false for NaN, too
    if not fits.all():
        allowed = "at least 0" if math.isinf(most) else f"in [0, {most:g}]"
        raise ValueError(f"Expected {name} {allowed}, got {np.asarray(values)[~fits].flat[0]:g}.")


def _check_finite(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"Expected {name}={value} finite and at least 0.")
