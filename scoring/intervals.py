"""Confidence intervals of the scores of one attack: a bootstrap over models, from six on.

Points of one model are not independent: one training run decides all of them at once, and so
does one draw of members.  So whole models are drawn with replacement, not points: the cluster
bootstrap (Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; Field
& Welsh, "Bootstrapping clustered data", JRSS B 69, 2007).  A bootstrap over points would give
intervals that are too short as soon as models differ.

The interval is the percentile interval (Efron & Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 13): it stays in [0, 1] and needs no normality, which a rate near 0 or 1 has not.
It is known to be too short for few models, by sqrt((M - 1) / M) and by the normal where
Student's t is due; its level is raised by just that (Hesterberg, "What Teachers Should Know
About the Bootstrap", The American Statistician 69, 2015, the expanded percentile interval): with
50 models it ends at the 2.1 % quantile of the draws, where the plain one ends at 2.5 %.

From two to five models a bootstrap knows too few draws: its 95 % intervals hold the truth 53 to 90
times in 100.  Theirs are Student's t intervals (`few_models.py`).  One model says nothing of how
models differ, and has none.  `interval_method` says which it is.

The advantage is another matter: a largest difference, which noise can only raise, and which
drawing anew raises once more; see `advantage_interval`.  Rates at which fewer than some five
non-members are accepted (0.001 of fewer than 5,000) are known too badly for any interval of
this kind: theirs are too short.  How often intervals hold the truth: docs/RESULTS.md, and
tests/test_intervals.py.

Nothing here reads files or prints.
"""

import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .few_models import LeftOut, pooled_freedom, standard_error, t_interval, t_quantile
from .metrics import SCALARS, score
from .resampling import check_models, resample_scores

RESAMPLES = 2000
LEVEL = 0.95
AVERAGED = "TPR_FPR_1000"
UNKNOWN = (math.nan, math.nan)
FEW = 6
"""From so many models on they are drawn anew; fewer have a t interval."""

METHODS = {
    "bootstrap": "are from a bootstrap over models",
    "t": "are Student's t over fewer than six models, and wide; a TPR has one only at a rate at "
    "which three non-members or more are accepted",
    "none": "are not known: they need at least two models",
}
"""How intervals were made: what follows "95% intervals" in a sentence."""

Interval = Tuple[float, float]


def interval_method(models: int) -> str:
    """The key of `METHODS` that the intervals of scores from so many models are made by.

    >>> interval_method(50), interval_method(3), interval_method(1)
    ('bootstrap', 't', 'none')
    """
    return "bootstrap" if models >= FEW else "t" if models > 1 else "none"


def describe_intervals(models: Mapping[str, int], level: float = LEVEL) -> str:
    """How the intervals of each scenario were made, in a line or two.

    Args:
        models: scenario -> how many models its scores are from.
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
    """The level to read a percentile interval of draws of `models` models at, to cover `level`.

    The end of a normal interval, z, is moved out to t * sqrt(M / (M - 1)).  Student's t comes
    from its expansion in 1 / (M - 1); with few models its error only widens the interval.

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
    """An interval of the advantage, whose draws lie too high, as `estimate` does itself.

    The draws are reflected at the estimate (the basic interval), which takes out as much bias
    as they show: `b`, their median less the estimate.  They show too little of it.  Without any
    signal the estimate is the maximum of pure noise, the draws are that of two such noises,
    thus sqrt(2) times as high, and `b` is sqrt(2) - 1 of the bias.  The rest, sqrt(2) * b, is
    taken off the lower end, which therefore reaches 0 where nothing but chance is seen.

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


class _Scenario:
    """The intervals of one scenario: from draws of its models, or, of few, by Student's t."""

    def __init__(
        self,
        solutions: Sequence[Any],
        predictions: Sequence[Any],
        resamples: int,
        seed: int,
        rates: Sequence[float] = (),
    ) -> None:
        self.models, self.rates = len(solutions), rates
        self.solutions, self.predictions = solutions, predictions
        self.left: Optional[LeftOut] = None
        self.draws: Mapping[Any, np.ndarray] = {}
        if self.models >= FEW:
            draws, curves = resample_scores(
                solutions, predictions, resamples=resamples, seed=seed, rates=rates
            )
            self.draws = {**draws, **dict(zip(rates, curves.T))}
            return
        check_models(solutions, predictions)
        left = LeftOut(solutions, predictions, rates, seed)
        self.left = left if self.models > 1 else None

    def interval(self, key: Any, level: float) -> Interval:
        """Of a score, or of the TPR at a rate; unknown for one model, or without draws."""
        if self.left is not None:
            return t_interval(self.left, key, level)
        if self.models < FEW or not self.draws[key].size:
            return UNKNOWN
        return percentile_interval(self.draws[key], widened(self.models, level))

    def scores(self, level: float) -> Dict[str, Interval]:
        """The interval of each score."""
        found = {key: self.interval(key, level) for key in SCALARS}
        if self.models >= FEW and self.draws["MIA"].size:
            truth, values = np.concatenate(self.solutions), np.concatenate(self.predictions)
            low, high = advantage_interval(
                self.draws["MIA"], score(truth, values)["MIA"], widened(self.models, level)
            )
            found["MIA"], found["accuracy"] = (low, high), ((1 + low) / 2, (1 + high) / 2)
        return found

    def spread(self, key: str) -> Tuple[float, float]:
        """A score, and its standard error; the error is nan for one model."""
        if self.left is not None:
            error = standard_error(self.left.models[key], self.left.parts[key])
            return self.left.value[key], error
        value = score(np.concatenate(self.solutions), np.concatenate(self.predictions))[key]
        draws = self.draws.get(key, np.zeros(0))
        return value, float(draws.std(ddof=1)) if draws.size > 1 else math.nan


