"""Reference model attacks: compare the target with a model that was not trained on the point.

Source: the SST-2 runner-up of 2023 (W. Fleshman, wfleshman/MICO_SST). He trained one reference for
each target, without privacy, on all records but the target's challenge points, and took the
difference of the probabilities of the true class. He also scaled each model's scores to [0, 1]
separately, which is not repeated here (`to_unit` maps all models of a phase together).

The mathematics is in docs/METHODS.md, section 4.3 (formula 15).
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.scores.calibration import calibrate
from mico_competition.attacks.scores.common import check_inputs


def out_reference(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    references: int = 1,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The same with the first OUT shadows of each point as its references.

    Args:
        target: float[points] or float[targets, points].
        shadow: float[models, points].
        is_member: bool[models, points].
        references: the maximal number of OUT shadows, >= 1.
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape. A point without any OUT shadow is calibrated by the mean of its
        IN shadows minus the average shift between the two.

    Raises:
        ValueError: on bad input; if no point has both IN and OUT shadows and one lacks OUT.

    >>> shadow = np.array([[2.0, 0.0], [2.2, 0.1], [0.0, 1.9], [0.1, 2.1]])
    >>> is_member = shadow > 1
    >>> out_reference(np.array([2.1, 0.0]), shadow, is_member, references=2).round(2).tolist()
    [2.05, -0.05]
    """
    if references < 1:
        raise ValueError(f"Expected references >= 1, got {references}.")
    inputs = check_inputs(target, shadow, is_member, target_index)
    points = np.arange(inputs.shadow.shape[1])
    usable = ~inputs.is_member
    rank = np.cumsum(usable, axis=0)
    if inputs.own is None:
        taken = usable & (rank <= references)
        total = np.where(taken, inputs.shadow, 0.0).sum(axis=0)
        count = taken.sum(axis=0)
    else:
        # If the target is among the first, one more is used.
        own_out = usable[inputs.own, points]
        first = own_out & (rank[inputs.own, points] <= references)
        taken, more = usable & (rank <= references), usable & (rank == references + 1)
        base = np.where(taken, inputs.shadow, 0.0).sum(axis=0)
        next_value = np.where(more, inputs.shadow, 0.0).sum(axis=0)
        total = base + first * (next_value - inputs.shadow[inputs.own, points])
        count = taken.sum(axis=0) + first * (more.any(axis=0) - 1)
    score: np.ndarray = inputs.target - total / np.maximum(count, 1)
    if (count == 0).any():
        usual = calibrate(target, shadow, is_member, centre="out", target_index=target_index)
        score = np.where(count == 0, usual, score)
    return score
