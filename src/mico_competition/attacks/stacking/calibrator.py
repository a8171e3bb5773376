"""The calibrator: how unusual a model's signal at a record is among those of shadow models.

Every learned attack starts from two forms of a signal: its standard score, and its empirical-Bayes
log likelihood ratio (docs/METHODS.md, section 5.1, formulas 32 and 33). A shadow model that serves
as pseudo-target is left out of its own reference, so no form of its signal depends on its own
labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.scores.common import (
    Moments,
    check_inputs,
    check_varies,
    moments_of,
)
from mico_competition.attacks.scores.empirical_bayes import NU0, eb_likelihood_ratio
from mico_competition.attacks.scores.groups import CONSTANT, shrunk

# Limits of a log likelihood ratio and of a standard score: larger values would dominate a linear
# stack.
CLIP_RATIO, CLIP_SCORE = 12.0, 8.0
AT_ONCE = 1 << 21  # numbers (models x records) in one block

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Calibrator:
    """Calibrates signals float[models, points] by their shadow models.

    Attributes:
        shadows: int64[s], ascending rows of the signals.
        is_member: bool[s, points].
        variance: what a point's variance is shrunk towards: the "median" or the "pooled" variance
            of all points. The results differ, and each measured attack uses one of them.
    """

    shadows: np.ndarray
    is_member: np.ndarray
    variance: str = "median"

    def log_ratio(self, signal: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32[r, points], the clipped empirical-Bayes log likelihood ratio.

        Args:
            signal: float[models, points].
            rows: int64[r]; shadows, each left out of its own reference, or none of them.
        """
        found = (
            eb_likelihood_ratio(*arrays, target_index=index)
            for arrays, index in self.blocks(signal, rows)
        )
        return _joined(found, CLIP_RATIO)

    def standard_score(self, signal: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32[r, points], (s - mean) / sd over the shadows, clipped; arguments as above."""
        found = (
            standard_score(*arrays, index, variance=self.variance)
            for arrays, index in self.blocks(signal, rows)
        )
        return _joined(found, CLIP_SCORE)

    def blocks(
        self, signal: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[Arrays, np.ndarray | None]]:
        """Blocks of (targets, shadows, mask), with the targets' rows in shadows or None."""
        own = np.isin(rows, self.shadows)
        if own.any() and not own.all():
            raise ValueError(
                "Expected rows to be shadows, or none of them: call it for each separately."
            )
        shadow = signal[self._shadow_rows(signal)]
        step = max(1, AT_ONCE // signal.shape[1])
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            index = np.searchsorted(self.shadows, part) if own.all() else None
            yield (signal[part], shadow, self.is_member), index

    def _shadow_rows(self, signal: np.ndarray) -> np.ndarray | slice:
        """The shadows, as a slice without a copy if they are consecutive.

        Sums over a view with another memory layout would round differently.
        """
        shadows = self.shadows
        if not len(shadows) or not signal.flags.c_contiguous or (np.diff(shadows) != 1).any():
            return shadows
        return slice(int(shadows[0]), int(shadows[-1]) + 1)


Form = Callable[[Calibrator, np.ndarray, np.ndarray], np.ndarray]


def standard_score(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    target_index: np.ndarray | None = None,
    *,
    variance: str = "median",
) -> np.ndarray:
    """(s - mean of all) / sd within groups, each variance shrunk towards that of all points.

    Args:
        target: float[targets, points].
        shadow: float[models, points].
        is_member: bool[models, points].
        target_index: rows of shadow that the targets are, to be left out.
        variance: as in `Calibrator`.

    Returns:
        float64[targets, points].

    Source: the 2023 winner's "standardised" score, with a variance that is robust with few shadows.
    """
    m = moments_of(check_inputs(target, shadow, is_member, target_index))
    var = _median_shrunk(m) if variance == "median" else _pooled_shrunk(m)
    standard: np.ndarray = (target - m.mean_all) / np.sqrt(var)
    return standard


def _median_shrunk(m: Moments) -> np.ndarray:
    free = np.maximum(m.n - (m.n_in > 0) - (m.n_out > 0), 0)
    within = m.ss_in + m.ss_out
    own = within / np.maximum(free, 1)
    usual = np.median(own, axis=-1, keepdims=True)
    # If most points are saturated, the median is 0; then take the mean of all.
    mean = own.mean(axis=-1, keepdims=True)
    usual = np.where(usual > CONSTANT * mean, usual, mean)
    check_varies(bool((usual > 0).all()))
    shrunk: np.ndarray = (within + NU0 * usual) / (free + NU0)
    return shrunk


def _pooled_shrunk(m: Moments) -> np.ndarray:
    return shrunk(m, prior_weight=NU0, variance="pooled").var_in


def _joined(parts: Iterator[np.ndarray], at: float) -> np.ndarray:
    return np.concatenate([np.clip(part, -at, at).astype(np.float32) for part in parts])
