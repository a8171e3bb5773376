"""The empirical-Bayes likelihood ratio: LiRA that learns from all records how far to trust one.

Without privacy records differ much in how far training on them shifts the signal, and a record's
own estimate of its shift is best.  Under DP they hardly differ, and the own estimate is mostly
noise.  Here the spread of the true shifts is estimated in bins of records with like means, and each
estimate is weighted by it.  Ours: docs/METHODS.md, section 4.9 (formulas 24 to 31).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.scores.common import Moments, check_inputs, check_varies, moments_of
from mico_competition.attacks.scores.groups import CONSTANT, log_normal

NU0 = 20.0  # observations that what is usual of variances weighs, here and in like features
LEAST_IN_BIN = 20  # points a bin must have on average; else there are fewer bins
LEAST_SPREAD = 1e-4  # of the true shifts, in squared standard deviations
RATIO_FREEDOM = 5.0  # degrees of freedom that equal variances IN and OUT weigh


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

    >>> shadow = np.array([[2.0, 0.0], [2.2, 0.1], [0.0, 1.9], [0.1, 2.1]])
    >>> is_member = shadow > 1
    >>> scores = eb_likelihood_ratio(np.array([2.1, 0.0]), shadow, is_member)
    >>> bool(scores[0] > scores[1])  # the first record looks like a member
    True
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
    log_ratio: np.ndarray = inside - log_normal(u, -f * shift, (1 + 1 / n + f**2 * shift_var) * out)
    return log_ratio


def _rows(moments: Moments) -> list[Moments]:
    """One Moments of float[points] for each target that has its own."""
    if moments.n_in.ndim == 1:
        return [moments]
    values = [getattr(moments, name) for name in Moments.__dataclass_fields__]
    return [Moments(*(value[row] for value in values)) for row in range(len(moments.n_in))]


def _learn(m: Moments, bins: int, nu0: float) -> _Learnt:
    """Shrunk standard deviations, shifts and variance ratios of one row of points."""
    if not ((m.n_in > 0) & (m.n_out > 0)).any():
        raise ValueError(
            "Expected some point with both IN and OUT shadow models, got none: do the masks "
            "belong to these models?"
        )
    bins = min(bins, max(1, len(m.mean_all) // LEAST_IN_BIN))
    parts = np.array_split(_in_order(m.mean_all), bins)
    sd = np.sqrt(_variances(m, parts, nu0))
    return _Learnt(sd, *_shifts(m, sd, parts, nu0), _variance_ratios(m, parts))


def _in_order(values: np.ndarray) -> np.ndarray:
    """The places of the values in ascending order, equal ones as they come."""
    order = np.argsort(values)  # twice as fast as a stable sort
    ascending = values[order]
    if (ascending[1:] == ascending[:-1]).any():
        order = np.argsort(values, kind="stable")
    return order


def _median(values: np.ndarray) -> float:
    """The median of finite values [n > 0], as numpy's, which takes 50 microseconds for checks."""
    half = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, half)[half])
    middle = np.partition(values, (half - 1, half))
    return float((middle[half - 1] + middle[half]) / 2)


def _variances(m: Moments, parts: list[np.ndarray], nu0: float) -> np.ndarray:
    """Each point's variance within IN and OUT, drawn to the median of its bin."""
    free = m.n - (m.n_in > 0) - (m.n_out > 0)
    within = (m.ss_in + m.ss_out) / np.maximum(free, 1)
    largest = np.abs(m.mean_all).max()
    check_varies(within.max() > (1e-14 * largest) ** 2)
    overall = np.median(within[within > 0])
    var: np.ndarray = np.empty_like(within)
    for part in parts:
        usual = _median(within[part])
        usual = usual if usual > CONSTANT * overall else overall
        mixed = (nu0 * usual + free[part] * within[part]) / (nu0 + free[part])
        var[part] = np.where(mixed > CONSTANT * usual, mixed, usual)
    return var


