"""The leakage check: an attack may not use the membership of the target that it attacks.

A train model is both a target and a shadow of the other targets, so the problem holds its
membership.  The check changes the membership of one target at random, runs the attack again, and
requires that the scores of this target stay the same; it does so for each target.  It finds an
attack that uses the labels directly, and one whose labels went into a mean, a direction or a
classifier.  Such a leak makes an attack look better than it is.

Where the targets are not among the shadows (in cross-fitting, and in the dev and final phases) no
problem holds their membership.  There the check changes the membership of the targets in the
source from which all problems are made, and requires equal scores.  This finds an attack that
remembers labels from one problem to the next: each fold shows the labels of the other folds'
targets.

The check also runs an attack from a file in a fresh process and compares the scores.  This finds
labels that the attack keeps in the modules and objects of libraries.

An attack that is not built in cannot tell the check from the run that is measured: both hand it
the same problem, bit for bit (`untied.py`), and nobody can foresee which targets are relabelled.

The check cannot find an attack that reads the seed files in the folders of the targets, or that
searches the interpreter's objects.  `isolated.py` runs an untrusted attack where neither is within
reach.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from mico_competition.attacks.problem import Attack, Problem
from mico_competition.evaluation.cross_fitting import EvaluationTask, problems
from mico_competition.evaluation.custom import answer, is_ours
from mico_competition.evaluation.isolated import fresh_attack
from mico_competition.evaluation.untied import untied
from mico_competition.support.progress import stage

_log = logging.getLogger(__name__)

TOLERANCE = 1e-8  # the share of the spread of a target's scores that rounding may change
_ROOM = 16.0  # scores are divided by it, so that no sum of a few of them overflows
TOGETHER = 3  # number of targets that are relabelled while all targets are attacked together


def check_task(
    attack: Attack,
    task: EvaluationTask,
    *,
    folds: int = 5,
    seed: int = 0,
    sample: int | None = None,
) -> None:
    """Refuses an attack whose scores of a target depend on the membership of that target.

    Args:
        attack: the attack to check.
        task: the targets and the points to score; its problems are made as an evaluation makes
            them.
        folds, seed: those of the evaluation; `seed` also seeds the changes of membership for a
            built-in attack.
        sample: how many targets to check where the targets are among the shadows; all by default.
            In cross-fitting, and in the dev and final phases, all are checked in any case.

    Raises:
        ValueError: if the scores of a target change with its membership, or from run to run; what
            the attack raises.
    """
    parts = list(problems(task, attack, folds=folds, seed=seed))
    if parts[0][1].targets_in_shadows:
        check_problem(attack, parts[0][1], sample=sample, seed=seed)
        return
    rng = _generator(attack, seed)
    # Random labels come first: an attack that keeps what it learned will then keep these.
    learns = parts[1:] and attack.least_shadows
    strange = [_invented(attack, problem, rng) for _, problem in parts] if learns else []
    first = [answer(attack, problem) for _, problem in parts]
    for number, (places, problem) in enumerate(parts):
        relabelled = _relabelled(task, places, rng)
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


def check_problem(
    attack: Attack, problem: Problem, *, sample: int | None = None, seed: int = 0
) -> None:
    """The leakage check of one problem; only one with its targets among the shadows holds labels.

    The membership of each target is changed while it is attacked together with one other target;
    that of `TOGETHER` targets also while all are attacked, as in the evaluation.

    Args:
        attack: the attack to check.
        problem: checked only if `targets_in_shadows` is true.
        sample: how many random targets to check, in pairs only; all by default.
        seed: of the choice of targets and of the changes of membership, for a built-in attack.

    Raises:
        ValueError: as `check_task`.
    """
    if not problem.targets_in_shadows:
        return
    rng = _generator(attack, seed)
    problem = untied(problem)
    order = rng.permutation(len(problem.targets))
    chosen = order if sample is None else order[:sample]
    groups = [(pair, pair) for pair in np.array_split(chosen, max(1, len(chosen) // 2))]
    # Random labels come first: an attack that keeps the labels it sees will then keep these.
    invented = replace(
        problem, known_membership=_shuffled(problem.known_membership, problem.targets, rng)
    )
    strange = None
    if sample is None:
        with suppress(ValueError):  # an attack may be unable to use random labels
            strange = answer(attack, invented)
    if sample is None:
        groups.append((order, order[:TOGETHER]))
    total = sum(len(some) for _, some in groups)
    with stage(f"Leakage check of {attack.name}", total, "target") as shown:
        for together, some in groups:
            _check_group(attack, problem, np.sort(together), some, rng, shown.update)
    if strange is not None:
        _compare(attack, invented, strange, answer(attack, invented), slice(None))
    if sample is None:
        _check_fresh(attack, problem)


def _generator(attack: Attack, seed: int) -> np.random.Generator:
    """Draws what the check changes, which an attack from elsewhere must not be able to foresee."""
    return np.random.default_rng(seed if is_ours(attack) else None)


def _invented(attack: Attack, problem: Problem, rng: np.random.Generator) -> np.ndarray | None:
    """The scores with random labels of the shadows; None if the attack cannot use them."""
    with suppress(ValueError):
        known_membership = _shuffled(problem.known_membership, problem.shadows, rng)
        return answer(attack, replace(problem, known_membership=known_membership))
    return None


def _check_fresh(attack: Attack, problem: Problem, used: np.ndarray | None = None) -> None:
    """Refuses an attack from a file whose scores differ between this process and a fresh one.

    Rounding differs between processes, and so do a few scores of a random forest: a mean difference
    of 1 % of the spread of the scores is allowed.
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
        _log.info("%s, in a fresh process: its state was not checked there.", error)
        return
    raise ValueError(
        f"Attack {attack.name} gives other scores in a process that ran it before than in a fresh "
        "one: it keeps what it learned, in a library's module or object, or in the state of this "
        "process. Let it use only its problem."
    )


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether scores differ by less than 1 % of their spread on average."""
    one, other = one / _ROOM, other / _ROOM
    with np.errstate(over="ignore"):
        spread = _spread(one)
        apart = np.minimum(np.abs(one - other), spread or np.inf)  # a few huge ones count as others
        return bool(apart.mean() <= 0.01 * spread)


def _spread(scores: np.ndarray) -> float:
    """The range of the middle half of scores, which a few huge ones leave as it is, or of all.

    >>> _spread(np.array([1.0, 2.0, 3.0, 4.0, 1e300]))
    2.0
    >>> _spread(np.array([1.0, 1.0, 1.0, 1.0, 3.0]))
    2.0
    """
    low, high = np.quantile(scores, (0.25, 0.75), method="nearest")
    return float(np.nan_to_num(high - low or np.ptp(scores)))


def _check_group(
    attack: Attack,
    problem: Problem,
    together: np.ndarray,
    some: np.ndarray,
    rng: np.random.Generator,
    done: Callable[[], None],
) -> None:
    """Attack the targets `together`, and again after the membership of each of `some` changed."""
    problem = replace(problem, targets=problem.targets[together], columns=problem.columns[together])
    before = answer(attack, problem)
    for place in np.searchsorted(together, some):
        known_membership = _shuffled(problem.known_membership, problem.targets[[place]], rng)
        after = answer(attack, replace(problem, known_membership=known_membership))
        _compare(attack, problem, before, after, slice(place, place + 1))
        done()


def _shuffled(
    known_membership: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The known membership, with the entries of these rows in another order."""
    known_membership = known_membership.copy()
    known_membership[rows] = rng.permuted(known_membership[rows], axis=1)
    return known_membership


