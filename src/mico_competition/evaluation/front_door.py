"""`mico.evaluate` and `mico.attack`: attacks on the models of a pool."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mico_competition.attacks.cost import metered
from mico_competition.attacks.masked_source import MaskedSource
from mico_competition.attacks.problem import Attack, Problem
from mico_competition.evaluation.attack_result import AttackResult
from mico_competition.evaluation.cross_fitting import (
    EvaluationTask,
    bound_groups,
    make_task,
    run,
)
from mico_competition.evaluation.custom import answer
from mico_competition.evaluation.evaluate import Options, guard
from mico_competition.evaluation.own_attacks import (
    AttackLike,
    attack_of,
    attacks_of,
    check_enough,
    check_holds,
    check_shadows,
)
from mico_competition.evaluation.results import Results
from mico_competition.signals import HIDDEN, MEMBER, NONMEMBER
from mico_competition.signals.pool import ModelPool
from mico_competition.signals.pool_arguments import choice
from mico_competition.signals.pool_source import near_copies
from mico_competition.signals.source import Source
from mico_competition.support.counts import check_whole
from mico_competition.support.progress import tracked

_log = logging.getLogger(__name__)

_MANY = 32  # records: with fewer, random training sets may be balanced by chance


def evaluate(
    pool: ModelPool,
    attacks: AttackLike | Sequence[AttackLike],
    *,
    against: AttackLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
    folds: int = 5,
    leakage_check: str | bool = "auto",
) -> Results:
    """Attack each model of a pool with the others as shadow models, and measure the scores.

    No attack sees a label of its target: an attack that cannot leave a target out of its shadow
    models is evaluated by cross-fitting, with the models of the other folds as shadows.  Models
    with the same training records, or with complementary ones, are left out together.

    Args:
        pool: models with known membership.  Those that are known at all records are targets and
            shadow models; those that are known at some records are targets, measured there.
        attacks: one attack or several: names (`mico attacks` lists them), "file.py:function",
            functions of arrays `(target, shadow, is_member)` that return a score for each point of
            `target`, functions of a `Problem`, or `Attack` objects.  A function of arrays gets the
            logit of the true class, or the signal that its attribute `signal` names.
        against: the attack that gains are measured over; by default the first of `attacks`.
        seed: of the folds and of the resamples.
        resamples: draws of models for the intervals.
        folds: of the cross-fitting, at least 2.
        leakage_check: whether to run attacks again with changed labels of a target, whose scores
            must not change: "auto" (all targets for your own attacks, some for built-in ones on
            outputs), "always" or "never".

    Returns:
        Results by the attack's name; a table in a notebook.

    Raises:
        ValueError: if the pool has too few models or holds too little for an attack, naming it; if
            an attack uses the label of its target; if its scores are not finite.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> membership = rng.random((8, 60)) < 0.5
    >>> losses = rng.exponential(1 + membership.mean(0), (8, 60)) * np.where(membership, 0.3, 1)
    >>> result = evaluate(ModelPool.from_losses(losses, membership), ["loss", "lira"])
    >>> list(result)
    ['loss', 'lira']
    >>> result["lira"].scores.shape
    (8, 60)
    """
    _check_type(pool)
    chosen = attacks_of(attacks)
    base = None if against is None else attack_of(against)
    if base is not None and base.name not in [attack.name for attack in chosen]:
        chosen = [base, *chosen]
    check = "always" if leakage_check is True else leakage_check or "never"
    if check not in ("auto", "always", "never"):
        raise ValueError(
            f'Expected leakage_check={leakage_check!r} to be "auto", "always" or "never".'
        )
    check_whole("folds", folds)
    check_whole("resamples", resamples)
    check_whole("seed", seed)
    if folds < 2:
        raise ValueError(f"Expected folds={folds} >= 2: a target needs models of other folds.")
    _check_known(pool)
    _warn_of_balance(pool)
    for attack in chosen:
        check_holds(pool, attack)
        check_enough(pool, attack, folds)
    options = Options(folds, resamples, seed, check)
    found = [_measured(pool, attack, options) for attack in tracked(chosen, "Evaluation", "attack")]
    return Results(
        found,
        against=None if base is None else base.name,
        subject=pool.scenario or "",
        phase="train" if pool.scenario else "",
    )


def attack(pool: ModelPool, name: AttackLike, target: Any, *, records: Any = None) -> np.ndarray:
    """Attack one model whose members are not known, with a pool's models as shadow models.

    Args:
        pool: its models whose membership is known at all records are the shadow models.
        name: an attack, as in `evaluate`.
        target: a model at the pool's records, as the pool was made: logits or probabilities
            float[records, classes], losses float[records], a torch module, a function that returns
            one, or a scikit-learn classifier; several of them in a list or an array with one more
            axis; or the row of a model in the pool, or a list of rows.  Such a model is left out of
            its own shadow models, and its membership is not used.
        records: int[k] or bool[records], those to score; by default all.  For a model of a
            challenge folder, by default its challenge points in their order, as a prediction needs
            them.

    Returns:
        float64[records] for one target, float64[targets, records] for several: larger = more likely
        a member.  Scores of all targets are comparable; their scale depends on the attack.  A model
        of the pool that equals a target up to rounding is left out, with a logged warning.

    Raises:
        ValueError: as `evaluate`; if `target` is a model of the pool but not given by its row.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> membership = rng.random((9, 60)) < 0.5
    >>> losses = rng.exponential(1, (9, 60)) * np.where(membership, 0.1, 1)
    >>> pool = ModelPool.from_losses(losses[:8], membership[:8])
    >>> scores = attack(pool, "lira", target=losses[8])
    >>> bool(scores[membership[8]].mean() > scores[~membership[8]].mean())
    True
    """
    _check_type(pool)
    chosen = attack_of(name)
    check_holds(pool, chosen)
    given = _rows(target, len(pool))
    if given is not None:
        scores = _of_rows(pool, chosen, given, records)
        return scores if np.ndim(target) else _first(scores)
    source, found, several = pool.with_targets(target)
    columns = choice("records", records, pool.shape[1])
    shadows = _no_copies(pool, source, found)
    check_shadows(pool, chosen, len(shadows))
    scores = _attacked(source, chosen, shadows, found, np.tile(columns, (len(found), 1)))
    return scores if several else _first(scores)


def _no_copies(pool: ModelPool, source: Source, targets: np.ndarray) -> np.ndarray:
    """int64[k], the pool's shadow models without those that are a target up to rounding."""
    copies = near_copies(source, pool.known, targets)
    if not len(copies):
        return pool.known
    _log.warning(
        "A target has the outputs of model %s of the pool up to rounding, so that model is not "
        "among the shadow models. If the target is that model, pass target=%d.",
        ", ".join(map(str, copies)),
        copies[0],
    )
    bound = bound_groups(pool.membership)
    bound = np.arange(len(pool)) if bound is None else bound
    others: np.ndarray = pool.known[~np.isin(bound[pool.known], bound[copies])]
    return others


