"""How good scores are: true positive rates, AUC, their intervals, and paired comparisons.

The definitions are those of `mico_competition.scoring`: predictions of all models pooled, one
threshold, and a bootstrap over models.  Two attacks on the same targets are compared on the same
resamples, so that what models have in common drops out of the difference.

A low-noise estimate has a million points; its resamples are taken from counts of points in some
8,000 levels of score, as dense around the reported false positive rates as makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mico_competition.scoring import score
from mico_competition.scoring.intervals import percentile_interval, widened
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
    """A number, its 95 % interval (nan where there is one model only), and its draws."""

    value: float
    low: float
    high: float
    draws: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What an attack is worth on its targets: an `Estimate` a metric, and the ROC curve."""

    estimates: Mapping[str, Estimate]
    fpr: np.ndarray
    tpr: np.ndarray
    models: int
    members: int
    nonmembers: int

    def __getitem__(self, metric: str) -> Estimate:
        return self.estimates[metric]


def measure(
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Measured:
    """The metrics of pooled scores, each with a bootstrap over models.

    Args:
        truth: bool[models, points].
        scores: float[models, points], finite, comparable over models.
        resamples: draws of models; equal for all attacks that are to be compared.
        level: of the intervals.
        seed: of the draws; equal likewise.

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
    levels = scores if scores.size <= FEW else _levels(truth, scores)
    count = resamples if len(scores) > 1 else 1
    draws, _ = resample_scores(list(member), list(levels), resamples=count, seed=seed)
    estimates = {
        metric: _estimate(exact[metric], draws[metric], len(scores), level) for metric in METRICS
    }
    members = int(truth.sum())
    return Measured(
        estimates, exact["fpr"], exact["tpr"], len(scores), members, truth.size - members
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
        difference = mine.value - theirs.value
        found[metric] = _estimate(difference, mine.draws - theirs.draws, one.models, level)
    return found


def mean_of(parts: list[Measured], metric: str, *, level: float = LEVEL) -> Estimate:
    """The mean of a metric over repetitions on the same models and resamples."""
    value = float(np.mean([part[metric].value for part in parts]))
    draws = np.mean([part[metric].draws for part in parts], axis=0)
    return _estimate(value, draws, parts[0].models, level)


def _estimate(value: float, draws: np.ndarray, models: int, level: float) -> Estimate:
    low = high = float("nan")
    if models > 1 and len(draws):
        low, high = percentile_interval(draws, widened(models, level))
    return Estimate(float(value), low, high, draws)


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
