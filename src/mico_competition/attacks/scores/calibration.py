"""Calibration by a record's shadow models, and the formulas of 2023's winner.

The formulas are in docs/METHODS.md, section 4.2 (formula 14).  Sources: Watson, Guo, Cormode and
Sablayrolles, "On the importance of difficulty calibration in membership inference attacks", ICLR
2022 (arXiv 2111.08440), section 3; the winner's published solution (tianjian10/MICO, src2).

The winner chose his formulas by looking at the models that he reported; `mico evaluate` leaves
models out instead.  He left each train model out of its own shadow models, and one min-max served
all models of a phase; both are as here (`target_index`, `to_unit`).
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.scores.common import check_inputs, check_varies, moments_of
from mico_competition.attacks.scores.groups import filled_means

FORMULAS = ("in", "midpoint", "standardised")

WINNER_2023 = {
    "cifar10_inf": ("loss", "in"),
    "cifar10_hi": ("confidence", "in"),
    "cifar10_lo": ("confidence", "in"),
    "purchase100_inf": ("confidence", "midpoint"),
    "purchase100_hi": ("loss", "standardised"),
    "purchase100_lo": ("loss", "standardised"),
    "sst2_inf": ("loss", "in"),
    "sst2_hi": ("loss", "in"),
    "sst2_lo": ("loss", "in"),
    "cifar10_ddp": ("confidence", "in"),
    "purchase100_ddp": ("confidence", "in"),
    "sst2_ddp": ("confidence", "in"),
}
"""The signal and the formula that the winner of 2023 chose for each scenario.

"loss" is minus the cross-entropy.

>>> WINNER_2023["purchase100_hi"]
('loss', 'standardised')
"""


def calibrate(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    centre: str = "out",
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The target's signal less the mean of reference models at the same point.

    Args:
        target: float[points] or float[targets, points]; larger = more likely a member.
        shadow: float[models, points].
        is_member: bool[models, points].
        centre: "out": the mean of models that did not see the point (Watson et al., equation 1);
            "in": of those that did; "midpoint": halfway; "all": of all.
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape, in the signal's unit.  Where a point has no shadow of the
        kind, the mean of the other kind moved by the shift that is usual over all points.

    Raises:
        ValueError: on bad input; if a mean is missing and no point has both kinds.

    >>> shadow, seen = np.array([[0.5], [0.9]]), np.array([[False], [True]])
    >>> calibrate(np.array([0.8]), shadow, seen).round(6)
    array([0.3])
    """
    inputs = check_inputs(target, shadow, is_member, target_index)
    moments = moments_of(inputs)
    if centre == "all":
        distance: np.ndarray = inputs.target - moments.mean_all
        return distance
    if centre not in ("in", "out", "midpoint"):
        raise ValueError(f'Expected centre "out", "in", "midpoint" or "all", got {centre!r}.')
    needed = ("in", "out") if centre == "midpoint" else (centre,)
    mean_in, mean_out = filled_means(moments, needed=needed)
    middle = (mean_in + mean_out) / 2
    from_centre: np.ndarray = (
        inputs.target - {"in": mean_in, "out": mean_out, "midpoint": middle}[centre]
    )
    return from_centre


def winner_2023(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    formula: str,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The 2023 winner's score, equal to his program's up to rounding.

    Args:
        target: float[points] or float[targets, points]: minus the cross-entropy, or confidence
            (`WINNER_2023` says which he used where).
        shadow: float[models, points], the same signal.
        is_member: bool[models, points].
        formula: "in": s - mu_in; "midpoint": s - (mu_in + mu_out) / 2; "standardised":
            (s - mu_all) / sigma_all, sigma with n - 1.
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape.  With fewer than two OUT models at a point he put the IN
        models in their place: the midpoint is then mu_in, and mu_all and sigma_all are those of
        the IN models taken twice.  Two cases in which his program gave NaN are decided: without
        IN models the OUT models serve as both; without spread the score is s - mu_all over the
        median sigma of the points (of the target's own shadows, where it is left out of them).

    Raises:
        ValueError: on bad input; if "standardised" finds no spread at any point of a target.

    >>> shadow = np.array([[2.0, 0.0], [2.2, 0.1], [0.0, 1.9], [0.1, 2.1]])
    >>> is_member = shadow > 1
    >>> target = np.array([2.1, 0.0])
    >>> winner_2023(target, shadow, is_member, formula="standardised").round(1).tolist()
    [0.9, -0.9]
    """
    if formula not in FORMULAS:
        raise ValueError(f"Expected formula in {FORMULAS}, got {formula!r}.")
    inputs = check_inputs(target, shadow, is_member, target_index)
    m = moments_of(inputs)
    no_in = m.n_in == 0
    mean_in = np.where(no_in, m.mean_out, m.mean_in)
    if formula == "in":
        from_mean: np.ndarray = inputs.target - mean_in
        return from_mean
    replaced = (m.n_out < 2) & ~no_in
    if formula == "midpoint":
        middle = (mean_in + np.where(replaced, mean_in, m.mean_out)) / 2
        from_middle: np.ndarray = inputs.target - middle
        return from_middle
    mean_all = np.where(replaced, m.mean_in, m.mean_all)
    squares = np.where(replaced, 2 * m.ss_in, m.ss_all)
    count = np.where(replaced, 2 * m.n_in, m.n)
    sigma = np.sqrt(squares / np.maximum(count - 1, 1.0))
    spread = sigma > 1e-14 * np.abs(mean_all)
    check_varies(bool(spread.any(axis=-1).all()))
    if not spread.all():
        usual = np.nanmedian(np.where(spread, sigma, np.nan), axis=-1, keepdims=True)
        sigma = np.where(spread, sigma, usual)
    standardised: np.ndarray = (inputs.target - mean_all) / sigma
    return standardised
