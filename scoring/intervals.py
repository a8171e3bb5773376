"""Confidence intervals of an attack's scores, by a bootstrap over models if there are enough.

The points of one model are not independent, since they share a training run and a draw of members.
So the bootstrap draws whole models with replacement, not points; if models differ, a bootstrap over
points would give intervals that are too short.  The interval is the percentile interval at a raised
level: docs/METHODS.md, section 7.1 (formulas 58 and 59).

With two to five models there are too few different draws: 95 % bootstrap intervals covered the true
value 53 to 90 times in 100.  They get Student's t intervals instead (`few_models.py`).  From six to
nineteen models, the bootstrap alone covered it 88 to 95 times, and the wider of both intervals is
used.  A single model has no interval, nor have several of which one is much larger than the rest.
`interval_method` says which method is used.

If a score depends on few records, such as an AUC near 1, its interval is at least as wide as an
exact binomial one of these records (`few_records.py`).

The advantage is a maximum, which noise can only raise, and which resampling raises again; see
`advantage_interval`.  docs/RESULTS.md and tests/scoring/test_intervals.py have measured coverage.
"""

import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .few_models import (
    LeftOut,
    effective_models,
    pooled_freedom,
    standard_error,
    t_interval,
    t_quantile,
)
from .few_records import interval_of_records, joined, of_sum
from .metrics import SCALARS, score
from .resampling import check_models, resample_scores

RESAMPLES = 2000
LEVEL = 0.95
AVERAGED = "TPR_FPR_1000"
UNKNOWN = (math.nan, math.nan)
FEW = 6
"""The number of models from which on the bootstrap is used; fewer have only a t interval."""

MANY = 20
"""The number of models from which on the bootstrap alone is used; fewer take the wider interval."""

METHODS = {
    "bootstrap": "are from a bootstrap over models",
    "both": "are the wider of a bootstrap over models and Student's t, as models are fewer than 20",
    "t": "are Student's t over fewer than six models, and wide; a TPR has one only at a rate at "
    "which three non-members or more are accepted",
    "none": "are not known: they need at least two models, of like size",
}
"""Key of a method -> the words after "95% intervals" in a sentence."""

Interval = Tuple[float, float]


def interval_method(models: int) -> str:
    """The key in `METHODS` of the method for a number of models.

    Args:
        models: the number of models of one size; else `few_models.effective_models`.

    >>> interval_method(50), interval_method(8), interval_method(3), interval_method(1)
    ('bootstrap', 'both', 't', 'none')
    """
    if models >= FEW:
        return "bootstrap" if models >= MANY else "both"
    return "t" if models > 1 else "none"


def describe_intervals(models: Mapping[str, int], level: float = LEVEL) -> str:
    """A description of the intervals of all scenarios, in a line or two.

    Args:
        models: scenario -> its number of models.
        level: of the intervals.

    >>> describe_intervals({"digits_hi": 50, "digits_inf": 50})
    '95% intervals are from a bootstrap over models.'
    """
    named: Dict[str, List[str]] = {}
    for name, count in models.items():
        named.setdefault(interval_method(count), []).append(name)
    what = "%g%% intervals" % (100 * level)
    if len(named) == 1:
        return "%s %s." % (what, METHODS[next(iter(named))])
    return "\n".join(
        "%s of %s %s." % (what, ", ".join(names), METHODS[method])
        for method, names in named.items()
    )