def _relabelled(
    task: EvaluationTask, places: np.ndarray, rng: np.random.Generator
) -> EvaluationTask:
    """The same task, with other membership of the targets at `places`."""
    source, rows = copy.copy(task.source), task.targets[places]
    known_membership = source.fleet.known_membership.copy()
    if task.known:  # only the membership of the points to score changes
        columns = task.columns[places]
        known_membership[rows[:, None], columns] = rng.permuted(
            known_membership[rows[:, None], columns], axis=1
        )
    else:
        known_membership = _shuffled(known_membership, rows, rng)
    source.fleet = replace(source.fleet, known_membership=known_membership)
    member = task.member
    if member is not None:
        member = member.copy()
        member[places] = rng.permuted(member[places], axis=1)
    return replace(task, source=source, member=member)


def _compare(
    attack: Attack, problem: Problem, before: np.ndarray, after: np.ndarray, targets: slice
) -> None:
    """ValueError if the scores of these targets change with their membership, or by themselves."""
    if _equal(before[targets], after[targets]):
        return
    again = [answer(attack, problem) for _ in range(2)]
    if not _equal(again[0][targets], again[1][targets]):
        raise ValueError(
            f"Attack {attack.name} gives other scores every time, so it cannot be checked for "
            "leaks: seed its random numbers."
        )
    if problem.targets_in_shadows:
        raise ValueError(
            f"Attack {attack.name} leaks: its scores of a model change with the membership of that "
            "model, so its evaluation would be too good. Use target_index, the row of each target "
            "in shadow, which problem.gather(signal).score(function) passes to the function: leave "
            "that row out. Or set leaves_one_out = False to have it evaluated by cross-fitting."
            + _rounding(before[targets], after[targets])
        )
    raise ValueError(
        f"Attack {attack.name} leaks: its scores of a model change when that model is relabelled, "
        "although its problem holds no label of it, so it has labels from elsewhere, such as from "
        "an earlier problem. Let it use only its problem."
        + _rounding(before[targets], after[targets])
    )


def _rounding(before: np.ndarray, after: np.ndarray) -> str:
    """What to do where scores differ by so little that float32 may be the reason; else ""."""
    if not _equal(before, after, 1e-5):
        return ""
    return " They change by less than 1e-5 of their spread: if that is rounding, use float64."


def _equal(before: np.ndarray, after: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Whether scores are equal up to rounding, which grows with their distance from the middle."""
    before, after = before / _ROOM, after / _ROOM
    middle = np.median(before)
    scale = np.abs(before - middle) + max(_spread(before), 1e-9 * abs(middle))
    return bool((np.abs(after - before) <= tolerance * scale).all())
