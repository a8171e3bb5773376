"""RMIA, the robust membership inference attack, which compares a record with many others.

The formulas are in docs/METHODS.md, section 4.7 (formulas 21 and 22). Source: Zarifzadeh, Liu and
Shokri, "Low-cost high-power membership inference attacks", ICML 2024 (arXiv 2312.03262), equations
2 to 4, and appendix B.2.2 for the offline approximation, whose parameter is chosen there, as here,
on shadow models as pseudo-targets.
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.scores.common import (
    Inputs,
    check_finite,
    check_inputs,
    check_mask,
    moments_of,
)
from mico_competition.attacks.scores.groups import usual_shift

CANDIDATES = np.arange(11) / 10  # values of a
RATES = np.arange(1, 21) / 100  # false positive rates for the choice of a
USUAL_A = 0.3  # a if there are too few shadow models to choose it
STAND_INS = 16  # maximal number of shadow models for the choice of a
STAND_IN_POINTS = 1000  # maximal number of points of each


def rmia(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    population: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None,
    gamma: float = 1.0,
    offline_a: float | None = None,
    online: bool = True,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The share of population points z with a smaller ratio: Pr_z[LR(x, z) >= gamma].

    LR(x, z) = (p(x | target) / p(x)) / (p(z | target) / p(z)). p(x) is the mean of the mean IN and
    the mean OUT probability (online), or ((1 + a) p_out + (1 - a)) / 2 (offline), which also
    applies to a point without IN shadows.

    Args:
        target: float[points] or float[targets, points]: probability of the true class, [0, 1].
        shadow: float[models, points], the same.
        is_member: bool[models, points].
        population: (target at z, shadow at z, members at z): float[..., z] with the target's
            leading shape, float[models, z], bool[models, z] or None if no shadow saw any z. Points
            outside the target's training set. None: the points themselves are the population (half
            of MICO's challenge points are members, so scores are lower, in nearly the same order).
        gamma: how far the point must beat z; >= 1 in the paper, any number > 0 here.
        offline_a: a of the offline approximation, in [0, 1]: near 1 if training changes little.
            None: the choice of `choose_offline_a`.
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
    if not gamma > 0 or not (offline_a is None or 0 <= offline_a <= 1):
        raise ValueError(
            f"Expected gamma > 0 and 0 <= offline_a <= 1, got {gamma} and {offline_a}."
        )
    is_member = check_mask(is_member, np.shape(shadow))
    a: np.ndarray | float = USUAL_A if offline_a is None else offline_a
    if offline_a is None and not (online and _all_have_in(is_member, population, target_index)):
        a = _chosen(check_inputs(target, shadow, is_member, target_index))
    options = (online, a, target_index)
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


def choose_offline_a(
    shadow: np.ndarray, is_member: np.ndarray, *, leave_out: int | None = None
) -> float:
    """The a with the best offline attacks on shadow models by the other shadow models.

    Args:
        shadow: float[models, points]: probability of the true class, [0, 1].
        is_member: bool[models, points].
        leave_out: the target's row, which is not used.

    Returns:
        The value of 0, 0.1, ..., 1 with the largest mean TPR over false positive rates up to 20 %
        and over up to 16 shadow models at up to 1,000 points each (the AUC, dominated by larger
        rates, prefers an a that is too large at 10 %); of equal values the middle one; 0.3 if no
        shadow model can be attacked by the others.
    """
    every = -(-shadow.shape[1] // STAND_IN_POINTS)
    rows = np.delete(np.arange(len(shadow)), [] if leave_out is None else leave_out)
    p = shadow[rows, ::every].astype(np.float64)
    seen = is_member[rows, ::every]
    total, count = np.where(seen, 0.0, p).sum(axis=0), (~seen).sum(axis=0)
    found = []
    for row in np.unique(np.linspace(0, len(rows) - 1, min(STAND_INS, len(rows))).astype(int)):
        others = count - ~seen[row]
        known = others > 0
        mean_out = (total - np.where(seen[row], 0.0, p[row]))[known] / others[known]
        members = seen[row, known]
        if members.all() or not members.any():
            continue
        prior = _offline_prior(mean_out, CANDIDATES[:, None])
        found.append(_mean_tpr(_log(p[row, known]) - _log(prior), members))
    if not found:
        return USUAL_A
    mean = np.mean(found, axis=0)
    best = np.flatnonzero(mean >= mean.max() - 1e-12)
    return float(CANDIDATES[best[len(best) // 2]])


def _chosen(inputs: Inputs) -> np.ndarray | float:
    """a for all targets; with targets left out float[targets, 1], or float[points] end to end."""
    if inputs.own is None:
        return choose_offline_a(inputs.shadow, inputs.is_member)
    own = inputs.own if (inputs.own != inputs.own[..., :1]).any() else inputs.own[..., :1]
    rows, place = np.unique(own, return_inverse=True)
    found = [choose_offline_a(inputs.shadow, inputs.is_member, leave_out=row) for row in rows]
    return np.array(found)[place].reshape(own.shape)


def _all_have_in(
    is_member: np.ndarray,
    population: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None,
    target_index: int | np.ndarray | None,
) -> bool:
    """Whether every point has IN shadow models besides the target, so that a is not needed."""
    masks = [is_member] if population is None else [is_member, population[2]]
    least = 1 if target_index is None else 2
    return all(mask is not None and np.asarray(mask).sum(axis=0).min() >= least for mask in masks)


def _mean_tpr(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """float[candidates], the mean TPR of one model's scores over `RATES`, each at most.

    Args:
        scores: float[candidates, points].
        members: bool[points].
    """
    outside = np.sort(scores[:, ~members], axis=1)
    at = outside[:, -1 - (RATES[::-1] * outside.shape[1]).astype(int)]  # ascending
    below = [np.searchsorted(t, x).mean() for t, x in zip(at, scores[:, members])]
    return np.array(below) / len(RATES)


def _offline_prior(mean_out: np.ndarray, a: np.ndarray | float) -> np.ndarray:
    """p(x), with p_in approximated by a p_out + 1 - a."""
    return ((1 + a) * mean_out + (1 - a)) / 2


def _log(p: np.ndarray) -> np.ndarray:
    """The logarithm; finite for a probability of 0."""
    log_p: np.ndarray = np.log(np.maximum(p, np.finfo(np.float64).tiny))
    return log_p


def _population(
    population: tuple[np.ndarray, np.ndarray, np.ndarray | None], ndim: int, models: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, shadows and members at z, checked against the target and its shadows."""
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
    a: np.ndarray | float,
    target_index: int | np.ndarray | None,
) -> np.ndarray:
    """log p(x | target) - log p(x)."""
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
    prior = _offline_prior(mean_out, a)
    if online:
        prior = np.where(m.n_in > 0, (m.mean_in + mean_out) / 2, prior)
    log_ratio: np.ndarray = _log(inputs.target) - _log(prior)
    return log_ratio


def _share_beaten(ratio: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each ratio the share of its target's `others` that do not exceed it."""
    check_finite("the ratios", ratio)
    # x / z >= 1 must hold for x = z, whatever the rounding of the logarithms.
    slack = 1e-12
    rows, against = np.atleast_2d(ratio), np.sort(np.atleast_2d(others), axis=-1)
    found = [np.searchsorted(z, x + slack, side="right") for x, z in zip(rows, against)]
    shares: np.ndarray = (np.array(found) / against.shape[-1]).reshape(ratio.shape)
    return shares
