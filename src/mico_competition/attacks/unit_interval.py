"""Scores of all models of a phase into [0, 1], by one monotone map.

Predictions are pooled over models when scored, so one threshold must mean the same for each. 2022's
kit and the SST-2 runner-up scaled each model's scores separately, which loses the calibration; the
winner took one min-max over the phase, which is right.

The mathematics is in docs/METHODS.md, section 2.3 (formula 6).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def to_unit(scores: Sequence[np.ndarray] | np.ndarray, method: str = "rank") -> list[np.ndarray]:
    """Map all scores of a phase into [0, 1] by one function that keeps their order.

    Args:
        scores: one float[points] for each model of the phase (or float[models, points]), in the
            order of the models. Pass all models of a phase together, since the function depends on
            them.
        method: "rank": the mean rank among all scores, safe with outliers and infinities;
            "minmax": (s - min) / (max - min), as the 2023 winner's.

    Returns:
        One float[points] a model, in [0, 1]: a < b stays a <= b (with "rank", a < b), equal stays
        equal.  Where all scores are equal, all are 0.5.

    Raises:
        ValueError: on NaN, on no scores, on infinite scores with "minmax".

    >>> [row.tolist() for row in to_unit([np.array([5.0, -1.0]), np.array([0.0])])]
    [[1.0, 0.0], [0.5]]
    """
    if isinstance(scores, np.ndarray) and scores.ndim < 2:
        raise ValueError(
            "Expected the scores of all models of a phase, one array each, got one flat array: "
            "give [scores] if the phase has one model."
        )
    parts = [np.asarray(part, dtype=np.float64) for part in scores]
    if not parts or any(part.ndim != 1 or part.size == 0 for part in parts):
        raise ValueError("Expected at least one model with one score for each of its points.")
    for model, part in enumerate(parts):
        if np.isnan(part).any():
            raise ValueError(f"Expected numbers for scores, got NaN in those of model {model}.")
    everything = np.concatenate(parts)
    if method == "rank":
        unit = _ranks(everything)
    elif method == "minmax":
        unit = _stretched(everything)
    else:
        raise ValueError(f'Expected method "rank" or "minmax", got {method!r}.')
    return np.split(unit, np.cumsum([part.size for part in parts])[:-1])


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Mean ranks over [0, 1], equal scores equal."""
    if scores.size == 1:
        return np.array([0.5])
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts + 1) / 2  # mean of the 0-based ranks of each tie
    ranks: np.ndarray = middle[where] / (scores.size - 1)
    return ranks


def _stretched(scores: np.ndarray) -> np.ndarray:
    """(s - min) / (max - min)."""
    if not np.isfinite(scores).all():
        raise ValueError('Expected finite scores for "minmax", got infinite: take "rank".')
    low, high = scores.min(), scores.max()
    if low == high:
        return np.full(scores.shape, 0.5)
    span = high / 2 - low / 2  # halves, as the difference of two large numbers may overflow
    stretched: np.ndarray = np.clip((scores / 2 - low / 2) / span, 0.0, 1.0)
    return stretched
