"""Several attacks on the same targets, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mico_competition.attacks.cost import NO_COST, Cost, metered
from mico_competition.attacks.named import ATTACKS, WINNERS_FORMULAS
from mico_competition.attacks.problem import Attack
from mico_competition.evaluation.cross_fitting import Asked, run
from mico_competition.evaluation.custom import is_custom, is_ours
from mico_competition.evaluation.leakage_check import check_asked
from mico_competition.evaluation.measure import METRICS, Estimate, Measured, compare, measure
from mico_competition.scoring.curve import RATES
from mico_competition.support.progress import tracked

RANKED = next(iter(METRICS))
SAMPLE = 3  # targets relabelled for a named attack
WINNERS_BEST = "winner-best"
"""The best of the winner's formulas in hindsight: what an attack has to beat."""


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        folds: for attacks that cannot leave one model out.
        resamples: of the bootstrap over models.
        seed: of folds and resamples.
        blind_check: "auto" (all targets of an attack of one's own, some of a named one, unless it
            is white-box), "always" (all targets of every attack) or "never".
        bands: whether to give intervals all along the ROC curves, for a page.
    """

    folds: int = 5
    resamples: int = 1000
    seed: int = 0
    blind_check: str = "auto"
    bands: bool = False


DEFAULTS = Options()


@dataclass(frozen=True)
class Row:
    """One attack: what it is worth, its paired gain over the attack compared with, its cost.

    `seconds` are those of a clock, whatever else the machine did; see `cost` for what it took.
    """

    name: str
    title: str
    white_box: bool
    measured: Measured
    gain: dict[str, Estimate] | None
    seconds: float
    cost: Cost = NO_COST


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
    wide: Asked | None = None,
    records: str = "challenge",
    options: Options = DEFAULTS,
) -> Evaluation:
    """Run and measure attacks on one scenario.

    Args:
        asked: who is attacked at which points, from `folds.ask`.
        attacks: to be run, of different names; `against` may be among them.
        against: the attack that gains are over; by default the best of the winner's formulas on
            these very targets.
        wide: the same targets and points, from signals of all records: given to the attacks that
            want these.  So the numbers of the others do not depend on who is asked beside them.
        records: as given to `ask`, for the record.
        options: see there.

    Raises:
        ValueError: if two attacks have one name; if `wide` asks for something else; if an attack
            leaks, or gives what is no score; see `blind` and `custom`.
    """
    check_names(attacks, against)
    if options.blind_check not in ("auto", "always", "never"):
        raise ValueError('Expected blind_check "auto", "always" or "never".')
    if wide is not None and not np.array_equal(wide.truth, asked.truth):
        raise ValueError("Expected `wide` to ask for the same points of the same targets.")

    def row_of(attack: Attack) -> Row:
        return _row(wide if wide is not None and attack.all_records else asked, attack, options)

    base = winners_best(asked, options) if against is None else row_of(against)
    rows = [base]
    for attack in tracked(attacks, f"Evaluation of {asked.source.fleet.scenario}", "attack"):
        if attack.name != base.name:
            rows.append(row_of(attack))
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
    is_ours(attack)  # imports what names need: no cost of this attack
    start = time.perf_counter()
    with metered() as meter:
        scores = run(asked, attack, folds=options.folds, seed=options.seed)
    seconds = time.perf_counter() - start
    measured = measure(
        asked.truth,
        scores,
        resamples=options.resamples,
        seed=options.seed,
        rates=RATES if options.bands else (),
    )
    return Row(attack.name, attack.title, attack.white_box, measured, None, seconds, meter.cost)


def guard(asked: Asked, attack: Attack, options: Options) -> None:
    """The leak guard, where the options want it."""
    wanted = {
        "auto": is_custom(attack) or not attack.white_box,
        "always": True,
        "never": False,
    }[options.blind_check]
    if wanted:
        # The tests of this package relabel every target of the named attacks.
        sample = SAMPLE if is_ours(attack) and options.blind_check == "auto" else None
        check_asked(attack, asked, folds=options.folds, seed=options.seed, sample=sample)


def scores_in_percent(metric: str) -> bool:
    """Whether people speak of a metric in percent."""
    return metric.startswith("TPR")


def interval_excludes_zero(estimate: Estimate) -> bool:
    """Whether a gain is more than chance at the interval's level."""
    return bool(np.isfinite(estimate.low)) and not estimate.low <= 0 <= estimate.high
