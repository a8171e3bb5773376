"""Runs attacks on the fleets of a tier, and measures their ranks into the fields of an entry."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.attacks.cost import metered
from mico_competition.attacks.problem import Attack
from mico_competition.attacks.registry import WINNERS_FORMULAS, get_attack
from mico_competition.benchmark.ranks import dense_ranks, pack, ranks_sha256
from mico_competition.evaluation.cross_fitting import EvaluationTask, make_task
from mico_competition.evaluation.evaluate import Options, scores_of
from mico_competition.evaluation.measure import (
    METRICS,
    RANKED,
    Estimate,
    Measured,
    compare,
    mean_estimate,
    measure,
)
from mico_competition.evaluation.remarks import remarks
from mico_competition.signals import open_signals
from mico_competition.support.progress import stage

_log = logging.getLogger(__name__)

SEED, RESAMPLES, FOLDS = 0, 1000, 5
OPTIONS = Options(FOLDS, RESAMPLES, SEED)
DIGITS = 6


@dataclass(frozen=True)
class Run:
    """A run of an attack on one scenario.

    Attributes:
        ranks: of its scores, uint16[targets, 2m].
        used: the seconds, by the names of an entry.
        read: what it read of the models, as `attacks.cost.Meter.read`.
    """

    ranks: np.ndarray
    used: Mapping[str, float]
    read: frozenset[str]


@dataclass(frozen=True)
class OpenFleet:
    """The fleet of one scenario, with what its attacks share.

    Attributes:
        scenario: its name.
        folder: of its challenge.
        data: the dataset.
        models: ids of the models that take part.
        phase: of the targets.
        fingerprint: of the models (`reference_fleets.fleet_fingerprint`).
        place: the number of the scenario in its tier, which chooses the resamples.
        facts: further fields of the scenario in an entry: epsilon and limit.
        cache: folder of signals, or None for the user's.
    """

    scenario: str
    folder: Path
    data: Any
    models: Sequence[int]
    phase: str
    fingerprint: str
    place: int
    facts: Mapping[str, Any]
    cache: Path | None = None

    @cached_property
    def task(self) -> EvaluationTask:
        """The targets and their challenge points."""
        return self._task("challenge")

    @cached_property
    def wide_task(self) -> EvaluationTask:
        """The same for attacks that need the signals of all records."""
        return self._task("all")

    def _task(self, records: str) -> EvaluationTask:
        source = open_signals(
            self.folder,
            self.scenario,
            self.data,
            records=records,
            phases=tuple(dict.fromkeys(("train", self.phase))),
            models=self.models,
            cache=self.cache,
        )
        return make_task(source, self.phase, seed=SEED)

    @cached_property
    def winner(self) -> tuple[str, np.ndarray, Measured]:
        """The winner's formula that is best on these targets: its name, ranks and numbers."""
        with stage(f"The winner's formulas on {self.scenario}", len(WINNERS_FORMULAS), "formula"):
            found = [
                (name, ranks, self.measured(ranks))
                for name in WINNERS_FORMULAS
                for ranks in [self.run(get_attack(name)).ranks]
            ]
        return max(found, key=lambda one: one[2][RANKED].value)

    def run(self, attack: Attack) -> Run:
        """Run an attack on the targets; see `Run`."""
        task = self.wide_task if attack.all_records else self.task
        with metered() as meter:
            scores, seconds, cost = scores_of(task, attack, OPTIONS)
        used = {
            "cpu_seconds": round(cost.cpu_seconds, 3),
            "signal_cpu_seconds": round(cost.signal_cpu_seconds, 3),
            "seconds": round(seconds, 3),
        }
        return Run(dense_ranks(scores), used, frozenset(meter.read))

    def measured(self, ranks: np.ndarray) -> Measured:
        """The numbers of ranks."""
        return measured_ranks(self.task.truth, ranks, self.place)


def measured_ranks(truth: np.ndarray, ranks: np.ndarray, place: int) -> Measured:
    """The numbers of ranks in the scenario with this place in its tier.

    Args:
        truth: bool[targets, 2m].
        ranks: uint16[targets, 2m].
        place: 0 for the first scenario; each has its own resamples, since they share no model.
    """
    return measure(truth, ranks, resamples=RESAMPLES, seed=SEED + place)


@dataclass(frozen=True)
class Result:
    """An attack on one scenario, measured beside the winner's best formula."""

    ranks: np.ndarray
    measured: Measured
    winner_name: str
    winner_ranks: np.ndarray
    winner: Measured

    @property
    def gain(self) -> dict[str, Estimate]:
        """The attack minus the winner's formula, paired over targets."""
        return compare(self.measured, self.winner)

    def fields(self) -> dict[str, Any]:
        """What an entry says of this scenario's numbers."""
        return {
            "targets": self.measured.models,
            "members": self.measured.members,
            "nonmembers": self.measured.nonmembers,
            "metrics": numbers(self.measured.estimates),
            "gain": numbers(self.gain),
            "ranks": {"sha256": ranks_sha256(self.ranks), "data": pack(self.ranks)},
            "winner": {
                "formula": self.winner_name,
                "metrics": numbers(self.winner.estimates),
                "ranks": {
                    "sha256": ranks_sha256(self.winner_ranks),
                    "data": pack(self.winner_ranks),
                },
            },
        }


def result_of(fleet: OpenFleet, attack: Attack) -> tuple[Result, Run]:
    """An attack's numbers on one scenario, and its run; ties and a wrong sign are logged."""
    run = fleet.run(attack)
    measured = fleet.measured(run.ranks)
    for remark in remarks({f"{attack.name} on {fleet.scenario}": measured}):
        _log.warning(remark)
    return Result(run.ranks, measured, *fleet.winner), run


def numbers(estimates: Mapping[str, Estimate]) -> dict[str, list[float | None]]:
    """Each metric as [value, low, high], rounded; None where an end is not known."""
    return {
        metric: [_rounded(getattr(estimates[metric], end)) for end in ("value", "low", "high")]
        for metric in METRICS
    }


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) + 0.0 if math.isfinite(value) else None


def averages(results: Sequence[Result]) -> dict[str, Any]:
    """The means over scenarios: of each metric, and of each paired gain."""
    models = min(result.measured.models for result in results)
    parts = [(result.measured.estimates, result.gain) for result in results]
    return {
        "metrics": numbers({m: mean_estimate([p[0][m] for p in parts], models) for m in METRICS}),
        "gain": numbers(
            {m: mean_estimate([p[1][m] for p in parts], models, least=-1.0) for m in METRICS}
        ),
    }
