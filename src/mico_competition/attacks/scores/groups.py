"""The IN and the OUT distribution of every record, also with few shadow models.

The SST-2 scenarios of MICO leave about 1.3 OUT models for each record, and none for some. A missing
mean is the other group's mean plus the average shift between the two, and a missing variance comes
from all records; with `prior_weight` > 0 all means and variances are shrunk towards these. No
result is NaN. The formulas are in docs/METHODS.md, section 4.1 (formulas 12 and 13).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.scores.common import Moments, check_varies

CONSTANT = 1e-12  # a variance below this share of the average counts as constant, thus unknown


@dataclass(frozen=True)
class Usual:
    """Variances within the groups over all points: float[1], or float[targets, 1]."""

    var_in: np.ndarray
    var_out: np.ndarray


@dataclass(frozen=True)
class Groups:
    """Mean and variance of the signal, IN and OUT; finite, variances > 0."""

    mean_in: np.ndarray
    mean_out: np.ndarray
    var_in: np.ndarray
    var_out: np.ndarray


def usual(moments: Moments) -> Usual:
    """Within-group variances, pooled over all points.

    A group with no two shadows at any point takes the other group's variance.

    Raises:
        ValueError: if signals do not vary between models, or no point has two models of one kind.
    """

    def pooled(ss: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        free = np.maximum(n - 1, 0).sum(axis=-1, keepdims=True)
        return ss.sum(axis=-1, keepdims=True) / np.maximum(free, 1), free

    var_in, free_in = pooled(moments.ss_in, moments.n_in)
    var_out, free_out = pooled(moments.ss_out, moments.n_out)
    if ((free_in == 0) & (free_out == 0)).any():
        raise ValueError(
            "Expected two shadow models of one kind (both IN or both OUT) at some point, got none: "
            "a variance needs more shadow models (calibration.calibrate does with one)."
        )
    largest = np.maximum(np.abs(moments.mean_in), np.abs(moments.mean_out)).max()
    check_varies(not (np.maximum(var_in, var_out) <= (1e-14 * largest) ** 2).any())
    var_in, var_out = (
        np.where(var_in <= CONSTANT * var_out, var_out, var_in),
        np.where(var_out <= CONSTANT * var_in, var_in, var_out),
    )
    return Usual(var_in, var_out)


def usual_shift(moments: Moments, needed: tuple[str, ...] = ("in", "out")) -> np.ndarray:
    """Mean IN - mean OUT over all points, weighted by their information: n_in n_out / n.

    Args:
        needed: the kinds whose means the attack uses.

    Returns:
        float[1] or float[targets, 1]; 0 if no point has both kinds and no needed mean is missing.

    Raises:
        ValueError: if a point has no shadow of a needed kind, and no point has both.
    """
    weight = moments.n_in * moments.n_out / moments.n
    total = weight.sum(axis=-1, keepdims=True)
    lacking = [kind for kind in needed if (getattr(moments, f"n_{kind}") == 0).any()]
    if lacking and (total == 0).any():
        raise ValueError(
            f"Expected some point with both IN and OUT shadow models, got none, so the shift "
            f"between them is unknown for {lacking[0].upper()}: do the masks belong to these "
            f"models?"
        )
    gap = (weight * (moments.mean_in - moments.mean_out)).sum(axis=-1, keepdims=True)
    shift: np.ndarray = gap / np.maximum(total, 1e-300)
    return shift


def filled_means(
    moments: Moments, prior_weight: float = 0.0, needed: tuple[str, ...] = ("in", "out")
) -> tuple[np.ndarray, np.ndarray]:
    """Means IN and OUT; a missing one is the other moved by the average shift.

    Args:
        prior_weight: with this many pseudo-observations each mean is shrunk towards the other
            group's mean moved by the shift; 0 changes only the missing ones.
        needed: the kinds whose means the attack uses; the other may be any number.

    Raises:
        ValueError: as `usual_shift`.
    """
    none_in, none_out = moments.n_in == 0, moments.n_out == 0
    shift = usual_shift(moments, needed)

    def fill(n: np.ndarray, mean: np.ndarray, prior: np.ndarray, empty: np.ndarray) -> np.ndarray:
        # If the other group is empty, there is nothing to shrink towards.
        weight = np.where(n == 0, max(prior_weight, 1.0), np.where(empty, 0.0, prior_weight))
        shrunk: np.ndarray = (n * mean + weight * prior) / (n + weight)
        return shrunk

    mean_in = fill(moments.n_in, moments.mean_in, moments.mean_out + shift, none_out)
    mean_out = fill(moments.n_out, moments.mean_out, moments.mean_in - shift, none_in)
    return mean_in, mean_out


def shrunk(
    moments: Moments,
    *,
    prior_weight: float = 0.0,
    variance: str = "point",
    needed: tuple[str, ...] = ("in", "out"),
) -> Groups:
    """Means and variances of every point, shrunk towards those of all points.

    Args:
        moments: of the shadows.
        prior_weight: the number of pseudo-observations; 0 keeps the mean and the variance (divided
            by n) of the point's own shadows where they are defined, as in the papers.
        variance: "point": separate variances of the point's IN and OUT shadows; "pooled": one
            variance of both; "global": one variance within the groups for all points; "raw_global":
            one variance of all values, including differences between points, as in Carlini et al.'s
            published code and the 2023 runner-up's.
        needed: the kinds that the attack uses.

    Returns:
        Groups in which a group of fewer than two shadows, or of constant ones, has the pooled
        variance, and an empty group the other's mean moved by the average shift.

    Raises:
        ValueError: as `usual` and `filled_means`; on an unknown `variance` or a negative weight.
    """
    if not prior_weight >= 0:
        raise ValueError(f"Expected shrinkage >= 0 pseudo-observations, got {prior_weight}.")
    common = usual(moments)
    mean_in, mean_out = filled_means(moments, prior_weight, needed)
    m = moments
    if variance == "point":
        var_in = _own(m.ss_in, m.n_in, m.n_in >= 2, common.var_in, prior_weight)
        var_out = _own(m.ss_out, m.n_out, m.n_out >= 2, common.var_out, prior_weight)
    elif variance == "pooled":
        n = np.maximum(m.n_in - 1, 0) + np.maximum(m.n_out - 1, 0)
        prior = (common.var_in + common.var_out) / 2
        var_in = var_out = _own(m.ss_in + m.ss_out, n, n >= 1, prior, prior_weight)
    elif variance == "global":
        var_in, var_out = common.var_in, common.var_out
    elif variance == "raw_global":
        var_in = _spread(m.ss_in, m.n_in, m.mean_in, common.var_in)
        var_out = _spread(m.ss_out, m.n_out, m.mean_out, common.var_out)
    else:
        raise ValueError(
            f'Expected variance "point", "pooled", "global" or "raw_global", got {variance!r}.'
        )
    return Groups(mean_in, mean_out, var_in, var_out)


def _own(
    ss: np.ndarray, n: np.ndarray, known: np.ndarray, prior: np.ndarray, prior_weight: float
) -> np.ndarray:
    """A point's variance with `prior_weight` pseudo-observations of the pooled one."""
    var = (ss + prior_weight * prior) / np.maximum(n + prior_weight, 1e-300)
    return np.where(known & (var > CONSTANT * prior), var, prior)


def _spread(ss: np.ndarray, n: np.ndarray, mean: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The variance (divided by n) of all values of a group over all points."""
    total = n.sum(axis=-1, keepdims=True)
    safe = np.maximum(total, 1)
    grand = (n * mean).sum(axis=-1, keepdims=True) / safe
    var = (ss + n * (mean - grand) ** 2).sum(axis=-1, keepdims=True) / safe
    return np.where((total >= 2) & (var > CONSTANT * prior), var, prior)


def log_normal(x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Log density of a normal distribution."""
    log_density: np.ndarray = -0.5 * (np.log(2 * np.pi * var) + (x - mean) ** 2 / var)
    return log_density
