"""The leak guard: an attack may not use what is told of the very model that it attacks.

A train model that stands in for a target is also a shadow of the others, so its membership lies
in the problem.  The guard shuffles what is told of one target, asks again, and requires that
target's own scores to stay as they are.  It finds labels that are used outright, and those that
went into a mean, a direction or a classifier; the latter are the ones that make an evaluation
look better than the attack is (0.611 against 0.592 AUC in our trials).

It cannot find an attack that opens the seed files of the targets' folders.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mico_competition.evaluation.custom import answer
from mico_competition.evaluation.folds import Told
from mico_competition.evaluation.problem import Attack, Problem, Source

SAMPLE = 3  # targets tried
TOLERANCE = 1e-6  # of the spread of a target's scores: what rounding may change
TIES = 1e-9  # how far, relatively, equal signals are moved apart


class Untied:
    """A Source whose scalar signals are moved by less than a millionth, so that none are equal.

    Equal records have equal means, up to rounding, and rounding depends on the labels: sorted by
    it, points near the border of a bin would change places, which looks like a leak.  Towards 0,
    so that probabilities stay such.
    """

    def __init__(self, source: Source) -> None:
        self._source, self.fleet = source, source.fleet
        self._factor = 1 - TIES * np.random.default_rng(0).random(source.fleet.told.shape)
        self._signals: dict[str, np.ndarray] = {}

    def get(self, name: str) -> np.ndarray:
        """The signal, its ties broken."""
        if name not in self._signals:
            self._signals[name] = self._source.get(name) * self._factor
        return self._signals[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also while a copy is made, which has nothing yet
            raise AttributeError(name)
        return getattr(self._source, name)


def check_blind(attack: Attack, problem: Problem, *, sample: int = SAMPLE, seed: int = 0) -> None:
    """Refuses an attack whose scores of a target hang on what is told of that target.

    Args:
        attack: to be checked.
        problem: one with `own=True`; nothing is told of other targets.
        sample: how many targets to try, at random.
        seed: of the choice and of the shuffling.

    Raises:
        ValueError: if scores of a target change with its own labels, or from run to run; what
            the attack raises.
    """
    if not problem.own:
        return
    problem = replace(problem, source=Untied(problem.source))
    rng = np.random.default_rng(seed)
    few = rng.permutation(len(problem.targets))[:sample]
    for place in np.sort(few):
        _check_one(attack, _alone(problem, int(place), problem.told), rng)


def _alone(problem: Problem, place: int, told: np.ndarray) -> Problem:
    """The problem of one target, with this `told`, also where the fleet itself is asked."""
    some = slice(place, place + 1)
    return replace(
        problem,
        source=Told(problem.source, told),
        targets=problem.targets[some],
        columns=problem.columns[some],
        told=told,
    )


def _check_one(attack: Attack, problem: Problem, rng: np.random.Generator) -> None:
    row = int(problem.targets[0])
    told = problem.told.copy()
    told[row] = rng.permutation(told[row])
    before = answer(attack, problem)
    after = answer(attack, _alone(problem, 0, told))
    # The spread of what was asked; of a constant, its size.
    spread = max(float(np.ptp(before)), 1e-9 * float(np.abs(before).max()))
    if np.abs(after - before).max() <= TOLERANCE * spread:
        return
    if np.abs(answer(attack, problem) - before).max() > TOLERANCE * spread:
        raise ValueError(
            f"Attack {attack.name} gives other scores every time, so it cannot be checked for "
            "leaks: seed its random numbers."
        )
    raise ValueError(
        f"Attack {attack.name} leaks: its scores of a model change with what is told of that very "
        "model, so its evaluation would be too good. Leave the target out of its own shadows "
        "(Gathered.score does), or set leaves_one_out = False to have it evaluated in folds."
    )
