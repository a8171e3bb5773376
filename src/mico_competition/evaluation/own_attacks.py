"""Finds the attacks that a researcher names, and refuses those that a pool has too little for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mico_competition.attacks.problem import Attack, Problem
from mico_competition.attacks.registry import BLACK_BOX, ROWS, TABLE, Row
from mico_competition.evaluation.cross_fitting import bound_groups
from mico_competition.evaluation.custom import find_attack
from mico_competition.signals.pool import ModelPool
from mico_competition.signals.pool_signals import PUBLIC_SIGNALS
from mico_competition.support.counts import count_of

AttackLike = str | Attack | Callable[..., Any]

_OF_LOGITS = ("entropy", "modified_entropy")  # signals that do not follow from losses
_EXAMPLES = ("loss", "entropy", "calibrate-loss-midpoint", "lira", "rmia", "eb")


def attack_of(attack: AttackLike) -> Attack:
    """An attack from its name, a function, or an `Attack`.

    Args:
        attack: the name of a built-in attack; "path/to/file.py:function"; an `Attack`; a function
            of arrays `(target, shadow, is_member)`, which returns a score for each point of
            `target`; or a function of a `Problem`.

    Raises:
        ValueError: on an unknown name, and on a function with other arguments.
    """
    if isinstance(attack, str):
        return find_attack(attack)
    if isinstance(attack, Attack):
        return attack
    if not callable(attack):
        raise ValueError(
            "Expected an attack's name, a function or an Attack, got "
            f"{type(attack).__name__}: `mico attacks` lists the names."
        )
    return _of_function(attack)


def attacks_of(attacks: AttackLike | Sequence[AttackLike]) -> list[Attack]:
    """One attack or several, of different names."""
    given: Sequence[Any] = attacks if isinstance(attacks, (list, tuple)) else [attacks]
    found = [attack_of(one) for one in given]
    if not found:
        raise ValueError("Expected one attack or more, got an empty list.")
    names = [attack.name for attack in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"Expected attacks of different names, got two named {twice}: give each once, or "
            "rename your function."
        )
    return found


def _of_function(function: Callable[..., Any]) -> Attack:
    """The attack of a function of arrays, or of a problem."""
    inner = function.func if isinstance(function, partial) else function
    name: str = getattr(inner, "__name__", type(inner).__name__)
    title = (inspect.getdoc(inner) or "an attack of your own").splitlines()[0]
    if getattr(inner, "__module__", "") == "builtins":
        raise ValueError(
            f"Expected an attack of (target, shadow, is_member) or of one Problem, got Python's "
            f"{name}: write a function that returns a score for each point of target."
        )
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a function written in C
        parameters = inspect.signature(lambda target, shadow, is_member: None).parameters
    required = [
        p
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) not in (1, 3):
        raise ValueError(
            f"Expected the attack {name} to take (target, shadow, is_member), or one Problem, but "
            f"it takes {inspect.signature(function)}."
        )
    if len(required) == 1:
        run = partial(_of_problem, function, name)
    else:
        run = partial(_of_arrays, function, "target_index" in parameters)
    return Attack(
        name,
        title,
        "a function of your own",
        run,
        leaves_one_out=getattr(function, "leaves_one_out", True),
        all_records=getattr(function, "all_records", False),
        least_shadows=getattr(function, "least_shadows", 1),
    )


def _of_problem(function: Callable[..., Any], name: str, problem: Problem) -> Any:
    """A function of a problem; ValueError if it takes the problem for an array."""
    try:
        return function(problem)
    except (TypeError, AttributeError) as error:
        if "'Problem'" not in str(error):
            raise
        raise ValueError(
            f"The attack {name} takes one argument, which is a Problem, and uses it as another "
            f"type ({error}): take (target, shadow, is_member) to get arrays."
        ) from error


def _of_arrays(function: Callable[..., Any], takes_index: bool, problem: Problem) -> np.ndarray:
    """A function of arrays on one signal; without `target_index` it never sees the target's row."""
    inner, sign = _signal_of(function)
    gathered = problem.gather_from(problem.source.get(inner) * sign)
    if takes_index:
        ours = getattr(function, "__module__", "").startswith("mico_competition.")
        return (gathered.score if ours else gathered.score_each)(function)
    scores = []
    for target, columns in zip(problem.targets, problem.columns):
        others = problem.shadows[problem.shadows != target]
        at = np.ix_(others, columns)
        own = function(
            gathered.signal[target, columns], gathered.signal[at], problem.known_membership[at] == 1
        )
        if np.shape(own) != columns.shape:
            raise ValueError(
                f"Expected {len(columns)} scores, one for each point of target, got shape "
                f"{np.shape(own)}."
            )
        scores.append(np.asarray(own))
    return np.stack(scores)


