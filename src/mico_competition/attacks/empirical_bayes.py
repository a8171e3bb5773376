"""The empirical-Bayes likelihood ratio: LiRA that learns from all points how much to trust one.

Ours (`docs/attacks.md` of the findings, 4.1).  A point's shift between IN and OUT is known to
within sqrt(1/n_in + 1/n_out) standard deviations.  Without privacy shifts differ much between
points, and the point's own estimate is best: online LiRA.  Under DP they hardly differ, the own
estimate is mostly noise, and the best score is nearly (s - mean) / sd: the 2023 winner's.  Here
the spread of true shifts is estimated in bins of like points, and each estimate weighed by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.common import Moments, check_inputs, check_varies, moments_of
from mico_competition.attacks.groups import CONSTANT, log_normal

NU0 = 20.0  # observations that what is usual of variances weighs, here and in like features
LEAST_IN_BIN = 20  # points a bin must have on average; else there are fewer bins
LEAST_SPREAD = 1e-4  # of the true shifts, in squared standard deviations


@dataclass(frozen=True)
class _Learnt:
    """What one row of points teaches: each float[points]."""

    sd: np.ndarray
    shift: np.ndarray  # posterior mean of (IN - OUT) / sd
    shift_var: np.ndarray  # and its posterior variance
    ratio: np.ndarray  # variance IN over variance OUT


def eb_likelihood_ratio(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    bins: int = 30,
    nu0: float = NU0,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The log likelihood ratio of IN to OUT, with each point's shift shrunk to that of its like.

    Args:
        target: float[points] or float[targets, points]: any scalar signal, best the stable logit.
        shadow: float[models, points].
        is_member: bool[models, points].
        bins: at most this many bins of points with like means, of at least some 20 points.
        nu0: observations that the bin's median variance weighs.
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape: any real number (clip to +-12 before stacking).  A point
        without IN or OUT shadows takes the shift of its bin.  A bin in which no point has both
        takes the shift of all points.

    Raises:
        ValueError: on bad input; on constant signals; if no point has both kinds of shadow;
            with fewer than three shadows.
    """
    if bins < 1 or not nu0 >= 0:
        raise ValueError(f"Expected bins >= 1 and nu0 >= 0, got {bins} and {nu0}.")
    inputs = check_inputs(target, shadow, is_member, target_index)
    m = moments_of(inputs)
    n = m.n
    if n.min() < 3:
        raise ValueError(
            f"Expected at least 3 shadow models beside the target, got {int(n.min())}: a variance "
            "within IN and OUT needs them."
        )
    rows = [_learn(row, bins, nu0) for row in _rows(m)]
    sd, shift, shift_var, ratio = (
        np.stack([getattr(row, name) for row in rows]).reshape(n.shape)
        for name in ("sd", "shift", "shift_var", "ratio")
    )
    f = m.n_in / n
    u = (inputs.target - m.mean_all) / sd
    # The pooled variance is (1 - f) OUT + f IN, roughly; split it in the bin's proportion.
    out = 1 / ((1 - f) + f * ratio)
    inside = log_normal(u, (1 - f) * shift, (1 + 1 / n + (1 - f) ** 2 * shift_var) * out * ratio)
    return inside - log_normal(u, -f * shift, (1 + 1 / n + f**2 * shift_var) * out)


def _rows(moments: Moments) -> list[Moments]:
    """One Moments of float[points] for each target that has its own."""
    if moments.n_in.ndim == 1:
        return [moments]
    values = [getattr(moments, name) for name in Moments.__dataclass_fields__]
    return [Moments(*(value[row] for value in values)) for row in range(len(moments.n_in))]


def _learn(m: Moments, bins: int, nu0: float) -> _Learnt:
    """Shrunk standard deviations and shifts of one row of points."""
    free = m.n - (m.n_in > 0) - (m.n_out > 0)
    within = (m.ss_in + m.ss_out) / np.maximum(free, 1)
    largest = np.abs(m.mean_all).max()
    check_varies(within.max() > (1e-14 * largest) ** 2)
    both = (m.n_in > 0) & (m.n_out > 0)
    if not both.any():
        raise ValueError(
            "Expected some point with both IN and OUT shadow models, got none: do the masks "
            "belong to these models?"
        )
    bins = min(bins, max(1, len(within) // LEAST_IN_BIN))
    parts = np.array_split(np.argsort(m.mean_all, kind="stable"), bins)

    overall = np.median(within[within > 0])
    var = np.empty_like(within)
    for part in parts:
        usual = np.median(within[part])
        usual = usual if usual > CONSTANT * overall else overall
        mixed = (nu0 * usual + free[part] * within[part]) / (nu0 + free[part])
        var[part] = np.where(mixed > CONSTANT * usual, mixed, usual)
    sd = np.sqrt(var)

    noise = 1 / np.maximum(m.n_in, 1) + 1 / np.maximum(m.n_out, 1)
    gap = np.where(both, (m.mean_in - m.mean_out) / sd, 0.0)
    weight = np.where(both, 1 / noise, 0.0)  # a point without one kind says nothing of shifts
    ratio = _variance_ratios(m, parts)
    everything = _prior(gap, noise, weight)
    shift, shift_var = np.empty_like(gap), np.empty_like(gap)
    for part in parts:
        known = weight[part].sum() > 0
        mean, spread = _prior(gap[part], noise[part], weight[part]) if known else everything
        precision = weight[part] + 1 / spread
        shift[part] = (gap[part] * weight[part] + mean / spread) / precision
        shift_var[part] = 1 / precision
    return _Learnt(sd, shift, shift_var, ratio)


def _prior(gap: np.ndarray, noise: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the true shifts, from noisy ones (method of moments)."""
    mean = np.average(gap, weights=weight)
    spread = np.average((gap - mean) ** 2 - noise, weights=weight)
    return float(mean), max(float(spread), LEAST_SPREAD)


def _variance_ratios(m: Moments, parts: list[np.ndarray]) -> np.ndarray:
    """The median ratio of IN to OUT variance in each part; of all points where a part is poor."""
    known = (m.n_in >= 2) & (m.n_out >= 2) & (m.ss_in > 0) & (m.ss_out > 0)
    logs = np.zeros_like(m.ss_in)
    logs[known] = np.log(m.ss_in[known] / (m.n_in[known] - 1))
    logs[known] -= np.log(m.ss_out[known] / (m.n_out[known] - 1))
    everything = float(np.median(logs[known])) if known.sum() >= LEAST_IN_BIN // 2 else 0.0
    ratio = np.empty_like(logs)
    for part in parts:
        mine = logs[part][known[part]]
        ratio[part] = np.exp(np.median(mine) if len(mine) >= LEAST_IN_BIN // 2 else everything)
    return ratio
