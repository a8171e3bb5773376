"""The leak guard: an attack may not use what is told of the very model that it attacks.

A train model that stands in for a target is also a shadow of the others, so its membership lies
in the problem.  The guard relabels one target, asks again, and requires that this target's own
scores stay as they are; so with each.  It finds labels that are used outright, and
those that went into a mean, a direction or a classifier; the latter are the ones that make an
evaluation look better than the attack is (0.611 against 0.592 AUC in our trials).

Where targets are no shadows, in folds and in phases dev and final, no problem holds their labels.
There the guard relabels the targets of each problem in the source that all problems are made from,
and requires equal scores.  This finds an attack that remembers labels from one problem for the
next: of the folds, each shows the labels of the others' targets.

An attack from a file is also compared with itself in a fresh process, which finds what it keeps in
the modules and objects of libraries.

It cannot find an attack that reads the seed files of the targets' folders, or that goes through
the interpreter's objects: `isolated.py` runs a stranger's attack where there are none.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from mico_competition.attacks.masked_source import without_labels
from mico_competition.attacks.problem import Attack, Problem, Source
from mico_competition.evaluation.cross_fitting import Asked, problems
from mico_competition.evaluation.custom import answer
from mico_competition.evaluation.isolated import fresh_attack
from mico_competition.support.progress import stage

_log = logging.getLogger(__name__)

TOLERANCE = 1e-8  # of the spread of a target's scores: what rounding may change
TOGETHER = 3  # targets relabelled one by one while all of them are asked for
TIES = 1e-9  # how far, relatively, equal signals are moved apart


class Untied:
    """A Source whose scalar signals are moved by less than a millionth, so that none are equal.

    Equal records have equal means, up to rounding, and rounding depends on the labels: sorted by
    it, points near the border of a bin would change places, which looks like a leak.  Towards 0,
    so that probabilities stay such.
    """

    def __init__(self, source: Source) -> None:
        self._source = without_labels(source)
        self.fleet = self._source.fleet
        self._factor = 1 - TIES * np.random.default_rng(0).random(self.fleet.told.shape)
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


def check_asked(
    attack: Attack, asked: Asked, *, folds: int = 5, seed: int = 0, sample: int | None = None
) -> None:
    """Refuses an attack whose scores of any target hang on that target's labels.

    Args:
        attack: to be checked.
        asked: who is attacked at which points; its problems are made and asked as an evaluation
            does it.
        folds, seed: of the evaluation; `seed` also of the relabelling.
        sample: how many targets to relabel one by one where they are left out one by one; all by
            default.  In folds and other phases all are relabelled at any rate.

    Raises:
        ValueError: if scores of a target change with its own labels, or from run to run; what
            the attack raises.
    """
    parts = list(problems(asked, attack, folds=folds, seed=seed))
    if parts[0][1].own:
        check_blind(attack, parts[0][1], sample=sample, seed=seed)
        return
    rng = np.random.default_rng(seed)
    # A world without truth comes first: an attack that keeps what it learned keeps that.
    strange = [_invented(attack, problem, rng) for _, problem in parts] if parts[1:] else []
    first = [answer(attack, problem) for _, problem in parts]
    for number, (places, problem) in enumerate(parts):
        relabelled = _relabelled(asked, places, rng)
        (_, again), *_ = list(problems(relabelled, attack, folds=folds, seed=seed))[number:]
        _compare(attack, problem, first[number], answer(attack, again), slice(None))
    if strange and all(a is not None and _equal(a, b) for a, b in zip(strange, first)):
        _log.warning(
            "Attack %s gives the same scores whatever the labels of its shadows are. If it learns "
            "from them, it keeps what it learned in an earlier run, such as in a file: remove that "
            "and evaluate it again.",
            attack.name,
        )
    _check_fresh(attack, parts[-1][1], first[-1])


def check_blind(
    attack: Attack, problem: Problem, *, sample: int | None = None, seed: int = 0
) -> None:
    """The same of one problem whose targets are among its shadows; any other holds no labels.

    Each target is relabelled while it is asked for together with one other; some are while all
    are asked for, as in the evaluation.

    Args:
        attack: to be checked.
        problem: one with `own=True`.
        sample: how many targets to relabel, at random, in pairs only; all by default.
        seed: of the choice and of the relabelling.

    Raises:
        ValueError: as `check_asked`.
    """
    if not problem.own:
        return
    rng = np.random.default_rng(seed)
    problem = replace(problem, source=Untied(problem.source))
    order = rng.permutation(len(problem.targets))
    chosen = order if sample is None else order[:sample]
    groups = [(pair, pair) for pair in np.array_split(chosen, max(1, len(chosen) // 2))]
    # A world without truth comes first: an attack that keeps the labels it sees keeps those.
    invented = replace(problem, told=_shuffled(problem.told, problem.targets, rng))
    strange = None
    if sample is None:
        with suppress(ValueError):  # labels that nobody trained on may be none that it can use
            strange = answer(attack, invented)
    if sample is None:
        groups.append((order, order[:TOGETHER]))
    total = sum(len(some) for _, some in groups)
    with stage(f"Leak check of {attack.name}", total, "target") as shown:
        for together, some in groups:
            _check_group(attack, problem, np.sort(together), some, rng, shown.update)
    if strange is not None:
        _compare(attack, invented, strange, answer(attack, invented), slice(None))
    if sample is None:
        _check_fresh(attack, problem)


def _invented(attack: Attack, problem: Problem, rng: np.random.Generator) -> np.ndarray | None:
    """The scores in a world whose labels are invented; None where the attack can use none such."""
    with suppress(ValueError):
        told = _shuffled(problem.told, problem.shadows, rng)
        return answer(attack, replace(problem, told=told))
    return None


def _check_fresh(attack: Attack, problem: Problem, used: np.ndarray | None = None) -> None:
    """Refuses an attack from a file that in a process which ran it before gives other scores.

    Rounding differs between processes, and so do a few points of a forest: what counts is a
    difference of 1 % of the spread on average.
    """
    fresh = fresh_attack(attack)
    if fresh is None:
        return
    used = answer(attack, problem) if used is None else used
    try:
        alone = answer(fresh, problem)
        if _alike(used, alone) or not _alike(alone, answer(fresh, problem)):
            return
    except ValueError as error:  # it may need what only this process has, such as a GPU
        _log.info("%s, in a fresh process: what it keeps is not checked there.", error)
        return
    raise ValueError(
        f"Attack {attack.name} gives other scores in a process that ran it before than in a fresh "
        "one: it keeps what it learned, in a library's module or object, or in the state of this "
        "process. Let it use nothing but the problem that it is given."
    )


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return float(np.abs(one - other).mean()) <= 0.01 * float(one.std()) + 1e-12


def _check_group(
    attack: Attack,
    problem: Problem,
    together: np.ndarray,
    some: np.ndarray,
    rng: np.random.Generator,
    done: Callable[[], None],
) -> None:
    """Ask for the targets `together`, again for each of `some` that is relabelled."""
    problem = replace(problem, targets=problem.targets[together], columns=problem.columns[together])
    before = answer(attack, problem)
    for place in np.searchsorted(together, some):
        told = _shuffled(problem.told, problem.targets[[place]], rng)
        after = answer(attack, replace(problem, told=told))
        _compare(attack, problem, before, after, slice(place, place + 1))
        done()


def _shuffled(told: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What is told, with the labels of these rows in another order."""
    told = told.copy()
    told[rows] = rng.permuted(told[rows], axis=1)
    return told