def _below(z: float) -> float:
    """The probability that a standard normal variable is below `z`."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _normal_quantile(probability: float) -> float:
    """The inverse of `_below`, by bisection; Python 3.7 has none."""
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle) < probability else (low, middle)
    return high


def widened(models: int, level: float) -> float:
    """The level of a percentile interval over `models` models whose coverage is `level`.

    The end of a normal interval, z, is moved out to t * sqrt(M / (M - 1)). Student's t comes from
    its expansion in 1 / (M - 1); with few models the error of this expansion only widens the
    interval.

    Source: Hesterberg (2015), as above; Abramowitz & Stegun, "Handbook of Mathematical
    Functions" (1964), 26.7.5, for t.

    >>> round(widened(50, 0.95), 4), round(widened(10, 0.95), 4)
    (0.9576, 0.9827)
    """
    z, free = _normal_quantile((1 + level) / 2), models - 1.0
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return 1 - 2 * _below(-t * math.sqrt(models / free))


def percentile_interval(draws: Any, level: float) -> Interval:
    """The two draws that leave out (1 - level) / 2 of all draws at each end.

    Order statistics, not interpolated: `np.percentile` rounds differently from version to
    version.

    >>> percentile_interval(range(1, 1001), 0.95)
    (26.0, 975.0)
    """
    ordered = np.sort(np.asarray(draws, dtype=float))
    left_out = int(round((1 - level) / 2 * ordered.size, 9))
    return float(ordered[left_out]), float(ordered[ordered.size - 1 - left_out])


def advantage_interval(draws: Any, estimate: float, level: float) -> Interval:
    """An interval of the advantage, whose estimate and draws are biased upwards.

    The draws are reflected at the estimate (the basic interval), which removes `b`, their median
    minus the estimate. That is only part of the bias. Without any signal the estimate is the
    maximum of pure noise, and the draws are that of two such noises, thus sqrt(2) times as high, so
    `b` is sqrt(2) - 1 of the bias. The rest, sqrt(2) * b, is subtracted from the lower end, which
    therefore reaches 0 if there is no signal.

    >>> low, high = advantage_interval([0.13, 0.15, 0.17, 0.16, 0.14], 0.14, 0.9)
    >>> round(low, 4), round(high, 4)
    (0.0959, 0.15)
    """
    low, high = percentile_interval(draws, level)
    bias = max(percentile_interval(draws, 0.0)[0] - estimate, 0.0)
    low, high = 2 * estimate - high - math.sqrt(2) * bias, 2 * estimate - low
    return min(max(low, 0.0), estimate), max(min(high, 1.0), estimate)


def _check(resamples: int, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError("Expected level=%r in (0, 1): 0.95 is usual." % (level,))
    if not resamples >= 1:
        raise ValueError("Expected resamples=%r of at least 1: 2000 is usual." % (resamples,))


class ScenarioIntervals:
    """The intervals of one scenario, from draws of its models, Student's t, or both.

    Attributes:
        models: the effective number of models; `method` is its key in `METHODS`.
        result: the result of `metrics.score` for all models.
        draws: key -> the score in each draw of models, if the method has draws.
        left: the scores with parts left out, if the method has them.
        members, nonmembers: the numbers of records of each kind.
    """

    def __init__(
        self,
        solutions: Sequence[Any],
        predictions: Sequence[Any],
        resamples: int,
        seed: int,
        rates: Sequence[float] = (),
        levels: Optional[Callable[[], Sequence[Any]]] = None,
    ) -> None:
        """Score the models; with `levels`, the draws score its result.

        Args:
            solutions, predictions, resamples, seed: see `bootstrap`.
            rates: further false positive rates, see `intervals_of`.
            levels: maps predictions to fewer levels in the same order.
        """
        check_models(solutions, predictions)
        truth, values = np.concatenate(solutions), np.concatenate(predictions)
        self.models = effective_models([len(part) for part in solutions])
        self.method = interval_method(self.models)
        self.left: Optional[LeftOut] = None
        if self.method in ("t", "both"):
            self.left = LeftOut(solutions, predictions, rates, seed)
        self.result = score(truth, values) if self.left is None else self.left.result
        self.draws: Mapping[Any, np.ndarray] = {}
        if self.method in ("both", "bootstrap"):
            drawn = predictions if levels is None else levels()
            draws, curves = resample_scores(
                solutions, drawn, resamples=resamples, seed=seed, rates=rates
            )
            self.draws = {**draws, **dict(zip(rates, curves.T))}
        self.members = int(np.count_nonzero(truth))
        self.nonmembers = truth.size - self.members

    def interval(self, key: Any, level: float) -> Interval:
        """The interval of a score, or of the TPR at a rate; unknown for a single model."""
        if self.method == "none":
            return UNKNOWN
        found = UNKNOWN if self.left is None else t_interval(self.left, key, level)
        if self.draws:
            found = joined(self._of_draws(key, level), found)
        return joined(found, self.of_records(key, level))

    def of_records(self, key: Any, level: float) -> Optional[Interval]:
        """The interval from the records alone; None if there are many."""
        return interval_of_records(key, self.result, (self.members, self.nonmembers), level)

    def _of_draws(self, key: Any, level: float) -> Interval:
        draws, wider = self.draws["MIA" if key == "accuracy" else key], widened(self.models, level)
        if not draws.size:
            return UNKNOWN
        if key not in ("MIA", "accuracy"):
            return percentile_interval(draws, wider)
        low, high = advantage_interval(draws, self.result["MIA"], wider)
        return (low, high) if key == "MIA" else ((1 + low) / 2, (1 + high) / 2)

    def scores(self, level: float) -> Dict[str, Interval]:
        """The interval of each score."""
        return {key: self.interval(key, level) for key in SCALARS}

    def spread(self, key: str) -> float:
        """The standard error of a score; nan for one model."""
        if self.left is not None:
            return standard_error(self.left.models[key], self.left.parts[key])
        draws = self.draws.get(key, np.zeros(0))
        return float(draws.std(ddof=1)) if draws.size > 1 else math.nan


def _average(scenarios: Sequence[ScenarioIntervals], level: float) -> Interval:
    """The interval of the mean of the scenarios' TPR at 10% FPR, which are independent."""
    if any(scenario.method == "none" for scenario in scenarios):
        return UNKNOWN
    if len(scenarios) == 1:  # the same number, so the same interval
        return scenarios[0].interval(AVERAGED, level)
    values = [float(scenario.result[AVERAGED]) for scenario in scenarios]
    weights = [1 / len(values)] * len(values)
    low, high = _average_of_draws(scenarios, level)
    if any(scenario.left is not None for scenario in scenarios):
        by_t = _average_by_t(scenarios, sum(values) / len(values), level)
        low, high = by_t if math.isnan(low) else joined((low, high), by_t)
    if any(one.of_records(AVERAGED, level) for one in scenarios):
        ends = [scenario.interval(AVERAGED, level) for scenario in scenarios]
        low, high = joined((low, high), of_sum(values, ends, weights))
    return (low, high) if math.isnan(low) else (max(low, 0.0), min(high, 1.0))


