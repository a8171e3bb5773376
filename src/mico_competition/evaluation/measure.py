"""How good scores are: true positive rates, AUC, their intervals, and paired comparisons.

The definitions are those of `mico_competition.scoring`: predictions of all models pooled, one
threshold, and a bootstrap over models, or Student's t where models are fewer than six.  Two attacks
on the same targets are compared on the same resamples, so that what models have in common drops
out of the difference.

A low-noise estimate has a million points; its resamples are taken from counts of points in some
8,000 levels of score, as dense around the reported false positive rates as makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mico_competition.scoring import score
from mico_competition.scoring.few_models import LeftOut, around, standard_error, t_interval
from mico_competition.scoring.intervals import interval_method, percentile_interval, widened
from mico_competition.scoring.resampling import resample_scores

METRICS: Mapping[str, str] = {
    "TPR_FPR_1000": "TPR at 10% FPR",
    "TPR_FPR_100": "TPR at 1% FPR",
    "TPR_FPR_10": "TPR at 0.1% FPR",
    "AUC": "AUC",
}
"""Key of `scoring.score` -> what people call it."""

RESAMPLES = 1000
LEVEL = 0.95
FEW = 50_000  # points up to which every distinct score is a level of its own
_AROUND = 2500  # levels from half to twice each reported rate
_EVENLY = 1000  # levels over all rates

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval (nan where it is not known), and what that was made from.

    `draws` are the number's values in resamples of models; of fewer than six models, its values
    with each model left out, and `parts` those with each part of the records left out.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray
    parts: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """What an attack is worth on its targets: an `Estimate` a metric, and the ROC curve.

    `bands` has the interval of the TPR at each further false positive rate that was asked for.
    """

    estimates: Mapping[str, Estimate]
    fpr: np.ndarray
    tpr: np.ndarray
    models: int
    members: int
    nonmembers: int
    bands: Mapping[float, Interval] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """How the intervals were made, a key of `scoring.intervals.METHODS`."""
        return interval_method(self.models)

    def __getitem__(self, metric: str) -> Estimate:
        return self.estimates[metric]


def measure(
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    rates: Sequence[float] = (),
) -> Measured:
    """The metrics of pooled scores, each with an interval over models.

    Args:
        truth: bool[models, points].
        scores: float[models, points], finite, comparable over models.
        resamples: draws of models; equal for all attacks that are to be compared.
        level: of the intervals.
        seed: of the draws; equal likewise.
        rates: further false positive rates in (0, 1] at which to give an interval of the TPR.

    Raises:
        ValueError: on scores that are not finite; if all points are members, or none; on
            `resamples` below 1.
    """
    truth, scores = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != scores.shape:
        raise ValueError(
            f"Expected truth and scores [models, points], got {truth.shape} and {scores.shape}."
        )
    if resamples < 1:
        raise ValueError(f"Expected resamples={resamples} >= 1: 1000 is usual.")
    member = truth.astype(np.int64)
    exact = score(member.ravel(), scores.ravel())
    if interval_method(len(scores)) == "bootstrap":
        levels = scores if scores.size <= FEW else _levels(truth, scores)
        draws, curves = resample_scores(
            list(member), list(levels), resamples=resamples, seed=seed, rates=rates
        )
        estimates = {
            metric: _of_draws(exact[metric], draws[metric], len(scores), level)
            for metric in METRICS
        }
        ends = [_of_draws(0.0, column, len(scores), level) for column in curves.T]
        bands = {rate: (end.low, end.high) for rate, end in zip(rates, ends)}
    else:
        left = LeftOut(list(member), list(scores), rates, seed)
        estimates = {metric: _of_few(left, metric, level) for metric in METRICS}
        if left.count > 1:
            bands = {rate: t_interval(left, rate, level) for rate in rates}
        else:
            bands = dict.fromkeys(rates, (math.nan, math.nan))
    members = int(truth.sum())
    return Measured(
        estimates,
        exact["fpr"],
        exact["tpr"],
        len(scores),
        members,
        truth.size - members,
        bands,
    )


def compare(one: Measured, other: Measured, *, level: float = LEVEL) -> dict[str, Estimate]:
    """`one` less `other` in each metric, with the interval of the paired bootstrap.

    Args:
        one, other: from `measure` with equal truth, resamples and seed.
        level: of the intervals.

    Raises:
        ValueError: if the two are not of the same models and resamples.
    """
    found = {}
    for metric in METRICS:
        mine, theirs = one[metric], other[metric]
        if one.models != other.models or mine.draws.shape != theirs.draws.shape:
            raise ValueError("Expected two attacks measured on the same models and resamples.")
        found[metric] = _combined((mine, theirs), (1.0, -1.0), one.models, level, least=-1.0)
    return found


def mean_of(parts: list[Measured], metric: str, *, level: float = LEVEL) -> Estimate:
    """The mean of a metric over repetitions on the same models and resamples."""
    estimates = [part[metric] for part in parts]
    weights = [1 / len(parts)] * len(parts)
    return _combined(estimates, weights, parts[0].models, level, least=0.0)


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

    value, draws = total(e.value for e in estimates), total(e.draws for e in estimates)
    if interval_method(models) == "bootstrap":
        return _of_draws(value, draws, models, level)
    low = high = float("nan")
    parts = total(np.asarray(e.parts) for e in estimates)
    if not any(math.isnan(e.low) for e in estimates):
        low, high = around(value, standard_error(draws, parts), models, level)
        low, high = max(low, least), min(high, 1.0)
    return Estimate(float(value), low, high, draws, parts)


def _of_draws(value: float, draws: np.ndarray, models: int, level: float) -> Estimate:
    low = high = float("nan")
    if len(draws):
        low, high = percentile_interval(draws, widened(models, level))
    return Estimate(float(value), low, high, draws)


def _of_few(left: LeftOut, metric: str, level: float) -> Estimate:
    low = high = float("nan")
    if left.count > 1:
        low, high = t_interval(left, metric, level)
    draws, parts = np.array(left.models[metric]), np.array(left.parts[metric])
    return Estimate(float(left.value[metric]), low, high, draws, parts)


def _levels(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whole numbers in place of scores, in the same order, that tell enough for the metrics."""
    outside = np.sort(scores[~truth])
    rates = [0.1, 0.01, 0.001]
    shares = np.concatenate(
        [
            np.linspace(0, 1, _EVENLY),
            np.geomspace(1 / len(outside), min(rates) / 2, _EVENLY),
            *(np.geomspace(rate / 2, 2 * rate, _AROUND) for rate in rates),
        ]
    )
    places = np.unique((len(outside) * (1 - shares)).astype(np.int64)).clip(0, len(outside) - 1)
    return np.searchsorted(np.unique(outside[places]), scores, side="right").astype(np.float64)