def _signal_of(function: Callable[..., Any]) -> tuple[str, float]:
    """The engine's signal that a function of arrays gets, and its sign."""
    inner = function.func if isinstance(function, partial) else function
    home = f"{getattr(inner, '__module__', '')}:{getattr(inner, '__name__', '')}"
    ours = next((row.signal for row in TABLE if row.function == home and row.signal), None)
    if ours is not None:  # a function of `mico_competition.attacks` gets what it is made for
        return ours, 1.0
    name = getattr(function, "signal", "logit")
    if name not in PUBLIC_SIGNALS:
        raise ValueError(
            f"Expected the attribute signal of {home.partition(':')[2]} to be one of "
            f"{', '.join(PUBLIC_SIGNALS)}, got {name!r}."
        )
    return PUBLIC_SIGNALS[name]


def check_holds(pool: ModelPool, attack: Attack) -> None:
    """ValueError if an attack needs more of the models than a pool holds."""
    row = ROWS.get(attack.name)
    if row is None or pool.holds == "models" or _runs_on(row, pool.holds):
        return
    if row.access != BLACK_BOX:
        raise ValueError(
            f"Attack {attack.name} needs the models themselves ({row.access}), but this pool holds "
            f"{pool.holds}: make it with ModelPool.from_models, from torch modules."
        )
    raise ValueError(
        f"Attack {attack.name} needs the models' logits, but this pool holds {pool.holds}: make it "
        "with ModelPool.from_logits."
    )


def _runs_on(row: Row, holds: str) -> bool:
    """Whether an attack runs on a pool without models."""
    if row.access != BLACK_BOX:
        return False
    return holds != "losses" or (row.signals_only and row.signal not in _OF_LOGITS)


def check_enough(pool: ModelPool, attack: Attack, folds: int) -> None:
    """ValueError if a pool has too few models to attack each with the others as shadows."""
    models = len(pool.known)
    groups = bound_groups(pool.membership[pool.known])
    sizes = [1] * models if groups is None else np.unique(groups, return_counts=True)[1].tolist()
    if _shadows(sizes, attack, folds) >= attack.least_shadows:
        return
    instead = _instead(pool, models, lambda name: _shadows(sizes, attack_of(name), folds))
    needs = count_of(needed(attack, folds), "model")
    pairs = "" if groups is None else ", some of which are left out together"
    raise ValueError(
        f"Attack {attack.name} needs {needs} whose membership is known, so that each target has "
        f"{attack.least_shadows} shadow models or more, but this pool has {models}{pairs}: train "
        f"more{instead}."
    )


def check_shadows(pool: ModelPool, attack: Attack, shadows: int) -> None:
    """ValueError if there are too few shadow models to attack one target."""
    if shadows < attack.least_shadows:
        raise ValueError(
            f"Attack {attack.name} needs {count_of(attack.least_shadows, 'shadow model')}, whose "
            f"membership is known at all records, but this pool has {shadows} beside the target: "
            f"train more{_instead(pool, shadows, lambda name: shadows)}."
        )


def _instead(pool: ModelPool, models: int, shadows: Callable[[str], int]) -> str:
    """The attacks that run with the models that there are, for the end of an error."""
    able = [
        name
        for name in _EXAMPLES
        if _runs_on(ROWS[name], pool.holds) and shadows(name) >= ROWS[name].least_shadows
    ]
    return f"; {', '.join(able)} run with {models}" if able else ""


def needed(attack: Attack, folds: int) -> int:
    """The least number of models with which an attack can be evaluated."""
    models = attack.least_shadows + 1
    while _shadows([1] * models, attack, folds) < attack.least_shadows:
        models += 1
    return models


def _shadows(sizes: list[int], attack: Attack, folds: int) -> int:
    """The least number of shadow models of any target, if groups of models have these sizes."""
    if attack.leaves_one_out:
        return sum(sizes) - max(sizes)
    together = -(-len(sizes) // min(folds, len(sizes)))  # groups in the largest fold
    return sum(sizes) - sum(sorted(sizes)[-together:])
