"""LiRA, the likelihood ratio attack: compares the target's signal with IN and OUT models.

The formulas are in docs/METHODS.md, section 4.4 (formulas 16 to 18).  Source: Carlini, Chien, Nasr,
Song, Terzis and Tramer, "Membership inference attacks from first principles", IEEE S&P 2022 (arXiv
2112.03570): algorithm 1 (online), section V-B (offline), section VI (fixed variance,
augmentations).

With fewer than about 64 shadow models the authors recommend one variance for all records. MICO has
100, of which few are OUT at a record: use "global", or "point" with a shrinkage of 10 to 20.
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.scores.common import (
    check_finite,
    check_inputs,
    check_mask,
    check_varies,
    moments_of,
)
from mico_competition.attacks.scores.groups import log_normal, shrunk

_Group = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Counts [points], means [points, A] and scatter matrices [points, A, A] of a group."""


def lira(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    online: bool = True,
    variance: str = "point",
    shrinkage: float = 0.0,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The LiRA score of every point.

    Args:
        target: float[points] or float[targets, points]; a signal that grows with membership.
        shadow: float[models, points], the same signal.
        is_member: bool[models, points].
        online: the log likelihood ratio of IN to OUT; offline uses OUT shadows only, and the
            score is (s - mean_out) / sd_out, whose normal probability is the paper's
            1 - Pr[Z > s] (the same order, without rounding to 1).
        variance: "point", "pooled", "global" or "raw_global", see `groups.shrunk`.  Divided by n,
            as numpy's and the paper's.
        shrinkage: pseudo-observations that shrink means (towards the other group's, moved by the
            average shift) and variances (towards those of all points); 0 is the paper's method.
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape: any real number. A point with fewer than two shadows of a kind,
        or constant ones, takes the variance of all points; with none, the other kind's mean moved
        by the average shift.

    Raises:
        ValueError: on bad input, constant signals, or nothing to fill a missing mean from.

    >>> shadow = np.array([[0.0, 0.1], [1.0, 0.9], [3.0, 3.2], [4.0, 4.1]])
    >>> seen = np.array([[False] * 2, [False] * 2, [True] * 2, [True] * 2])
    >>> lira(np.array([3.5, 0.5]), shadow, seen, variance="global").round(2)
    array([ 10.93, -11.01])
    """
    inputs = check_inputs(target, shadow, is_member, target_index)
    needed = ("in", "out") if online else ("out",)
    groups = shrunk(moments_of(inputs), prior_weight=shrinkage, variance=variance, needed=needed)
    s = inputs.target
    if not online:
        z_score: np.ndarray = (s - groups.mean_out) / np.sqrt(groups.var_out)
        return z_score
    inside = log_normal(s, groups.mean_in, groups.var_in)
    log_ratio: np.ndarray = inside - log_normal(s, groups.mean_out, groups.var_out)
    return log_ratio


def lira_multivariate(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    online: bool = True,
    shrinkage: float | None = None,
    target_index: int | None = None,
) -> np.ndarray:
    """LiRA over several augmentations of each point: a multivariate normal for IN and OUT.

    Args:
        target: float[points, augmentations], of one target (or of several, concatenated).
        shadow: float[models, points, augmentations].
        is_member: bool[models, points].
        online: the log likelihood ratio; offline: 1'C^-1(s - mean_out) / sqrt(1'C^-1 1), C the
            OUT covariance: the best linear test for the same rise in all augmentations, and
            `lira`'s score when there is one.
        shrinkage: pseudo-observations of the covariance of all points, so that it can be
            inverted where shadows are few; by default augmentations + 1.
        target_index: the row of shadow that the target is; it is left out.

    Returns:
        float[points].  Missing means as in `lira`.

    Raises:
        ValueError: on bad input; on augmentations that are all constant.

    Source: Carlini et al. 2022, section VI-C.  Models of MICO were trained without
    augmentation: expect little there.

    >>> rng = np.random.default_rng(0)
    >>> seen = np.arange(8)[:, None] % 2 == [0, 1, 0]
    >>> shadow = rng.normal(size=(8, 3, 2)) + 4.0 * seen[:, :, None]
    >>> lira_multivariate(np.array([[4.0, 4.0], [0.0, 0.0], [4.0, 3.0]]), shadow, seen) > 0
    array([ True, False,  True])
    """
    target, shadow = np.asarray(target, dtype=np.float64), np.asarray(shadow)
    if shadow.ndim != 3 or 0 in shadow.shape or target.shape != shadow.shape[1:]:
        raise ValueError(
            "Expected target [points, augmentations] and shadow [models, points, augmentations], "
            f"got {target.shape} and {shadow.shape}."
        )
    is_member = check_mask(is_member, shadow.shape[:2])
    check_inputs(target[:, 0], shadow[:, :, 0], is_member, target_index)
    check_finite("target", target)
    check_finite("shadow", shadow)
    if target_index is not None:
        keep = np.arange(len(shadow)) != target_index
        shadow, is_member = shadow[keep], is_member[keep]
    shadow = shadow.astype(np.float64)
    if shrinkage is None:
        shrinkage = shadow.shape[2] + 1.0
    inside = _scatter(shadow, is_member)
    outside = _scatter(shadow, ~is_member)
    mean_in, mean_out = _filled(inside, outside)
    cov_out = _covariance(outside, inside, shrinkage)
    if not online:
        ones = np.ones((target.shape[0], target.shape[1], 1))
        weights = np.linalg.solve(cov_out, ones)[..., 0]
        rise = (weights * (target - mean_out)).sum(axis=-1)
        z_score: np.ndarray = rise / np.sqrt(weights.sum(axis=-1))
        return z_score
    cov_in = _covariance(inside, outside, shrinkage)
    log_ratio: np.ndarray = _log_density(target - mean_in, cov_in) - _log_density(
        target - mean_out, cov_out
    )
    return log_ratio


def _scatter(shadow: np.ndarray, mask: np.ndarray) -> _Group:
    """The group of the models that `mask` chooses."""
    weight = mask.astype(np.float64)
    count = weight.sum(axis=0)
    mean = np.einsum("mp,mpa->pa", weight, shadow) / np.maximum(count, 1.0)[:, None]
    scatter = np.empty((*mean.shape, mean.shape[1]))
    for point in range(len(mean)):  # A x A products: one call of BLAS for each point
        rest = shadow[mask[:, point], point] - mean[point]
        scatter[point] = rest.T @ rest
    return count, mean, scatter


def _filled(inside: _Group, outside: _Group) -> tuple[np.ndarray, np.ndarray]:
    """Means IN and OUT; a missing one is the other moved by the average shift."""
    (n_in, mean_in, _), (n_out, mean_out, _) = inside, outside
    weight = n_in * n_out / (n_in + n_out)
    missing_in, missing_out = (n_in == 0)[:, None], (n_out == 0)[:, None]
    if not weight.any():
        raise ValueError(
            "Expected some point with both IN and OUT shadow models, got none: do the masks "
            "belong to these models?"
        )
    shift = weight @ (mean_in - mean_out) / weight.sum()
    return (
        np.where(missing_in, mean_out + shift, mean_in),
        np.where(missing_out, mean_in - shift, mean_out),
    )


def _covariance(group: _Group, other: _Group, prior_weight: float) -> np.ndarray:
    """Covariances [points, A, A], with `prior_weight` pseudo-observations of that of all points."""
    count, _, scatter = group
    free = np.maximum(count - 1, 0).sum()
    if free == 0:  # no point has two shadows of this kind: take the other kind's
        free, scatter_all = np.maximum(other[0] - 1, 0).sum(), other[2].sum(axis=0)
    else:
        scatter_all = scatter.sum(axis=0)
    usual = scatter_all / max(free, 1.0)
    size = np.trace(usual) / len(usual)
    check_varies(size > 0)
    usual = usual + 1e-9 * size * np.eye(
        len(usual)
    )  # keeps the matrix of equal augmentations invertible
    prior_weight = max(prior_weight, 1e-9)
    alone = (count < 2)[:, None, None]
    covariance: np.ndarray = np.where(
        alone, usual, (scatter + prior_weight * usual) / (count + prior_weight)[:, None, None]
    )
    return covariance


def _log_density(rest: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Log density of a centred multivariate normal at `rest` [points, A], up to a constant."""
    lower = np.linalg.cholesky(cov)
    white = np.linalg.solve(lower, rest[..., None])[..., 0]
    log_det = 2 * np.log(np.diagonal(lower, axis1=-2, axis2=-1)).sum(axis=-1)
    log_density: np.ndarray = -0.5 * ((white**2).sum(axis=-1) + log_det)
    return log_density
