"""Whether one attack is better than another on the same targets: a paired test.

Both are measured on the same resamples of models (`evaluation.measure`), so differences between
models cancel. The p-value belongs to the interval: docs/METHODS.md, section 7.5 (formula 63).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mico_competition.audit.checked import check_level
from mico_competition.evaluation.measure import (
    LEVEL,
    METRICS,
    RESAMPLES,
    Estimate,
    difference,
    measure,
)
from mico_competition.scoring.few_models import standard_error, t_below
from mico_competition.scoring.intervals import widened


class Paired(NamedTuple):
    """The difference between two attacks, with its interval and p-value.

    >>> print(Paired(0.0625, 0.03125, 0.09375, 0.015625))
    +0.062 [0.031, 0.094], p = 0.016
    """

    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        interval = f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.difference:+.3f} {interval}, p = {self.p_value:.3f}"


def paired_test(
    truth: Any,
    scores_one: Any,
    scores_other: Any,
    *,
    metric: str = "TPR_FPR_1000",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Paired:
    """The paired test of two attacks, two-sided.

    Args:
        truth: bool[models, points].
        scores_one, scores_other: float[models, points], finite, each comparable over models.
        metric: one of `evaluation.measure.METRICS`.
        resamples: draws of models; p-values are about multiples of 2 / resamples.
        level: of the interval.
        seed: for the resamples.

    Returns:
        `Paired(difference, low, high, p_value)`: the metric of `scores_one` minus that of
        `scores_other`. Two attacks with equal scores have the p-value 1.

    Raises:
        ValueError: as `measure`; on an unknown metric; on a single model, which gives no variance
            between models.
    """
    check_level(level)
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}: take one of {', '.join(METRICS)}.")
    truth = np.asarray(truth).astype(bool)
    if len(truth) < 2:
        raise ValueError("Expected at least two models to compare attacks on, got one: add models.")
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    one, other = (measure(truth, scores, **options) for scores in (scores_one, scores_other))
    return paired(one[metric], other[metric], len(truth), level=level)


def paired(one: Estimate, other: Estimate, models: int, *, level: float = LEVEL) -> Paired:
    """`one` minus `other`, two estimates on the same models and resamples, with its p-value."""
    found = difference(one, other, models, level)
    likely = [p_value(found.draws, models)] if len(found.draws) else []
    likely += [_t_p_value(found, models)] if len(found.left) else []
    if found.low <= 0 <= found.high:  # also if few records widen the interval
        likely.append(1 - level)
    return Paired(found.value, found.low, found.high, max(likely, default=float("nan")))


def _t_p_value(found: Estimate, models: int) -> float:
    """The p-value of Student's t, two-sided; nan where the interval is not known."""
    if np.isnan(found.low):
        return float("nan")
    error = standard_error(found.left, found.parts)
    if not error:
        return 1.0
    return 2 * (1 - t_below(abs(found.value) / error, models - 1))


def p_value(draws: np.ndarray, models: int) -> float:
    """The two-sided p-value of a difference, in (0, 1].

    Args:
        draws: the difference in each resample.
        models: the number of models in each resample, 2 or more.
    """
    # One more at each end, so that no p-value is 0.
    ends = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)) + 1
    plain = 1 - 2 * ends / (draws.size + 1)  # the level at which a percentile interval ends at 0
    if plain <= 0:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if widened(models, middle) < plain else (low, middle)
    return 1 - low
