"""RMIA, the robust membership inference attack: a point against many other points.

Source: Zarifzadeh, Liu and Shokri, "Low-cost high-power membership inference attacks", ICML 2024
(arXiv 2312.03262): equations 2 to 4, and appendix B.2.2 for the offline approximation.
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.common import check_finite, check_inputs, check_mask, moments_of
from mico_competition.attacks.groups import usual_shift


def rmia(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    population: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None,
    gamma: float = 1.0,
    offline_a: float = 0.3,
    online: bool = True,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The share of population points z that the point beats: Pr_z[LR(x, z) >= gamma].

    LR(x, z) = (p(x | target) / p(x)) / (p(z | target) / p(z)).  p(x) is the mean of the mean IN
    and the mean OUT probability (online), or ((1 + a) p_out + (1 - a)) / 2 (offline), with which
    also a point that has no IN shadows is treated.

    Args:
        target: float[points] or float[targets, points]: probability of the true class, [0, 1].
        shadow: float[models, points], the same.
        is_member: bool[models, points].
        population: (target at z, shadow at z, members at z): float[..., z] with the target's
            leading shape, float[models, z], bool[models, z] or None if no shadow saw any z.
            Points that the target did not train on.  None: the points themselves stand for the
            population (half of MICO's challenge points are members, so scores are lower, in
            nearly the same order).
        gamma: how far the point must beat z; >= 1 in the paper, any number > 0 here.
        offline_a: a of the offline approximation, in [0, 1]: near 1 if training changes little.
        online: use IN shadows where there are any.
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape, in [0, 1], multiples of 1/z.  For a point without OUT shadows
        p_out is p_in less the usual shift between the two (less 0 if no point has both).

    Raises:
        ValueError: on bad input; on probabilities outside [0, 1].

    >>> shadow, seen = np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[True] * 2, [False] * 2])
    >>> rmia(np.array([0.9, 0.1]), shadow, seen)
    array([1. , 0.5])
    """
    if not gamma > 0 or not 0 <= offline_a <= 1:
        raise ValueError(
            f"Expected gamma > 0 and 0 <= offline_a <= 1, got {gamma} and {offline_a}."
        )
    options = (online, offline_a, target_index)
    ratio = _log_ratio(target, shadow, is_member, *options)
    if population is None:
        others = ratio
    else:
        if target_index is not None and np.ndim(target_index) == 1 and np.ndim(target) == 1:
            raise ValueError(
                "Expected one target at a time with a population, got points of several end to end."
            )
        asked = _population(population, np.ndim(target), np.shape(shadow)[0])
        others = _log_ratio(*asked, *options)
    return _share_beaten(ratio - np.log(gamma), others)


def _population(
    population: tuple[np.ndarray, np.ndarray, np.ndarray | None], ndim: int, models: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, shadows and members at z, of a target of `ndim` dimensions and so many shadows."""
    target_z, shadow_z, member_z = (None if a is None else np.asarray(a) for a in population)
    if target_z is None or shadow_z is None or target_z.ndim != ndim:
        raise ValueError("Expected population to be (target at z, shadow at z, members at z).")
    if shadow_z.shape[:1] != (models,):
        raise ValueError(
            f"Expected the population's signals from the same {models} shadow models, got those "
            f"of shape {shadow_z.shape}."
        )
    if member_z is None:
        member_z = np.zeros(shadow_z.shape, dtype=bool)
    return target_z, shadow_z, member_z


def _log_ratio(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    online: bool,
    offline_a: float,
    target_index: int | np.ndarray | None,
) -> np.ndarray:
    """log p(x | target) - log p(x)."""
    is_member = check_mask(is_member, np.shape(shadow))
    inputs = check_inputs(target, shadow, is_member, target_index)
    for name, array in (("target", inputs.target), ("shadow", inputs.shadow)):
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"Expected probabilities in [0, 1] in {name}, got {array.min()}..{array.max()}: "
                "RMIA takes confidences, not losses or logits."
            )
    m = moments_of(inputs)
    mean_out = m.mean_out
    if (m.n_out == 0).any():
        some_both = ((m.n_in > 0) & (m.n_out > 0)).any(axis=-1).all()
        shift = usual_shift(m) if some_both else 0.0
        mean_out = np.where(m.n_out > 0, mean_out, np.clip(m.mean_in - shift, 0.0, 1.0))
    prior = ((1 + offline_a) * mean_out + (1 - offline_a)) / 2
    if online:
        prior = np.where(m.n_in > 0, (m.mean_in + mean_out) / 2, prior)
    tiny = np.finfo(np.float64).tiny  # a probability of 0 beats nothing, but is no infinity
    return np.log(np.maximum(inputs.target, tiny)) - np.log(np.maximum(prior, tiny))


def _share_beaten(ratio: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each ratio the share of its target's `others` that are not above it."""
    check_finite("the ratios", ratio)
    # x / z >= 1 must hold for x = z, whatever the rounding of the logarithms.
    slack = 1e-12
    rows, against = np.atleast_2d(ratio), np.sort(np.atleast_2d(others), axis=-1)
    found = [np.searchsorted(z, x + slack, side="right") for x, z in zip(rows, against)]
    return (np.array(found) / against.shape[-1]).reshape(ratio.shape)
