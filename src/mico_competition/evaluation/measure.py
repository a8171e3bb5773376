"""Measures scores: true positive rates, AUC, their intervals, and paired comparisons of attacks.

The definitions are those of `mico_competition.scoring`: the predictions of all models are pooled,
one threshold holds for all of them, and intervals are over models (`scoring.intervals`).  Two
attacks on the same targets are compared on the same resamples, so that the variation that they
share cancels in the difference.

An evaluation on all records has a million points.  Its resamples are computed from counts of points
in some 8,000 levels of score, which are dense enough around the reported false positive rates that
rounding to a level changes no reported digit.  The TPR at other rates has levels that are a
thousandth of a rate apart along the whole curve, whether one rate is asked for or a band.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mico_competition.scoring.curve import Curve, shown_curve
from mico_competition.scoring.few_models import around, standard_error
from mico_competition.scoring.few_records import joined, of_sum, rate_of
from mico_competition.scoring.intervals import (
    ScenarioIntervals,
    interval_method,
    percentile_interval,
    widened,
)

METRICS: Mapping[str, str] = {
    "TPR_FPR_1000": "TPR at 10% FPR",
    "TPR_FPR_100": "TPR at 1% FPR",
    "TPR_FPR_10": "TPR at 0.1% FPR",
    "AUC": "AUC",
}
"""Key of `scoring.score` -> what people call it."""

RANKED = next(iter(METRICS))
"""The metric that ranks submissions."""

REPORTED = {rate_of(key): key for key in METRICS if key != "AUC"}
"""False positive rate -> the metric that is the TPR there."""

RESAMPLES = 1000
LEVEL = 0.95
FEW = 50_000  # number of points up to which every distinct score is a level
_AROUND = 2500  # levels from half to twice each reported rate
_EVENLY = 1000  # levels over all rates
_APART = 1e-3  # of a rate: the distance of levels along a whole curve

UNKNOWN = (math.nan, math.nan)
_NOT_PAIRED = "Expected two attacks measured on the same models and resamples."

Interval = tuple[float, float]
PerModel = Sequence[np.ndarray] | np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval (nan if unknown), and the data of the interval.

    `draws` are the number's values in resamples of models; for fewer than 20 models, `left` are its
    values with each model left out, and `parts` those with each part of the records left out. `few`
    says that it depends on few records.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray
    left: np.ndarray = field(default_factory=lambda: np.zeros(0))
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    few: bool = False


@dataclass(frozen=True)
class Measured:
    """The results of an attack on its targets: an `Estimate` for each metric, and the ROC curve.

    `bands` has the interval of the TPR at each further false positive rate. `published` is the
    curve of a result of which no more is known: that of a file without scores.
    """

    estimates: Mapping[str, Estimate]
    fpr: np.ndarray
    tpr: np.ndarray
    models: int
    members: int
    nonmembers: int
    bands: Mapping[float, Interval] = field(default_factory=dict)
    published: Curve | None = None

    def shown_curve(self) -> Curve:
        """The part of the curve that a page or a file may show; see `scoring.curve`."""
        if self.published is not None:
            return self.published
        known = {"members": self.members, "nonmembers": self.nonmembers, "curve": self.bands}
        return shown_curve({"fpr": self.fpr, "tpr": self.tpr}, known)

    @property
    def method(self) -> str:
        """The method of the intervals, a key of `scoring.intervals.METHODS`."""
        return interval_method(self.models)

    def __getitem__(self, metric: str) -> Estimate:
        return self.estimates[metric]


def measure(
    truth: PerModel,
    scores: PerModel,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    rates: Sequence[float] = (),
) -> Measured:
    """The metrics of pooled scores, each with an interval over models.

    Args:
        truth: bool[models, points], or bool[points] for each model.
        scores: float of the same shape, finite, comparable over models.
        resamples: draws of models; equal for all compared attacks.
        level: of the intervals.
        seed: for the draws; equal for all compared attacks.
        rates: further false positive rates in (0, 1] for intervals of the TPR.

    Raises:
        ValueError: on scores that are not finite; if all points are members, or none; on
            `resamples` below 1.
    """
    further = [rate for rate in rates if rate not in REPORTED]
    along = _intervals(truth, scores, resamples, seed, further)
    exact = not further or sum(map(len, scores)) <= FEW
    made = along if exact else _intervals(truth, scores, resamples, seed)
    return Measured(
        {metric: _estimate(made, metric, level) for metric in METRICS},
        made.result["fpr"],
        made.result["tpr"],
        len(scores),
        made.members,
        made.nonmembers,
        {
            rate: (along if rate in further else made).interval(REPORTED.get(rate, rate), level)
            for rate in rates
        },
    )


def at_rate(
    truth: PerModel,
    scores: PerModel,
    rate: float,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """The TPR below one false positive rate in (0, 1], with its interval.

    The other arguments and the errors are those of `measure`.
    """
    further = () if rate in REPORTED else (rate,)
    made = _intervals(truth, scores, resamples, seed, further)
    return _estimate(made, REPORTED.get(rate, rate), level)


def _intervals(
    truth: PerModel, scores: PerModel, resamples: int, seed: int, rates: Sequence[float] = ()
) -> ScenarioIntervals:
    """The intervals of checked scores; with `rates`, of the TPR along the whole curve."""
    truth = [np.asarray(part) for part in truth]
    scores = [np.asarray(part, dtype=np.float64) for part in scores]
    shapes = [[part.shape for part in given] for given in (truth, scores)]
    if shapes[0] != shapes[1] or any(len(shape) != 1 for shape in shapes[0]):
        raise ValueError(
            "Expected truth and scores [models, points] with one score for each point, got "
            f"{_shape(truth)} and {_shape(scores)}."
        )
    if resamples < 1:
        raise ValueError(f"Expected resamples={resamples} >= 1: 1000 is usual.")
    pooled = np.concatenate([part.astype(bool) for part in truth]), np.concatenate(scores)
    ends = np.cumsum([part.size for part in scores])[:-1]
    levels = (
        None if pooled[1].size <= FEW else lambda: np.split(_levels(*pooled, bool(rates)), ends)
    )
    return ScenarioIntervals(
        [part.astype(np.int64) for part in truth], scores, resamples, seed, rates, levels
    )


def _shape(parts: Sequence[np.ndarray]) -> str:
    """The shape of arrays, one for each model, as a text."""
    shapes = {part.shape for part in parts}
    return str((len(parts), *next(iter(shapes)))) if len(shapes) == 1 else f"{len(parts)} arrays"


def _estimate(made: ScenarioIntervals, metric: str | float, level: float) -> Estimate:
    """The value of a metric or of the TPR below a rate, its interval, and data to compare."""
    both = ({}, {}) if made.left is None else (made.left.models, made.left.parts)
    left, parts = (np.array(one.get(metric, ())) for one in both)
    low, high = made.interval(metric, level)
    draws, few = made.draws.get(metric, np.zeros(0)), made.of_records(metric, level) is not None
    if isinstance(metric, str):
        value = float(made.result[metric])
    else:
        value = float(made.result["tpr"][made.result["fpr"] < metric].max())
    return Estimate(value, low, high, draws, left, parts, few)


def compare(one: Measured, other: Measured, *, level: float = LEVEL) -> dict[str, Estimate]:
    """`one` minus `other` in each metric, with the interval of the paired bootstrap.

    Args:
        one, other: from `measure` with equal truth, resamples and seed.
        level: of the intervals.

    Raises:
        ValueError: if the two are not of the same models and resamples.
    """
    if one.models != other.models:
        raise ValueError(_NOT_PAIRED)
    return {metric: difference(one[metric], other[metric], one.models, level) for metric in METRICS}


def difference(one: Estimate, other: Estimate, models: int, level: float = LEVEL) -> Estimate:
    """`one` minus `other`, two estimates on the same models and resamples, with its interval."""
    if one.draws.shape != other.draws.shape or one.left.shape != other.left.shape:
        raise ValueError(_NOT_PAIRED)
    return _combined((one, other), (1.0, -1.0), models, level, least=-1.0)


def mean_of(parts: list[Measured], metric: str, *, level: float = LEVEL) -> Estimate:
    """The mean of a metric over repetitions on the same models and resamples."""
    return mean_estimate([part[metric] for part in parts], parts[0].models, level=level)


def mean_estimate(
    estimates: Sequence[Estimate], models: int, *, least: float = 0.0, level: float = LEVEL
) -> Estimate:
    """The mean of estimates, each from `models` models and as many resamples.

    Over scenarios, which share no model, give each estimate its own seed. `least` is the smallest
    possible value: -1 for gains.
    """
    weights = [1 / len(estimates)] * len(estimates)
    return _combined(estimates, weights, models, level, least=least)


def _combined(
    estimates: Sequence[Estimate],
    weights: Sequence[float],
    models: int,
    level: float,
    *,
    least: float,
) -> Estimate:
    """A weighted sum of estimates on the same models, which is in [least, 1]."""

    def total(values: Iterable[Any]) -> Any:
        return sum(weight * value for weight, value in zip(weights, values))

    value = float(total(e.value for e in estimates))
    draws, left, parts = (
        total(getattr(e, name) for e in estimates) for name in ("draws", "left", "parts")
    )
    few = any(e.few for e in estimates)
    low, high = UNKNOWN
    if not any(math.isnan(e.low) for e in estimates):
        if len(draws):
            low, high = percentile_interval(draws, widened(models, level))
        if len(left):
            by_t = around(value, standard_error(left, parts), models, level)
            low, high = by_t if math.isnan(low) else joined((low, high), by_t)
        if few:
            ends = [(e.low, e.high) for e in estimates]
            if min(weights) > 0:  # of one attack on the same models, so nothing cancels
                apart = total(e.low for e in estimates), total(e.high for e in estimates)
            else:
                apart = of_sum([e.value for e in estimates], ends, weights)
            low, high = joined((low, high), apart)
        low, high = max(low, least), min(high, 1.0)
    return Estimate(value, low, high, draws, left, parts, few)


def _levels(truth: np.ndarray, scores: np.ndarray, along: bool = False) -> np.ndarray:
    """Integer levels of scores, in the same order, fine enough for the metrics.

    With `along`, they are fine enough for the TPR at every false positive rate.
    """
    outside = np.sort(scores[~truth])
    if along:
        shares = np.geomspace(1 / len(outside), 1, 1 + int(math.log(len(outside)) / _APART))
    else:
        shares = np.concatenate(
            [
                np.linspace(0, 1, _EVENLY),
                np.geomspace(1 / len(outside), min(REPORTED) / 2, _EVENLY),
                *(np.geomspace(rate / 2, 2 * rate, _AROUND) for rate in REPORTED),
            ]
        )
    places = np.unique((len(outside) * (1 - shares)).astype(np.int64)).clip(0, len(outside) - 1)
    return np.searchsorted(np.unique(outside[places]), scores, side="right").astype(np.float64)
