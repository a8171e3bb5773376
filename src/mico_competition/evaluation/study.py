"""How the quality of an attack depends on the number of shadow models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mico_competition.attacks.problem import Attack, Problem
from mico_competition.evaluation.cross_fitting import EvaluationTask, problems
from mico_competition.evaluation.custom import answer
from mico_competition.evaluation.measure import METRICS, mean_of, measure
from mico_competition.evaluation.rows import Step
from mico_competition.signals import HIDDEN
from mico_competition.support.progress import tracked

REPEATS = 3


def study(
    task: EvaluationTask,
    attack: Attack,
    counts: Sequence[int],
    *,
    repeats: int = REPEATS,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Step]:
    """Measure an attack with random choices of its shadow models.

    Targets of the train phase are attacked by cross-fitting, with shadows chosen among the models
    of the other folds; other targets with shadows chosen among the train models.

    Args:
        task: the targets and the points to score.
        attack: any.
        counts: numbers of shadow models, each at least 2 and at least what the attack needs.
        repeats: random choices of shadows for each number; one if the number is that of all.
        folds, resamples, seed: as in `evaluate`; equal seeds choose equal shadows.

    Returns:
        One `Step` for each number, in ascending order.

    Raises:
        ValueError: if there are fewer shadows than a number in `counts`; what the attack raises.
    """
    if repeats < 1:
        raise ValueError(f"Expected 1 repeat or more of each number of shadows, got {repeats}.")
    parts = parts_of_study(task, attack, counts, folds=folds, seed=seed)
    steps = []
    for count in tracked(sorted(set(counts)), f"Study of {attack.name}", "shadow count"):
        rng = np.random.default_rng([seed, count])
        found = []
        for _ in range(1 if all(len(p.shadows) == count for _, p in parts) else repeats):
            scores = np.full(task.columns.shape, np.nan)
            for places, problem in parts:
                scores[places] = answer(attack, _with_fewer(problem, count, rng))
            found.append(measure(task.truth, scores, resamples=resamples, seed=seed))
        steps.append(
            Step(
                attack.name,
                count,
                len(found),
                {metric: mean_of(found, metric) for metric in METRICS},
                {metric: float(np.std([f[metric].value for f in found])) for metric in METRICS},
            )
        )
    return steps


def parts_of_study(
    task: EvaluationTask, attack: Attack, counts: Sequence[int], *, folds: int = 5, seed: int = 0
) -> list[tuple[np.ndarray, Problem]]:
    """The problems of which `study` keeps some shadows.  Runs no attack, so it checks in advance.

    Raises:
        ValueError: if there are fewer shadows than a number, or the attack needs more.
    """
    apart = replace(attack, leaves_one_out=False)
    parts = list(problems(task, apart, folds=folds, seed=seed))
    least = max(2, attack.least_shadows)
    available = min(len(problem.shadows) for _, problem in parts)
    if not counts or min(counts) < least or max(counts) > available:
        given = ", ".join(map(str, counts)) or "none"
        raise ValueError(
            f"Expected numbers of shadow models from {least} to {available} to study attack "
            f"{attack.name}, got {given}: fewer folds leave less for shadows, more folds more."
        )
    return parts


def _with_fewer(problem: Problem, count: int, rng: np.random.Generator) -> Problem:
    """The problem with a random choice of its shadows; the membership of the rest is hidden."""
    kept = np.sort(rng.permutation(problem.shadows)[:count])
    known_membership = problem.known_membership.copy()
    known_membership[np.setdiff1d(problem.shadows, kept)] = HIDDEN
    return replace(problem, shadows=kept, known_membership=known_membership)
