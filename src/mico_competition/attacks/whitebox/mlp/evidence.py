"""The stack of a white-box attack: where shadows teach, and the calibrator of all records."""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.stacking.calibrator import Calibrator
from mico_competition.attacks.stacking.stacking import Stack

RANDOM = 2000  # records of each shadow, beside its challenge points, that the stack learns from


def calibrator(problem: Problem) -> Calibrator:
    """That of signals float[models, N], by the problem's shadows."""
    return Calibrator(problem.shadows, problem.is_member, variance="pooled")


def make_stack(problem: Problem) -> Stack:
    """An empty stack that learns at `learning_columns`."""
    columns = learning_columns(problem)
    return Stack(calibrator(problem), problem.targets, columns, problem.columns)


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
