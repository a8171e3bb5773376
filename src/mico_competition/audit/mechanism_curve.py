"""Epsilon from the trade-off curve of the audited mechanism, whose noise is unknown.

For a subsampled mechanism a Gaussian curve is an approximation, and a poor one if q is small. With
the mechanism's own curve only the noise has to be estimated: docs/METHODS.md, section 9.7 (formula
82). Sources: Nasr et al., USENIX Security 2023 (arXiv 2302.07956), section 5; Mahloujifar, Melis
and Chaudhuri, ICML 2025 (arXiv 2410.22235).

Scores of the claimed mechanism can be simulated, so the threshold's rank is chosen on simulated
canaries, and the run's canaries are counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from mico_competition.audit import binomial
from mico_competition.audit.bound import Bound, largest_excluded
from mico_competition.audit.checked import check_delta, check_level, check_scores
from mico_competition.audit.limits import max_tpr, symmetric_tpr
from mico_competition.audit.tradeoff import Family
from mico_competition.audit.trainer.observed import log_ratio
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accounting_check import pld_epsilon

METHOD, NAME = "own curve", "strength"
_STRIDE = 0.01
_MOST = (
    2.0  # the largest noise ratio: smaller ones contradict the claim already, and curves take long
)


_SIMULATED = 4000  # simulated canaries that are in, and as many that are out
_CANDIDATES = np.concatenate([[0.002, 0.005, 0.01, 0.02], np.linspace(0.05, 0.95, 19)])
_TRIED = np.arange(1.0, 0.0, -0.05)  # noise ratios while a threshold is chosen


def mechanism_curve(
    mechanism: Mechanism, curve_of: Callable[[Mechanism, np.ndarray], np.ndarray] = symmetric_tpr
) -> Family:
    """The curves of a mechanism with its sampling and steps, and with any noise.

    The parameter is the noise ratio: claimed noise over actual noise. At 1 the claim holds; at 2,
    where the family ends, the noise is half of what is claimed. Curves are those of the next larger
    multiple of 0.01, so that what is excluded is excluded.

    Args:
        mechanism: a Poisson-subsampled Gaussian, composed with itself.
        curve_of: gives the curve of a mechanism; by default one that holds in both directions, as
            a `Family` must.  With `max_tpr` only `tpr` and `epsilon` may be used.
    """

    def step_of(strength: float) -> int:
        return math.ceil(strength / _STRIDE - 1e-9)

    def at(step: int) -> Mechanism:
        return replace(mechanism, noise_multiplier=mechanism.noise_multiplier / (step * _STRIDE))

    @lru_cache(maxsize=100_000)
    def tpr_at(step: int, fpr: float) -> float:
        return float(curve_of(at(step), np.array(fpr)))

    def tpr(strength: float, fpr: float) -> float:
        if strength <= 0:
            return fpr
        return tpr_at(step_of(strength), fpr) if strength <= _MOST else 1.0

    def fpr(strength: float, of: float) -> float:
        # The curve is its own mirror image, as it holds in both directions.
        return 1 - tpr(strength, 1 - of)

    def epsilon(strength: float, delta: float) -> float:
        return pld_epsilon(at(step_of(strength)), delta) if strength > 0 else 0.0

    return Family(NAME, tpr, fpr, epsilon)


def mechanism_curve_bound(
    truth: Any,
    scores: Any,
    mechanism: Mechanism,
    *,
    delta: float,
    level: float = 0.95,
    seed: int = 0,
) -> Bound:
    """A lower bound on epsilon, if the mechanism is the claimed one except for its noise.

    Args:
        truth: bool[n], which canaries were in; some in, some out.
        scores: float64[n], independent, sums of `log_ratio` over the run.
        mechanism: as claimed.
        delta: in (0, 1).
        level: in (0, 1).
        seed: of the simulated canaries.

    Returns:
        A `Bound`; `detail` has the proven noise ratio ("strength", see `mechanism_curve`), the
        threshold, the counts above it and the bounds of both rates.

    Raises:
        ValueError: as `check_scores`, or if `delta` or `level` is out of range.
    """
    member, value = check_scores(truth, scores)
    check_delta(delta, zero=False)
    check_level(level)
    curve = mechanism_curve(mechanism, max_tpr)  # what is counted as positive is a member
    outside = np.sort(value[~member])
    rank = _planned(mechanism, int(member.sum()), len(outside), level, seed)
    threshold = float(outside[-rank])
    accepted = int((value[member] > threshold).sum())
    rates = _rates(accepted, rank - 1, int(member.sum()), len(outside), level)
    tpr_low, fpr_high = (float(rate) for rate in rates)
    strength = largest_excluded(lambda s: curve.tpr(s, fpr_high) < tpr_low, tolerance=_STRIDE / 10)
    detail = {
        NAME: strength,
        "threshold": threshold,
        "true_positives": float(accepted),
        "false_positives": float(rank - 1),
        "tpr_low": tpr_low,
        "fpr_high": fpr_high,
        "members": float(member.sum()),
        "nonmembers": float(len(outside)),
    }
    return Bound(METHOD, curve.epsilon(strength, delta), delta, level, detail)


def _planned(mechanism: Mechanism, inside: int, outside: int, level: float, seed: int) -> int:
    """The rank among canaries that are out with the largest expected bound."""
    of_in, of_out = _simulated(mechanism, seed)
    ranks = np.unique(np.maximum(1, np.rint(_CANDIDATES * outside).astype(int)))
    tried = np.quantile(of_out, 1 - ranks / (outside + 1))
    tp = np.rint((of_in[:, None] > tried).mean(axis=0) * inside)
    tpr_low, fpr_high = _rates(tp, ranks - 1, inside, outside, level)
    for strength in _TRIED.tolist():
        weaker = replace(mechanism, noise_multiplier=mechanism.noise_multiplier / strength)
        excess = tpr_low - max_tpr(weaker, fpr_high)
        if excess.max() > 0:
            return int(ranks[excess.argmax()])
    return int(ranks[len(ranks) // 2])  # no positive bound is expected


def _rates(tp: Any, fp: Any, inside: int, outside: int, level: float) -> tuple[Any, Any]:
    """A lower bound of the TPR and an upper bound of the FPR that hold at once at `level`."""
    each = (1 + level) / 2
    return binomial.lower(tp, inside, each), binomial.upper(fp, outside, each)


@lru_cache(maxsize=8)
def _simulated(mechanism: Mechanism, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulated scores of canaries that are in and that are out, if the claim holds."""
    rng = np.random.default_rng(seed)
    scores = np.zeros(2 * _SIMULATED)
    for _ in range(mechanism.num_steps):
        seen = mechanism.noise_multiplier * rng.standard_normal(2 * _SIMULATED)
        seen[:_SIMULATED] += rng.random(_SIMULATED) < mechanism.sample_rate
        scores += log_ratio(seen, mechanism)
    return scores[:_SIMULATED], scores[_SIMULATED:]
