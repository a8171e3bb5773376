"""Evaluates several attacks on the same targets, side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mico_competition.attacks.cost import Cost, metered
from mico_competition.attacks.problem import Attack
from mico_competition.attacks.registry import WINNERS_BEST, WINNERS_FORMULAS, get_attack
from mico_competition.evaluation.cross_fitting import EvaluationTask, run
from mico_competition.evaluation.custom import is_custom, is_ours
from mico_competition.evaluation.leakage_check import check_task
from mico_competition.evaluation.measure import RANKED, compare, measure
from mico_competition.evaluation.rows import Evaluation, Row
from mico_competition.scoring.curve import RATES
from mico_competition.support.progress import tracked

SAMPLE = 3  # targets relabelled for a built-in attack


@dataclass(frozen=True)
class Options:
    """Settings of an evaluation.

    Attributes:
        folds: number of folds, for attacks that cannot leave one model out; at least 2.
        resamples: number of bootstrap resamples of the models, for intervals.
        seed: of the folds and the resamples.
        blind_check: which attacks the leakage check covers: "auto" (all targets for an attack from
            a file, and a sample of the targets for a built-in attack that is not white-box),
            "always" (all targets of every attack) or "never".
        bands: whether to compute intervals along the ROC curves, for a page.
    """

    folds: int = 5
    resamples: int = 1000
    seed: int = 0
    blind_check: str = "auto"
    bands: bool = False


DEFAULTS = Options()


def evaluate(
    task: EvaluationTask,
    attacks: Sequence[Attack],
    *,
    against: Attack | None = None,
    wide: EvaluationTask | None = None,
    records: str = "challenge",
    options: Options = DEFAULTS,
) -> Evaluation:
    """Run attacks on one scenario and measure their scores.

    Args:
        task: the targets and the points to score, from `make_task`.
        attacks: with different names; `against` may be among them.
        against: the attack that gains are measured over; by default the best of the winner's
            formulas on these targets.
        wide: the same targets and points with signals of all records, for the attacks with
            `all_records`.  The other attacks get `task`, so their scores do not depend on which
            attacks run beside them.
        records: what `make_task` got, for the result.
        options: folds, resamples, seed and checks.

    Returns:
        An `Evaluation` with a row for each attack; the first row is `against`.

    Raises:
        ValueError: if two attacks have the same name; if `wide` has other targets or points than
            `task`; if an attack leaks or its scores are invalid (see `leakage_check`, `custom`).
    """
    check_names(attacks, against)
    if options.blind_check not in ("auto", "always", "never"):
        raise ValueError('Expected blind_check "auto", "always" or "never".')
    if wide is not None and not np.array_equal(wide.truth, task.truth):
        raise ValueError("Expected `wide` to have the same targets and points as `task`.")

    def row_of(attack: Attack) -> Row:
        return _row(wide if wide is not None and attack.all_records else task, attack, options)

    winners = {} if against is not None else winners_rows(task, options)
    base = winners_best(winners) if against is None else row_of(against)
    rows = [base]
    for attack in tracked(attacks, f"Evaluation of {task.source.fleet.scenario}", "attack"):
        if attack.name != base.name:
            known = winners.get(attack.name) if is_ours(attack) else None
            rows.append(row_of(attack) if known is None else known)
    compared = [_with_gains(row, base) for row in rows[1:]]
    return Evaluation(
        task.source.fleet.scenario,
        task.phase,
        records,
        task.known,
        base.name,
        (base, *compared),
    )


def check_names(attacks: Sequence[Attack], against: Attack | None) -> None:
    """ValueError for two attacks with the same name, whose rows could not be distinguished."""
    names = [attack.name for attack in attacks]
    base = WINNERS_BEST if against is None else against.name
    twice = [
        attack.name
        for attack in attacks
        if names.count(attack.name) > 1 or (attack.name == base and attack != against)
    ]
    if twice:
        raise ValueError(
            f"Expected attacks of different names, got two named {twice[0]}: give each once, or "
            "rename one."
        )


def winners_rows(task: EvaluationTask, options: Options) -> dict[str, Row]:
    """The row of each of the winner's formulas, by its name."""
    return {name: _row(task, get_attack(name), options) for name in WINNERS_FORMULAS}


def winners_best(rows: Mapping[str, Row]) -> Row:
    """The formula with the best competition score on these targets."""
    best = max(rows.values(), key=lambda row: row.measured[RANKED].value)
    return replace(best, name=WINNERS_BEST, title=best.name)


def scores_of(
    task: EvaluationTask, attack: Attack, options: Options
) -> tuple[np.ndarray, float, Cost]:
    """The checked scores of an attack, float64[t, k], its wall-clock seconds, and its cost."""
    guard(task, attack, options)
    start = time.perf_counter()
    with metered() as meter:
        scores = run(task, attack, folds=options.folds, seed=options.seed)
    return scores, time.perf_counter() - start, meter.cost


def _row(task: EvaluationTask, attack: Attack, options: Options) -> Row:
    scores, seconds, cost = scores_of(task, attack, options)
    measured_at = partial(measure, resamples=options.resamples, seed=options.seed)
    measured = measured_at(task.truth, scores, rates=RATES if options.bands else ())
    challenge = None
    if scores.shape[1] != task.source.fleet.challenge.shape[1]:
        places = task.challenge_places()
        asked = (np.take_along_axis(array, places, axis=1) for array in (task.truth, scores))
        challenge = measured_at(*asked)
    about = attack.name, attack.title, attack.white_box
    return Row(*about, measured, None, seconds, cost, challenge)


def _with_gains(row: Row, base: Row) -> Row:
    """The row with its gain over `base`, also that at the challenge points."""
    if row.challenge is not None and base.challenge is not None:
        row = replace(row, challenge_gain=compare(row.challenge, base.challenge))
    return replace(row, gain=compare(row.measured, base.measured))


def guard(task: EvaluationTask, attack: Attack, options: Options) -> None:
    """Runs the leakage check if the options ask for it."""
    wanted = {
        "auto": is_custom(attack) or not attack.white_box,
        "always": True,
        "never": False,
    }[options.blind_check]
    if wanted:
        # The tests of this package relabel every target of the built-in attacks.
        sample = SAMPLE if is_ours(attack) and options.blind_check == "auto" else None
        check_task(attack, task, folds=options.folds, seed=options.seed, sample=sample)
