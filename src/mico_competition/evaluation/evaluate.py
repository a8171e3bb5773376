"""Several attacks on the same targets, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mico_competition.evaluation.blind import check_blind
from mico_competition.evaluation.custom import is_custom
from mico_competition.evaluation.folds import Asked, problems, run
from mico_competition.evaluation.measure import METRICS, Estimate, Measured, compare, measure
from mico_competition.evaluation.named import ATTACKS, WINNERS_FORMULAS
from mico_competition.evaluation.problem import Attack
from mico_competition.progress import tracked

RANKED = next(iter(METRICS))
WINNERS_BEST = "winner-best"
"""The best of the winner's formulas in hindsight: what an attack has to beat."""


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        folds: for attacks that cannot leave one model out.
        resamples: of the bootstrap over models.
        seed: of folds and resamples.
        blind_check: "auto" (custom attacks, and named ones that are not white-box), "always" or
            "never".
    """

    folds: int = 5
    resamples: int = 1000
    seed: int = 0
    blind_check: str = "auto"


DEFAULTS = Options()


@dataclass(frozen=True)
class Row:
    """One attack: what it is worth, and its paired gain over the attack compared with."""

    name: str
    title: str
    white_box: bool
    measured: Measured
    gain: dict[str, Estimate] | None
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """All rows of one scenario; `against` is the name of the row that gains are over."""

    scenario: str
    phase: str
    records: str
    known: bool
    against: str
    rows: tuple[Row, ...]

    @property
    def knowledge(self) -> str:
        """What is told of targets beside what is asked."""
        return "distinguisher" if self.known else "standard"


def evaluate(
    asked: Asked,
    attacks: Sequence[Attack],
    *,
    against: Attack | None = None,
    records: str = "challenge",
    options: Options = DEFAULTS,
) -> Evaluation:
    """Run and measure attacks on one scenario.

    Args:
        asked: who is attacked at which points, from `folds.ask`.
        attacks: to be run, of different names; `against` may be among them.
        against: the attack that gains are over; by default the best of the winner's formulas on
            these very targets.
        records: as given to `ask`, for the record.
        options: see there.

    Raises:
        ValueError: if two attacks have one name; if an attack leaks, or gives what is no score;
            see `blind` and `custom`.
    """
    check_names(attacks, against)
    if options.blind_check not in ("auto", "always", "never"):
        raise ValueError('Expected blind_check "auto", "always" or "never".')
    base = winners_best(asked, options) if against is None else _row(asked, against, options)
    rows = [base]
    for attack in tracked(attacks, f"Evaluation of {asked.source.fleet.scenario}", "attack"):
        if attack.name != base.name:
            rows.append(_row(asked, attack, options))
    compared = [replace(row, gain=compare(row.measured, base.measured)) for row in rows[1:]]
    return Evaluation(
        asked.source.fleet.scenario,
        asked.phase,
        records,
        asked.known,
        base.name,
        (base, *compared),
    )


def check_names(attacks: Sequence[Attack], against: Attack | None) -> None:
    """Refuses two attacks of one name, whose numbers nobody could tell apart."""
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


def winners_best(asked: Asked, options: Options) -> Row:
    """The winner's formula that is best on these targets, by what the competition ranks by."""
    rows = [_row(asked, ATTACKS[name], options) for name in WINNERS_FORMULAS]
    best = max(rows, key=lambda row: row.measured[RANKED].value)
    return replace(best, name=WINNERS_BEST, title=best.name)


def _row(asked: Asked, attack: Attack, options: Options) -> Row:
    guard(asked, attack, options)
    start = time.perf_counter()
    scores = run(asked, attack, folds=options.folds, seed=options.seed)
    seconds = time.perf_counter() - start
    measured = measure(asked.truth, scores, resamples=options.resamples, seed=options.seed)
    return Row(attack.name, attack.title, attack.white_box, measured, None, seconds)


def guard(asked: Asked, attack: Attack, options: Options) -> None:
    """The leak guard, where the options want it and the attack is given its targets' labels."""
    wanted = {
        "auto": is_custom(attack) or not attack.white_box,
        "always": True,
        "never": False,
    }[options.blind_check]
    if wanted and asked.phase == "train":
        for _, problem in problems(asked, attack, folds=options.folds, seed=options.seed):
            if not problem.own:
                return
            check_blind(attack, problem, seed=options.seed)


def scores_in_percent(metric: str) -> bool:
    """Whether people speak of a metric in percent."""
    return metric.startswith("TPR")


def interval_excludes_zero(estimate: Estimate) -> bool:
    """Whether a gain is more than chance at the interval's level."""
    return bool(np.isfinite(estimate.low)) and not estimate.low <= 0 <= estimate.high