def _first(scores: np.ndarray) -> np.ndarray:
    first: np.ndarray = scores[0]
    return first


def _rows(target: Any, models: int) -> np.ndarray | None:
    """int64[k], the rows that a target names; None for anything else."""
    if isinstance(target, (bool, np.bool_)) or not isinstance(target, (int, np.integer)):
        if not isinstance(target, (list, tuple, np.ndarray, range)) or not len(target):
            return None
        if not all(isinstance(one, (int, np.integer)) for one in target):
            return None
    rows = np.atleast_1d(np.asarray(target, np.int64))
    if rows.min() < -models or rows.max() >= models:
        raise ValueError(f"Expected target to be rows 0..{models - 1} of the pool, got {target!r}.")
    places: np.ndarray = rows % models
    return places


def _of_rows(pool: ModelPool, chosen: Attack, rows: np.ndarray, records: Any) -> np.ndarray:
    """float64[t, k]: the scores of models of the pool, none of which is its own shadow model.

    Models that are no shadow models are attacked together, as the engine attacks a phase.  Models
    whose members tell those of a target are no shadow models of it either.
    """
    columns = np.stack([_columns(pool, int(row), records) for row in rows])
    source = pool.wide if chosen.all_records else pool.source
    places = np.searchsorted(source.fleet.records, pool.fleet.records[columns])
    scores = np.empty(columns.shape)
    bound = bound_groups(pool.membership)
    bound = np.arange(len(pool)) if bound is None else bound
    unknown = ~np.isin(rows, pool.known)
    targets, first = np.unique(rows[unknown], return_index=True)  # ascending, each once
    parts = [(np.array([row]), places[[i]]) for i, row in enumerate(rows) if not unknown[i]]
    if len(targets):
        parts.append((targets, places[unknown][first]))
    for targets, at in parts:
        shadows = pool.known[~np.isin(bound[pool.known], bound[targets])]
        check_shadows(pool, chosen, len(shadows))
        found = _attacked(source, chosen, shadows, targets, at, pool.knows_training_sets)
        for target, own in zip(targets, found):
            scores[rows == target] = own
    return scores


