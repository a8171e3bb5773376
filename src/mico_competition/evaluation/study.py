"""What an attack is worth with fewer shadow models: a study over their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mico_competition.attacks.problem import Attack, Problem
from mico_competition.evaluation.cross_fitting import Asked, problems
from mico_competition.evaluation.custom import answer
from mico_competition.evaluation.measure import METRICS, Estimate, mean_of, measure
from mico_competition.signals import HIDDEN
from mico_competition.support.progress import tracked

REPEATS = 3


@dataclass(frozen=True)
class Step:
    """An attack with so many shadow models.

    `estimates` are means over the random choices of shadows, with intervals over targets;
    `spread` is the standard deviation of each metric over the choices (0 of one choice).
    """

    attack: str
    shadows: int
    repeats: int
    estimates: dict[str, Estimate]
    spread: dict[str, float]


def study(
    asked: Asked,
    attack: Attack,
    counts: Sequence[int],
    *,
    repeats: int = REPEATS,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Step]:
    """Measure an attack with random choices of its shadow models.

    Targets of phase train are attacked in folds, with shadows chosen among the other folds'
    models; others with shadows chosen among the train models.

    Args:
        asked: who is attacked at which points.
        attack: any.
        counts: numbers of shadow models, each at least 2 and what the attack needs.
        repeats: choices of shadows for each number; one where all there are are taken.
        folds, resamples, seed: as in `evaluate`; equal seeds choose equal shadows.

    Raises:
        ValueError: if there are not so many shadows; what the attack raises.
    """
    if repeats < 1:
        raise ValueError(f"Expected 1 repeat or more of each number of shadows, got {repeats}.")
    parts = parts_of_study(asked, attack, counts, folds=folds, seed=seed)
    steps = []
    for count in tracked(sorted(set(counts)), f"Study of {attack.name}", "number of shadows"):
        rng = np.random.default_rng([seed, count])
        found = []
        for _ in range(1 if all(len(p.shadows) == count for _, p in parts) else repeats):
            scores = np.full(asked.columns.shape, np.nan)
            for places, problem in parts:
                scores[places] = answer(attack, _with_fewer(problem, count, rng))
            found.append(measure(asked.truth, scores, resamples=resamples, seed=seed))
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
    asked: Asked, attack: Attack, counts: Sequence[int], *, folds: int = 5, seed: int = 0
) -> list[tuple[np.ndarray, Problem]]:
    """What `study` chooses shadows of; no attack is run, so numbers can be checked beforehand.

    Raises:
        ValueError: if a number of shadows is more than there are or less than the attack needs.
    """
    apart = replace(attack, leaves_one_out=False)
    parts = list(problems(asked, apart, folds=folds, seed=seed))
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
    """The problem with a random choice of its shadows; nothing is told of the others."""
    kept = np.sort(rng.permutation(problem.shadows)[:count])
    told = problem.told.copy()
    told[np.setdiff1d(problem.shadows, kept)] = HIDDEN
    return replace(problem, shadows=kept, told=told)
