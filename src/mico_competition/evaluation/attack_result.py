"""One attack's result: its scores, and the numbers that are measured from them with intervals.

Scores of all target models are pooled and one threshold holds for all of them, as everywhere in
this package.  Intervals are over target models (`scoring.intervals`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mico_competition.attacks.cost import NO_COST, Cost
from mico_competition.evaluation.measure import (
    LEVEL,
    REPORTED,
    RESAMPLES,
    Estimate,
    Measured,
    at_rate,
    measure,
)
from mico_competition.evaluation.rows import Row
from mico_competition.scoring.curve import RATES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_ACCEPTED = 5  # non-members at the first rate of a band
DRAWN = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, *RATES)
"""False positive rates of the bands of figures, as far as the non-members resolve them."""


class Number(NamedTuple):
    """A number with its 95 % interval; `low` and `high` are nan if the interval is not known.

    >>> value, low, high = Number(0.5, 0.25, 0.75)
    >>> print(Number(0.5, 0.25, 0.75))
    0.500 [0.250, 0.750]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        words = f"{self.value:.3f}"
        return words if math.isnan(self.low) else f"{words} [{self.low:.3f}, {self.high:.3f}]"


class Roc(NamedTuple):
    """A ROC curve: float64[points] each, from (0, 0) to (1, 1), never decreasing."""

    fpr: np.ndarray
    tpr: np.ndarray


class UnresolvedRate(UserWarning):
    """A false positive rate is below that of one non-member."""