def _average_of_draws(scenarios: Sequence[ScenarioIntervals], level: float) -> Interval:
    """The same interval from draws alone; unknown if a scenario has none."""
    if not all(scenario.draws for scenario in scenarios):
        return UNKNOWN
    # A scenario may have fewer draws than requested: see `resample_scores`.
    count = min(len(scenario.draws[AVERAGED]) for scenario in scenarios)
    if not count:
        return UNKNOWN
    average = np.mean([scenario.draws[AVERAGED][:count] for scenario in scenarios], axis=0)
    fewest = min(scenario.models for scenario in scenarios)
    return percentile_interval(average, widened(fewest, level))


def _average_by_t(scenarios: Sequence[ScenarioIntervals], value: float, level: float) -> Interval:
    """The same interval by Student's t."""
    variances = [scenario.spread(AVERAGED) ** 2 for scenario in scenarios]
    if any(map(math.isnan, variances)):
        return UNKNOWN
    freedom = pooled_freedom(variances, [scenario.models for scenario in scenarios])
    reach = t_quantile((1 + level) / 2, freedom) * math.sqrt(sum(variances)) / len(scenarios)
    return value - reach, value + reach


def bootstrap(
    solutions: Sequence[Any],
    predictions: Sequence[Any],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Dict[str, Interval]:
    """Confidence intervals of all scores of one scenario.

    Args:
        solutions: a flat sequence of 0 (non-member) and 1 (member) for each model.
        predictions: a sequence of finite numbers of the same length for each model.
        resamples: the number of draws, at least 1; 2000 determine the ends to about a tenth of the
            interval's half width.
        level: the probability, in (0, 1), with which an interval should contain the score over
            infinitely many models of this scenario.
        seed: a whole number from 0 to 2**32 - 1; equal seeds give equal intervals.

    Returns:
        A dict from each of `metrics.SCALARS` to `(low, high)`, 0 <= low <= high <= 1, made as the
        head of this file says.  Both ends are nan if there is one model only, which says nothing of
        how models differ, and, of fewer than six models, at rates below three accepted non-members.

    Raises:
        ValueError: the two do not match, or are no truth and predictions (see `metrics.score`);
            `level` or `resamples` is out of range.

    Source: see the head of this file.

    >>> rng = np.random.default_rng(0)
    >>> truth = [[0, 1] * 50 for _ in range(8)]
    >>> guesses = [rng.normal(size=100) + np.array(model) for model in truth]
    >>> low, high = bootstrap(truth, guesses, resamples=200)["AUC"]
    >>> 0.7 < low < high < 0.85
    True
    """
    _check(resamples, level)
    return ScenarioIntervals(solutions, predictions, resamples, seed).scores(level)


def intervals_of(
    solutions: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    rates: Sequence[float] = (),
) -> Dict[str, Any]:
    """Intervals of every scenario's scores, and of the average that ranks.

    Args:
        solutions: model folder, such as "cifar10/cifar10_hi/dev/model_0" -> its truth.
        predictions: the same folders, in any order -> its predictions.
        resamples, level, seed: see `bootstrap`; scenario number i, in the order of `solutions`,
            draws by `seed + i`, as models of two scenarios have nothing to do with each other.
        rates: false positive rates in (0, 1] at which to give intervals of the curve as well.

    Returns:
        A dict from each scenario name to what `bootstrap` gives for it, and from the key
        "average_TPR_FPR_1000" to the interval of the mean of the scenarios' TPR at 10% FPR, nan
        if any scenario has one model only.  With `rates`, the dict of a scenario also has the
        keys "models", "members" and "nonmembers", counts, "effective_models" where models of one
        size that tell as much are fewer, and "curve": a dict from each rate to
        `(low, high)`, each holding its own TPR with probability `level`, not all at once.

    Raises:
        ValueError: as `bootstrap`, or there are no models.

    >>> rng = np.random.default_rng(0)
    >>> solutions = {f"digits/digits_hi/dev/model_{i}": [0, 1] * 50 for i in range(100, 108)}
    >>> predictions = {name: rng.random(100) for name in solutions}
    >>> sorted(intervals_of(solutions, predictions, resamples=200))
    ['average_TPR_FPR_1000', 'digits_hi']
    """
    scenarios: Dict[str, Tuple[List[Any], List[Any]]] = {}
    for folder in solutions:
        truths, values = scenarios.setdefault(folder.split("/")[1], ([], []))
        truths.append(solutions[folder])
        values.append(predictions[folder])
    return _intervals_of_scenarios(scenarios, resamples, level, seed, rates)


def bootstrap_average(
    scenarios: Mapping[str, Tuple[Sequence[Any], Sequence[Any]]],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The confidence interval of the average TPR at 10% FPR, the number that ranks.

    Args:
        scenarios: scenario name -> `(solutions, predictions)`, each as `bootstrap` takes them.
        resamples, level, seed: see `intervals_of`, which gives the same interval.

    Returns:
        `(low, high)`, both nan if any scenario has one model only.

    Raises:
        ValueError: as `bootstrap`, or there are no scenarios.

    >>> rng = np.random.default_rng(0)
    >>> truth = [[0, 1] * 50 for _ in range(8)]
    >>> guesses = [rng.normal(size=100) + 2 * np.array(model) for model in truth]
    >>> low, high = bootstrap_average({"hi": (truth, guesses)}, resamples=200)
    >>> 0.6 < low < high < 0.9
    True
    """
    found = _intervals_of_scenarios(scenarios, resamples, level, seed, ())
    average: Interval = found["average_" + AVERAGED]
    return average


def _intervals_of_scenarios(
    scenarios: Mapping[str, Tuple[Sequence[Any], Sequence[Any]]],
    resamples: int,
    level: float,
    seed: int,
    rates: Sequence[float],
) -> Dict[str, Any]:
    """The result of `intervals_of`, from the models of each scenario."""
    _check(resamples, level)
    if not scenarios:
        raise ValueError("Expected at least one scenario, got none: pass the models' values.")
    result: Dict[str, Any] = {}
    found = []
    for i, (name, (solutions, predictions)) in enumerate(scenarios.items()):
        scenario = ScenarioIntervals(solutions, predictions, resamples, seed + i, rates)
        found.append(scenario)
        result[name] = scenario.scores(level)
        if rates:
            result[name]["curve"] = {rate: scenario.interval(rate, level) for rate in rates}
            result[name]["models"] = len(solutions)
            if scenario.models != len(solutions):
                result[name]["effective_models"] = scenario.models
            result[name]["members"] = scenario.members
            result[name]["nonmembers"] = scenario.nonmembers
    result["average_" + AVERAGED] = _average(found, level)
    return result
