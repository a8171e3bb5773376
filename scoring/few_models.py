"""Confidence intervals of scores from few models, by the jackknife and Student's t.

They are used for two to five models.  From 6 to 19 models, the wider one of this interval and a
bootstrap interval is used.

A bootstrap over so few models fails: of two models there are only three different draws, and its
95 % intervals covered the true value 53 times in 100.  Instead, the jackknife gives the standard
error, of rates and areas as log odds, and it is never below that of the records alone:
docs/METHODS.md, section 7.2 (formula 60).  Models of unequal sizes count as fewer models
(`effective_models`).  docs/RESULTS.md has the measured coverage of these intervals.
"""

import math
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy as np

from .few_records import rate_of
from .metrics import SCALARS, score

Numbers = Union[Sequence[float], np.ndarray]

PARTS = 10
"""The number of parts of the records, each with its share of every model and kind."""

ACCEPTED = 3
"""The interval of a TPR needs a rate at which this number of non-members is accepted."""

_NOISE = 0.83
"""The median of the largest difference of two empirical distributions without any signal, in units
of sqrt(1/m + 1/n): the median of Kolmogorov's distribution."""

Interval = Tuple[float, float]


def t_below(t: float, freedom: int) -> float:
    """The probability that Student's t is below `t`.

    Source: Abramowitz & Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4.

    >>> round(t_below(12.706, 1), 4), round(t_below(2.776, 4), 4)
    (0.975, 0.975)
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine2 = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine2 * k / (k + 1)
    area = math.sin(angle) * total
    return 0.5 + (angle + area) / math.pi if odd else 0.5 + area / 2


def t_quantile(probability: float, freedom: int) -> float:
    """The inverse of `t_below`, by bisection, for probabilities >= 0.5.

    >>> round(t_quantile(0.975, 1), 3), round(t_quantile(0.975, 3), 3)
    (12.706, 3.182)
    """
    low, high = 0.0, 1.0
    while t_below(high, freedom) < probability and high < 1e15:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_below(middle, freedom) < probability else (low, middle)
    return high


def effective_models(sizes: Sequence[int]) -> int:
    """The effective number of models of unequal sizes: (sum of sizes)^2 / (sum of squares).

    Source: Kish, "Survey Sampling" (1965), section 8.2, of unequal weights.

    >>> effective_models([100] * 7), effective_models([20] * 6 + [2000])
    (7, 1)
    """
    total = float(sum(sizes))
    return int(total * total / sum(float(size) ** 2 for size in sizes) + 0.5)


class LeftOut:
    """The scores of a scenario, and its scores with parts of the data left out.

    Attributes:
        value: key -> the score of all models.
        models: key -> the score with each model left out.
        parts: key -> the score with each part of the records left out.
        result: the result of `metrics.score` for all models.
        count: the effective number of models.
        members, nonmembers: the number of records of each kind.
    """

    def __init__(
        self,
        solutions: Sequence[Any],
        predictions: Sequence[Any],
        rates: Sequence[float] = (),
        seed: int = 0,
    ) -> None:
        sizes = [len(part) for part in solutions]
        model = np.repeat(np.arange(len(sizes)), sizes)
        truth = np.concatenate([np.asarray(part) for part in solutions])
        values = np.concatenate([np.asarray(part) for part in predictions])
        self.count = effective_models(sizes)
        self.members = int(np.count_nonzero(truth))
        self.nonmembers = truth.size - self.members
        self.result = score(truth, values)
        self.value = _read(self.result, rates)
        part = _parts(model, truth, seed)
        self.models = _without_each(model, truth, values, rates)
        self.parts = _without_each(part, truth, values, rates)


def _scores(truth: np.ndarray, values: np.ndarray, rates: Sequence[float]) -> Dict[Any, float]:
    """All scores by key, and the TPR below each additional rate by the rate."""
    return _read(score(truth, values), rates)


def _read(found: Dict[str, Any], rates: Sequence[float]) -> Dict[Any, float]:
    result: Dict[Any, float] = {key: found[key] for key in SCALARS}
    for rate in rates:
        result[rate] = float(found["tpr"][found["fpr"] < rate].max())
    return result


def _parts(model: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """A random partition of the records, with equally many of every model and kind in each part."""
    # random_sample is the one stream that is the same in every numpy and on every system.
    order = np.lexsort((np.random.RandomState(seed).random_sample(truth.size), truth, model))
    part = np.empty(truth.size, dtype=np.int64)
    part[order] = np.arange(truth.size) % PARTS
    return part


def _without_each(
    group: np.ndarray, truth: np.ndarray, values: np.ndarray, rates: Sequence[float]
) -> Dict[Any, List[float]]:
    """The scores without each group; none if only members or only non-members are left."""
    found: Dict[Any, List[float]] = {key: [] for key in tuple(SCALARS) + tuple(rates)}
    for i in range(int(group.max()) + 1):
        kept = group != i
        if kept.any() and truth[kept].min() < truth[kept].max():
            for key, value in _scores(truth[kept], values[kept], rates).items():
                found[key].append(value)
    return found


def standard_error(models: Numbers, parts: Numbers) -> float:
    """The jackknife standard error over models, but at least that over parts of the records.

    Args:
        models: the estimate with each model left out.
        parts: the estimate with each part of the records left out.

    Returns:
        A number >= 0; nan if fewer than two estimates are left over models.
    """
    if len(models) < 2:
        return math.nan
    return max(_jackknife(models), _jackknife(parts) if len(parts) > 1 else 0.0)


def _jackknife(left_out: Numbers) -> float:
    # The sums are exact, so that every version of numpy gives the same interval.
    count, mean = len(left_out), math.fsum(left_out) / len(left_out)
    return math.sqrt((count - 1) / count * math.fsum((one - mean) ** 2 for one in left_out))


def around(value: float, error: float, models: int, level: float) -> Interval:
    """The t interval of a value with a standard error from a number of models."""
    reach = t_quantile((1 + level) / 2, models - 1) * error
    return value - reach, value + reach


def t_interval(left: LeftOut, key: Any, level: float) -> Interval:
    """The interval of a rate or an area.

    Args:
        left: the scores of two models or more.
        key: one of `metrics.SCALARS`, or one of the rates that `left` was made with.
        level: the confidence level, in (0, 1).

    Returns:
        `(low, high)` in [0, 1], around the score; nan if a rate is too small (`enough`), or if no
        score is left without one of the models.
    """
    if key in ("MIA", "accuracy"):
        return _advantage(left, key, level)
    if not enough(key, left.nonmembers):
        return math.nan, math.nan
    value = left.value[key]
    units = left.members * (left.nonmembers if key == "AUC" else 1)
    models, parts, (middle,) = (
        [_log_odds(rate, units) for rate in rates]
        for rates in (left.models[key], left.parts[key], [value])
    )
    low, high = around(middle, standard_error(models, parts), left.count, level)
    if math.isnan(low):
        return low, high
    return min(_share(low), value), max(_share(high), value)


def enough(key: Any, nonmembers: int) -> bool:
    """Whether there are enough non-members for an interval of a score, or of the TPR at a rate."""
    if isinstance(key, str) and not key.startswith("TPR_FPR_"):
        return True
    return rate_of(key) * nonmembers > ACCEPTED - 1e-9


def _log_odds(rate: float, units: int) -> float:
    """Log odds that are finite for 0 and 1 too: half a unit (record or pair) is added to both."""
    return math.log((rate * units + 0.5) / ((1 - rate) * units + 0.5))


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(min(-log_odds, 700.0)))


def _advantage(left: LeftOut, key: str, level: float) -> Interval:
    """The interval of the advantage; its lower end corrects for noise, which raises a maximum."""
    value = left.value["MIA"]
    error = standard_error(left.models["MIA"], left.parts["MIA"])
    low, high = around(value, error, left.count, level)
    low -= _NOISE * math.sqrt(1 / left.members + 1 / left.nonmembers)
    if not math.isnan(low):
        low, high = max(low, 0.0), min(high, 1.0)
    return ((1 + low) / 2, (1 + high) / 2) if key == "accuracy" else (low, high)


def pooled_freedom(variances: Sequence[float], models: Sequence[int]) -> int:
    """The degrees of freedom of a sum of independent estimates, rounded down, at least 1.

    Source: Satterthwaite, "An Approximate Distribution of Estimates of Variance Components",
    Biometrics Bulletin 2 (1946).

    >>> pooled_freedom([1.0, 1.0, 1.0], [2, 2, 2])
    3
    """
    total = sum(variances)
    if not total > 0:
        return max(1, min(models) - 1)
    spread = sum(v * v / (count - 1) for v, count in zip(variances, models))
    return max(1, int(total * total / spread + 1e-9))