@dataclass(frozen=True, eq=False)
class Points:
    """The scored points of an attack: for each target model, bool[points] and float64[points]."""

    truth: np.ndarray
    scores: np.ndarray
    known: np.ndarray | None = None

    @property
    def measured(self) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
        """Truth and scores of the points whose membership is known, one array for each model."""
        if self.known is None:
            return list(self.truth), list(self.scores)
        parts = [(t[k], s[k]) for t, s, k in zip(self.truth, self.scores, self.known)]
        return [truth for truth, _ in parts], [scores for _, scores in parts]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """One attack: its scores, and the numbers that are measured from them.

    Make one with `of`; `evaluate` gives one for each attack.

    Attributes:
        name: of the attack.
        title: what it does, in a line.
        white_box: whether it uses the targets' weights.
        measured: the metrics with their intervals, and the ROC curve.
        seconds: wall-clock time of the attack.
        cost: its CPU seconds, and the number of models and records that it used.
        gain: metric -> its paired gain over the baseline; None for the baseline itself.
        points: truth and scores; None if they were loaded from a file without them.
        resamples: of the models, for the intervals.
        seed: of the resamples.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.random((8, 200)) < 0.5
    >>> result = AttackResult.of("mine", truth, rng.normal(size=truth.shape) + truth)
    >>> print(result.tpr(fpr=0.1), result.auc)
    0.380 [0.313, 0.485] 0.753 [0.716, 0.787]
    """

    name: str
    title: str
    white_box: bool
    measured: Measured
    seconds: float = 0.0
    cost: Cost = NO_COST
    gain: Mapping[str, Estimate] | None = None
    points: Points | None = None
    resamples: int = RESAMPLES
    seed: int = 0
    _rates: dict[tuple[float, float], Estimate] = field(default_factory=dict, repr=False)
    _banded: list[Measured] = field(default_factory=list, repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        truth: Any,
        scores: Any,
        *,
        known: Any = None,
        title: str = "",
        white_box: bool = False,
        seconds: float = 0.0,
        cost: Cost = NO_COST,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> AttackResult:
        """Measure the scores of an attack.

        Args:
            name: of the attack.
            truth: bool[targets, points], whether each point is a member.
            scores: float[targets, points], finite, larger for likelier members, comparable over
                models.
            known: bool[targets, points], where the membership is known; by default everywhere.
                Other points do not count.
            title: what the attack does, in a line.
            white_box: whether it uses the targets' weights.
            seconds: its wall-clock time.
            cost: see `attacks.cost`.
            resamples: draws of models for the intervals, the same for all attacks.
            seed: of the draws, the same for all attacks.

        Raises:
            ValueError: on scores that are not finite, on shapes that differ, if all known points
                are members or none.
        """
        points = _points(truth, scores, known)
        measured = measure(*points.measured, resamples=resamples, seed=seed)
        return cls(
            name,
            title,
            white_box,
            measured,
            seconds,
            cost,
            points=points,
            resamples=resamples,
            seed=seed,
        )

    @property
    def truth(self) -> np.ndarray:
        """bool[targets, points], whether each point is a member."""
        return self._kept().truth

    @property
    def scores(self) -> np.ndarray:
        """float64[targets, points], larger for likelier members."""
        return self._kept().scores

    @property
    def auc(self) -> Number:
        """The area under the ROC curve in [0, 1], with its 95 % interval; 0.5 by guessing."""
        return _number(self.measured["AUC"])

    def tpr(self, fpr: float, *, level: float = LEVEL) -> Number:
        """The best true positive rate below a false positive rate, with its interval.

        Args:
            fpr: in (0, 1); the rule is that of the competition, a false positive rate strictly
                below `fpr`.
            level: of the interval, in (0, 1).

        Returns:
            `Number(value, low, high)`, rates in [0, 1].  The interval is over target models, by
            the method that the module describes; it is nan for a single model, and of two to five
            models if fewer than three non-members are accepted.  An `fpr` below 1 / non-members
            allows no false positive at all: then the value is the TPR without any, the interval
            widens accordingly, and the warning `UnresolvedRate` says so.

        Raises:
            ValueError: if `fpr` or `level` is not in (0, 1); if the result was loaded from a file
                without scores, and the file has no such rate.
        """
        return _number(self._at(fpr, level))

    def _at(self, fpr: float, level: float) -> Estimate:
        """The estimate of `tpr`; with the data for comparisons unless it comes from a file."""
        for name, value in (("fpr", fpr), ("level", level)):
            if not isinstance(value, Real) or not 0 < value < 1:
                raise ValueError(
                    f"Expected {name}={value!r} in (0, 1): give a fraction, such as 0.01 for 1%."
                )
        if fpr * self.measured.nonmembers < 1:
            warnings.warn(
                f"fpr={fpr:g} is less than one of {self.measured.nonmembers:,} non-members: this "
                "is the TPR without any false positive. Attack more models or records to resolve "
                "smaller rates.",
                UnresolvedRate,
                stacklevel=3,
            )
        if (fpr, level) not in self._rates:
            self._rates[fpr, level] = self._measured_at(fpr, level)
        return self._rates[fpr, level]

    def _measured_at(self, fpr: float, level: float) -> Estimate:
        if fpr in REPORTED and level == LEVEL:
            return self.measured[REPORTED[fpr]]
        if self.points is None and level == LEVEL and fpr in self.measured.bands:
            value = float(self.measured.tpr[self.measured.fpr < fpr].max())
            return Estimate(value, *self.measured.bands[fpr], np.zeros(0))
        truth, scores = self._kept().measured
        options = {"resamples": self.resamples, "seed": self.seed}
        return at_rate(truth, scores, fpr, level=level, **options)

    def with_bands(self) -> Measured:
        """The metrics, the ROC curve and the intervals along it, computed when first needed."""
        if self.points is None:
            return self.measured
        if not self._banded:
            outside = self.measured.nonmembers
            rates = [rate for rate in DRAWN if rate in RATES or rate * outside >= FEWEST_ACCEPTED]
            truth, scores = self.points.measured
            self._banded.append(
                measure(truth, scores, resamples=self.resamples, seed=self.seed, rates=rates)
            )
        return self._banded[0]

    def roc(self) -> Roc:
        """The ROC curve over all thresholds, the points of all target models pooled.

        Whoever has the scores can read the labels off the exact curve: publish a figure of it only
        where the labels may be known.
        """
        return Roc(self.measured.fpr, self.measured.tpr)

    def plot(self, **options: Any) -> Figure:
        """Draw the ROC curve; the arguments and the figure are those of `Results.plot`."""
        from mico_competition.evaluation.results import Results

        return Results([self]).plot(**options)

    def row(self) -> Row:
        """The attack as a row of an evaluation's tables and pages."""
        gain = None if self.gain is None else dict(self.gain)
        return Row(
            self.name,
            self.title,
            self.white_box,
            self.with_bands(),
            gain,
            self.seconds,
            self.cost,
        )

    def __str__(self) -> str:
        from mico_competition.evaluation.results import Results

        return str(Results([self]))

    def _kept(self) -> Points:
        if self.points is None:
            raise ValueError(
                f"The result of {self.name!r} was saved without its scores, which this needs: save "
                "it with `save(path, scores=True)`."
            )
        return self.points


def _number(estimate: Estimate) -> Number:
    return Number(estimate.value, estimate.low, estimate.high)


def _points(truth: Any, scores: Any, known: Any) -> Points:
    """The checked points."""
    member, values = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if member.ndim != 2 or member.shape != values.shape:
        raise ValueError(
            "Expected truth and scores of one shape [targets, points], got "
            f"{member.shape} and {values.shape}."
        )
    if known is None:
        where = None
    else:
        where = np.asarray(known, dtype=bool)
        if where.shape != member.shape:
            raise ValueError(
                f"Expected known of the shape of truth, {member.shape}, got {where.shape}."
            )
    used = member if where is None else member[where]
    if not ((used == 0) | (used == 1)).all():
        raise ValueError(
            "Expected truth to be True (member) or False (non-member) at each known point: pass "
            "`known`, a mask, if the membership of some points is not known."
        )
    return Points(member == 1, values, where)
