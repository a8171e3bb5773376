"""The stack of a white-box attack: its training points, and the calibrator of all records."""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.stacking.calibrator import Calibrator
from mico_competition.attacks.stacking.stacking import Stack

RANDOM = 2000  # training records of each shadow, besides its challenge points


def calibrator(problem: Problem) -> Calibrator:
    """The calibrator of signals float[models, N], by the problem's shadows."""
    return Calibrator(problem.shadows, problem.is_member, variance="pooled")


def make_stack(problem: Problem) -> Stack:
    """An empty stack that is trained at `learning_columns`."""
    columns = learning_columns(problem)
    return Stack(calibrator(problem), problem.targets, columns, problem.columns)


def learning_columns(problem: Problem, seed: int = 0) -> np.ndarray:
    """int64[s, k], the training points of each shadow: its challenge points and some others."""
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