def _columns(pool: ModelPool, row: int, records: Any) -> np.ndarray:
    """int64[k], the columns to score for one model of the pool."""
    own: np.ndarray = pool.fleet.challenge[row]
    if records is None and pool.scenario is not None and (own >= 0).all():
        return own
    return choice("records", records, pool.shape[1])


def _attacked(
    source: Source,
    chosen: Attack,
    shadows: np.ndarray,
    targets: np.ndarray,
    columns: np.ndarray,
    known: bool = False,
) -> np.ndarray:
    """float64[t, k]: scores of targets that are not among the shadows.

    With `known`, the attack knows the membership of the targets at other points.
    """
    membership = source.fleet.known_membership.copy()
    if known:
        membership[targets[:, None], columns] = HIDDEN
    else:
        membership[targets] = HIDDEN
    masked = MaskedSource(source, membership)
    with _named(chosen):
        return answer(chosen, Problem(masked, shadows, targets, columns, membership))


def _check_type(pool: object) -> None:
    """ValueError for what is no pool."""
    if not isinstance(pool, ModelPool):
        raise ValueError(
            f"Expected pool to be a ModelPool, got {type(pool).__name__}: make one with "
            "ModelPool.from_logits, from_models or open."
        )


def _check_known(pool: ModelPool) -> None:
    """ValueError for a pool in which no model can be attacked with known members."""
    if len(pool.known):
        return
    fix = "give their membership, or attack them with mico.attack and a pool of shadow models"
    if (pool.membership != HIDDEN).any():
        fix = (
            "if the others are known at some records, take these: "
            "pool.select(records=(pool.membership >= 0).all(0))"
        )
    raise ValueError(
        "Expected models whose membership is known at all records, to be shadow models and "
        f"targets, got none: {fix}."
    )


def _warn_of_balance(pool: ModelPool) -> None:
    """Warn if the other models' training sets tell that of a target."""
    known = pool.membership[pool.known]
    sums = known.sum(axis=0)
    if len(known) < 3 or len(sums) < _MANY or (sums != sums[0]).any():
        return
    if bound_groups(known) is None:
        _log.warning(
            "Every record is a member of exactly %d of the %d models, so the other models' members "
            "tell the target's, and some attacks seem better than they are. Draw members "
            "independently or in complementary pairs of models (mico.train_shadows with "
            "fraction=0.5), or attack models that are not in the pool.",
            sums[0],
            len(known),
        )


def _measured(pool: ModelPool, chosen: Attack, options: Options) -> AttackResult:
    """One attack on all targets of a pool."""
    tasks = _tasks(pool, pool.wide if chosen.all_records else pool.source, options.seed)
    with _named(chosen):
        for task in tasks:
            guard(task, chosen, options)
        start = time.perf_counter()
        with metered() as meter:
            scores = [run(task, chosen, folds=options.folds, seed=options.seed) for task in tasks]
    seconds = time.perf_counter() - start
    order = np.argsort(np.concatenate([task.targets for task in tasks]))
    membership = np.concatenate([_membership(pool, task) for task in tasks])[order]
    known = membership != HIDDEN
    return AttackResult.of(
        chosen.name,
        membership == MEMBER,
        np.concatenate(scores)[order],
        known=None if known.all() else known,
        title=chosen.title,
        white_box=chosen.white_box,
        seconds=seconds,
        cost=meter.cost,
        resamples=options.resamples,
        seed=options.seed,
    )


def _tasks(pool: ModelPool, source: Source, seed: int) -> list[EvaluationTask]:
    """The models that are known at all records as targets, and those known at some."""
    if pool.scenario is not None:
        return [make_task(source, "train", known=pool.knows_training_sets, seed=seed)]
    tasks = [make_task(source, "train", records="all")]
    if len(source.fleet.rows("dev")):
        tasks.append(make_task(source, "dev", records="all", scored=False))
    return tasks


def _membership(pool: ModelPool, task: EvaluationTask) -> np.ndarray:
    """int8[t, k], the truth at the points of a task, HIDDEN where it is not known."""
    if task.member is not None:
        return np.where(task.member, MEMBER, NONMEMBER).astype(np.int8)
    return np.take_along_axis(pool.membership[task.targets], task.columns, axis=1)


@contextmanager
def _named(chosen: Attack) -> Iterator[None]:
    """Adds the attack's name to errors that do not say whose they are."""
    try:
        yield
    except ValueError as error:
        if chosen.name in str(error):
            raise
        raise ValueError(f"Attack {chosen.name} cannot run here. {error}") from error
    except Exception as error:
        error.add_note(f"This happened in attack {chosen.name}.")
        raise