def _shifts(
    m: Moments, sd: np.ndarray, parts: list[np.ndarray], nu0: float
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and variance of each point's shift, in two levels of shrinkage.

    A bin's mean and spread of true shifts (method of moments) are first drawn to those of all
    points, as far as bins differ by no more than their own sampling errors; then a point's own
    estimate is drawn to its bin's mean.
    """
    both = (m.n_in > 0) & (m.n_out > 0)
    noise = 1 / np.maximum(m.n_in, 1) + 1 / np.maximum(m.n_out, 1)
    weight = np.where(both, 1 / noise, 0.0)  # a point without one kind says nothing of shifts
    gap = np.where(both, (m.mean_in - m.mean_out) / sd, 0.0)
    label = np.empty(len(gap), np.int64)
    for place, part in enumerate(parts):
        label[part] = place
    total = np.bincount(label, weight, len(parts))
    known = total > 0
    share = weight / np.where(known, total, 1.0)[label]  # of a point in its bin's estimates

    def mean_in_bins(values: np.ndarray) -> np.ndarray:
        return np.bincount(label, share * values, len(parts))

    def error_in_bins(variances: np.ndarray) -> np.ndarray:
        return np.bincount(label, share**2 * variances, len(parts))

    mean = mean_in_bins(gap)
    excess = (gap - mean[label]) ** 2 - _squared_noise(m, sd, noise, nu0)
    spread = mean_in_bins(excess)
    mean_error = error_in_bins(noise + np.maximum(spread, 0.0)[label])
    spread_error = error_in_bins((excess - spread[label]) ** 2)
    mean, between = _drawn_to_overall(mean, mean_error, total)
    spread, _ = _drawn_to_overall(spread, spread_error, total)
    spread = np.maximum(np.where(known, spread, spread + between), LEAST_SPREAD)
    precision = weight + 1 / spread[label]
    return (gap * weight + (mean / spread)[label]) / precision, 1 / precision


def _drawn_to_overall(
    estimate: np.ndarray, error: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, float]:
    """Estimates of bins with these error variances, shrunk; and the variance between true values.

    A bin without weight takes the overall value.
    """
    overall = np.average(estimate, weights=weight)
    between = max(float(np.average((estimate - overall) ** 2 - error, weights=weight)), 0.0)
    usable = (weight > 0) & (between > 0)
    trust = np.where(usable, between / np.where(usable, between + error, 1.0), 0.0)
    return overall + trust * (estimate - overall), between


def _squared_noise(m: Moments, sd: np.ndarray, noise: np.ndarray, nu0: float) -> np.ndarray:
    """What the square of a point's gap holds on average beside its squared true shift.

    A point's own sample variance is part of the variance that its gap is divided by.  The second
    factor corrects for that (Stein's identity for a scaled chi-squared variable): without it the
    spread of shifts is too large by noise / 14 with ten shadows.
    """
    free = np.maximum(m.n - (m.n_in > 0) - (m.n_out > 0), 1)
    within = (m.ss_in + m.ss_out) / free
    squared: np.ndarray = noise * within / sd**2 * (1 + 2 / (nu0 + free))
    return squared


def _variance_ratios(m: Moments, parts: list[np.ndarray]) -> np.ndarray:
    """The ratio of IN to OUT variance: the median of a bin, drawn to 1 where shadows are few.

    The logarithm of a variance of few values is biased downwards: by 0.79 of two, so that a fleet
    with two IN models a point would look as if members' signals varied half as much.
    """
    free_in, free_out = np.maximum(m.n_in - 1, 0), np.maximum(m.n_out - 1, 0)
    known = (free_in > 0) & (free_out > 0) & (m.ss_in > 0) & (m.ss_out > 0)
    logs = np.zeros_like(m.ss_in)
    for sign, ss, free in ((1, m.ss_in[known], free_in), (-1, m.ss_out[known], free_out)):
        logs[known] += sign * (np.log(ss / free[known]) - _median_log_variance(free[known]))
    everything = float(np.median(logs[known])) if known.sum() >= LEAST_IN_BIN // 2 else 0.0
    usual = np.empty_like(logs)
    for part in parts:
        mine = logs[part][known[part]]
        usual[part] = _median(mine) if len(mine) >= LEAST_IN_BIN // 2 else everything
    harmonic = free_in * free_out / np.maximum(free_in + free_out, 1)
    ratios: np.ndarray = np.exp(usual * harmonic / (harmonic + RATIO_FREEDOM))
    return ratios


def _median_log_variance(free: np.ndarray) -> np.ndarray:
    """Median of log(chi-squared / free), by the cube root (Wilson and Hilferty, PNAS 17, 1931)."""
    return 3 * np.log1p(-2 / (9 * free))