def _average(scenarios: Sequence[_Scenario], level: float) -> Interval:
    """The interval of the mean of the scenarios' TPR at 10% FPR, which are independent."""
    fewest = min(scenario.models for scenario in scenarios)
    if fewest >= FEW:
        # A scenario may have fewer draws than were asked for: see `resample_scores`.
        count = min(len(scenario.draws[AVERAGED]) for scenario in scenarios)
        if not count:
            return UNKNOWN
        average = np.mean([scenario.draws[AVERAGED][:count] for scenario in scenarios], axis=0)
        return percentile_interval(average, widened(fewest, level))
    spreads = [scenario.spread(AVERAGED) for scenario in scenarios]
    variances = [error**2 for _, error in spreads]
    if fewest < 2 or any(map(math.isnan, variances)):
        return UNKNOWN
    freedom = pooled_freedom(variances, [scenario.models for scenario in scenarios])
    reach = t_quantile((1 + level) / 2, freedom) * math.sqrt(sum(variances)) / len(spreads)
    value = float(np.mean([value for value, _ in spreads]))
    return max(value - reach, 0.0), min(value + reach, 1.0)


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
        solutions: one flat sequence of 0 (non-member) and 1 (member) a model.
        predictions: one of finite numbers a model, of the same lengths.
        resamples: how many times as many models are drawn, at least 1; 2000 make the ends good
            to about a tenth of the interval's half width.
        level: the probability, in (0, 1), with which an interval is to hold the score that
            infinitely many models of this scenario would have.
        seed: a whole number from 0 to 2**32 - 1; equal seeds give equal intervals.

    Returns:
        A dict from each of `metrics.SCALARS` to `(low, high)`, 0 <= low <= high <= 1: from the
        bootstrap with six models or more, else Student's t intervals.  Both ends are nan if there
        is one model only, which says nothing of how models differ, and, of fewer than six models,
        at rates below three accepted non-members.

    Raises:
        ValueError: the two do not match, or are no truth and predictions (see `metrics.score`);
            `level` or `resamples` is out of range.

    Source: see the head of this file.
    """
    _check(resamples, level)
    return _Scenario(solutions, predictions, resamples, seed).scores(level)


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
        keys "models", "members" and "nonmembers", counts, and "curve": a dict from each rate to
        `(low, high)`, each holding its own TPR with probability `level`, not all at once.

    Raises:
        ValueError: as `bootstrap`, or there are no models.
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
    """
    found = _intervals_of_scenarios(scenarios, resamples, level, seed, ())
    return found["average_" + AVERAGED]


def _intervals_of_scenarios(
    scenarios: Mapping[str, Tuple[Sequence[Any], Sequence[Any]]],
    resamples: int,
    level: float,
    seed: int,
    rates: Sequence[float],
) -> Dict[str, Any]:
    """What `intervals_of` returns, from the models of each scenario."""
    _check(resamples, level)
    if not scenarios:
        raise ValueError("Expected at least one scenario, got none: pass the models' values.")
    result: Dict[str, Any] = {}
    found = []
    for i, (name, (solutions, predictions)) in enumerate(scenarios.items()):
        scenario = _Scenario(solutions, predictions, resamples, seed + i, rates)
        found.append(scenario)
        result[name] = scenario.scores(level)
        if rates:
            truth = np.concatenate(solutions)
            members = int(np.count_nonzero(truth))
            result[name]["curve"] = {rate: scenario.interval(rate, level) for rate in rates}
            result[name]["models"] = len(solutions)
            result[name]["members"], result[name]["nonmembers"] = members, truth.size - members
    result["average_" + AVERAGED] = _average(found, level)
    return result
