"""Signals of all models at all records -> features of membership, each model left out of its own.

Each signal gives two features: docs/METHODS.md, section 5.1 (formulas 32 and 33).  A shadow model
that plays the target for the stack is left out of its own reference, so no feature of it has seen a
label of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import check_inputs, moments_of
from mico_competition.attacks.scores.empirical_bayes import NU0, eb_likelihood_ratio
from mico_competition.attacks.scores.groups import shrunk
from mico_competition.attacks.stacking.logistic import CLIP_RATIO, CLIP_U, Logistic, fit_logistic

RANDOM = 2000  # records of each shadow, beside its challenge points, that the stack learns from
STRENGTH = 0.003  # C of the stack
AT_ONCE = 2_000_000  # numbers (models x records) handled at once

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
Feature = Callable[[Problem, np.ndarray, np.ndarray], np.ndarray]


def log_ratio(problem: Problem, signal: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32[r, N], the clipped empirical-Bayes ratio at all records.

    Args:
        problem: whose shadows are the reference.
        signal: float[models, N].
        rows: int64[r]; a shadow among them is left out of its own reference.
    """
    out = []
    for arrays, own in parts(problem, signal, rows):
        out.append(_clipped(eb_likelihood_ratio(*arrays, target_index=own), CLIP_RATIO))
    return np.concatenate(out)


def deviation(problem: Problem, signal: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32[r, N], (s - mean) / sd of the shadows, clipped; arguments as `log_ratio`.

    Each variance is drawn to the pooled one of all points; `learned.table.standard_score` draws
    it to their median, so the two are other features and give other numbers.
    """
    out = []
    for arrays, own in parts(problem, signal, rows):
        moments = moments_of(check_inputs(*arrays, own))
        var = shrunk(moments, strength=NU0, variance="pooled").var_in
        out.append(_clipped((arrays[0] - moments.mean_all) / np.sqrt(var), CLIP_U))
    return np.concatenate(out)


def _clipped(part: np.ndarray, at: float) -> np.ndarray:
    return np.clip(part, -at, at).astype(np.float32)


def parts(
    problem: Problem, signal: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[Arrays, np.ndarray | None]]:
    """Targets, shadows and mask, with the targets' places among the shadows or None, in parts."""
    shadow, is_member = signal[problem.shadows], problem.is_member
    own = np.isin(rows, problem.shadows)
    if own.any() and not own.all():
        raise ValueError("Expected rows to be shadows, or none of them: ask for each apart.")
    step = max(1, AT_ONCE // signal.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        place = np.searchsorted(problem.shadows, part) if own.all() else None
        yield (signal[part], shadow, is_member), place


def learning_columns(problem: Problem, seed: int = 0) -> np.ndarray:
    """int64[s, k], where each shadow teaches the stack: its challenge points and some others."""
    challenge = problem.source.fleet.challenge[problem.shadows]
    total = problem.known_membership.shape[1]
    generator = np.random.default_rng(seed)
    free = min(RANDOM, total - challenge.shape[1])
    return np.stack(
        [
            np.concatenate([own, generator.permutation(np.setdiff1d(np.arange(total), own))[:free]])
            for own in challenge
        ]
    )


class Stack:
    """Features at the shadows' learning columns and at the targets' points, side by side."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.columns = learning_columns(problem)
        known_membership = np.take_along_axis(
            problem.known_membership[problem.shadows], self.columns, axis=1
        )
        self.labels = known_membership.ravel() == 1
        self._shadow: list[np.ndarray] = []
        self._target: list[np.ndarray] = []

    def add(self, shadow: np.ndarray, target: np.ndarray) -> None:
        """One feature: float[s, N] and float[t, N]."""
        self._shadow.append(np.take_along_axis(shadow, self.columns, axis=1).ravel())
        self._target.append(np.take_along_axis(target, self.problem.columns, axis=1))

    def add_signal(
        self, signal: np.ndarray, kinds: Sequence[Feature] = (log_ratio, deviation)
    ) -> None:
        """Features of a signal float[models, N], by default both."""
        for kind in kinds:
            self.add(
                kind(self.problem, signal, self.problem.shadows),
                kind(self.problem, signal, self.problem.targets),
            )

    def fit(self) -> Logistic:
        """The regression on what was added."""
        return fit_logistic(np.stack(self._shadow, axis=1), self.labels, STRENGTH)

    def scores(self) -> np.ndarray:
        """float64[t, k], fitted log odds at the targets' points."""
        return self.fit().scores(np.stack(self._target, axis=-1))