def _relabelled(asked: Asked, places: np.ndarray, rng: np.random.Generator) -> Asked:
    """The same targets, of which these are members of other records than they are."""
    source, rows = copy.copy(asked.source), asked.targets[places]
    told = source.fleet.told.copy()
    if asked.known:  # what is told of them stays; what is asked is relabelled
        columns = asked.columns[places]
        told[rows[:, None], columns] = rng.permuted(told[rows[:, None], columns], axis=1)
    else:
        told = _shuffled(told, rows, rng)
    source.fleet = replace(source.fleet, told=told)
    member = asked.member
    if member is not None:
        member = member.copy()
        member[places] = rng.permuted(member[places], axis=1)
    return replace(asked, source=source, member=member)


def _compare(
    attack: Attack, problem: Problem, before: np.ndarray, after: np.ndarray, targets: slice
) -> None:
    """ValueError if the scores of these targets moved with their labels, or by themselves."""
    if _equal(before[targets], after[targets]):
        return
    again = [answer(attack, problem) for _ in range(2)]
    if not _equal(again[0][targets], again[1][targets]):
        raise ValueError(
            f"Attack {attack.name} gives other scores every time, so it cannot be checked for "
            "leaks: seed its random numbers."
        )
    if problem.own:
        raise ValueError(
            f"Attack {attack.name} leaks: its scores of a model change with what is told of that "
            "very model, so its evaluation would be too good. Leave the target out of its own "
            "shadows (Gathered.score does), or set leaves_one_out = False to have it evaluated in "
            "folds."
        )
    raise ValueError(
        f"Attack {attack.name} leaks: its scores of a model change when that model is relabelled, "
        "although its problem holds no label of it, so it knows labels from elsewhere, such as "
        "from an earlier problem. Let it use nothing but the problem that it is given."
    )


def _equal(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether scores are equal but for rounding."""
    # The spread of what was asked; of a constant, its size.
    spread = max(float(np.ptp(before)), 1e-9 * float(np.abs(before).max()))
    return bool(np.abs(after - before).max() <= TOLERANCE * spread)
