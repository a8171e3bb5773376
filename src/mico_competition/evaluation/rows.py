"""What an evaluation returns: a row for each attack, which tables and pages show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.cost import NO_COST, Cost
from mico_competition.evaluation.measure import Estimate, Measured
from mico_competition.evaluation.remarks import remarks


@dataclass(frozen=True)
class Row:
    """One attack: its metrics, its paired gain over the attack it is compared with, and its cost.

    `seconds` is wall-clock time, which depends on the load of the machine; `cost` does not. If more
    than the challenge points were scored, `challenge` has the metrics at these alone, and
    `challenge_gain` the gain.
    """

    name: str
    title: str
    white_box: bool
    measured: Measured
    gain: dict[str, Estimate] | None
    seconds: float
    cost: Cost = NO_COST
    challenge: Measured | None = None
    challenge_gain: dict[str, Estimate] | None = None


@dataclass(frozen=True)
class Evaluation:
    """All attacks on one scenario; `against` names the attack that the gains are measured over."""

    scenario: str
    phase: str
    records: str
    known: bool
    against: str
    rows: tuple[Row, ...]

    @property
    def knowledge(self) -> str:
        """What an attack knows about the targets besides the points to score."""
        return "distinguisher" if self.known else "standard"

    def remarks(self) -> list[str]:
        """What a reader must know of the numbers, in sentences."""
        return remarks({row.name: row.measured for row in self.rows})


@dataclass(frozen=True)
class Step:
    """The metrics of an attack with a given number of shadow models.

    `estimates` are means over the random choices of shadows, with intervals over targets;
    `spread` is the standard deviation of each metric over the choices (0 for a single choice).
    """

    attack: str
    shadows: int
    repeats: int
    estimates: dict[str, Estimate]
    spread: dict[str, float]


def scores_in_percent(metric: str) -> bool:
    """Whether a metric is usually given in percent."""
    return metric.startswith("TPR")


def interval_excludes_zero(estimate: Estimate) -> bool:
    """Whether the interval of a gain lies above or below 0."""
    return bool(np.isfinite(estimate.low)) and not estimate.low <= 0 <= estimate.high
