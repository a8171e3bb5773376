"""Confidence intervals of the scores of one attack: a bootstrap over models.

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

The advantage is another matter: a largest difference, which noise can only raise, and which
drawing anew raises once more; see `advantage_interval`.  Rates at which fewer than some five
non-members are accepted (0.001 of fewer than 5,000) are known too badly for any interval of
this kind: theirs are too short.  How often intervals hold the truth: tests/test_intervals.py.

Nothing here reads files or prints.
"""

import math
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from .metrics import SCALARS, score
from .resampling import resample_scores

RESAMPLES = 2000
LEVEL = 0.95
AVERAGED = "TPR_FPR_1000"
UNKNOWN = (math.nan, math.nan)

Interval = Tuple[float, float]


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


def _draws(
    solutions: Sequence[Any],
    predictions: Sequence[Any],
    resamples: int,
    seed: int,
    rates: Sequence[float] = (),
) -> Tuple[Dict[str, np.ndarray], np.ndarray]:
    """`resample_scores`; but once only where there is one model, which would be drawn always."""
    count = resamples if len(solutions) > 1 else 1
    return resample_scores(solutions, predictions, resamples=count, seed=seed, rates=rates)


def _interval(draws: np.ndarray, models: int, level: float) -> Interval:
    """The interval of a statistic from its draws; unknown for one model, or without draws."""
    if models < 2 or not draws.size:
        return UNKNOWN
    return percentile_interval(draws, widened(models, level))


def _intervals(
    draws: Mapping[str, np.ndarray],
    solutions: Sequence[Any],
    predictions: Sequence[Any],
    level: float,
) -> Dict[str, Interval]:
    """The interval of each score of a scenario, from its draws."""
    models = len(solutions)
    found = {key: _interval(draws[key], models, level) for key in SCALARS}
    if models >= 2 and draws["MIA"].size:
        estimate = score(np.concatenate(solutions), np.concatenate(predictions))["MIA"]
        low, high = advantage_interval(draws["MIA"], estimate, widened(models, level))
        found["MIA"], found["accuracy"] = (low, high), ((1 + low) / 2, (1 + high) / 2)
    return found


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
        A dict from each of `metrics.SCALARS` to `(low, high)`, 0 <= low <= high <= 1; both are
        nan if there is one model only, which says nothing of how models differ.

    Raises:
        ValueError: the two do not match, or are no truth and predictions (see `metrics.score`);
            `level` or `resamples` is out of range.

    Source: see the head of this file.
    """
    _check(resamples, level)
    draws, _ = _draws(solutions, predictions, resamples, seed)
    return _intervals(draws, solutions, predictions, level)


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
    ranked: List[np.ndarray] = []
    for i, (name, (solutions, predictions)) in enumerate(scenarios.items()):
        draws, curves = _draws(solutions, predictions, resamples, seed + i, rates)
        result[name] = _intervals(draws, solutions, predictions, level)
        if rates:
            ends = [_interval(column, len(solutions), level) for column in curves.T]
            result[name]["curve"] = dict(zip(rates, ends))
            truth = np.concatenate(solutions)
            result[name]["models"] = len(solutions)
            result[name]["members"] = int(np.count_nonzero(truth))
            result[name]["nonmembers"] = int(truth.size - np.count_nonzero(truth))
        ranked.append(draws[AVERAGED])
    # A scenario may have fewer draws than were asked for: see `resample_scores`.
    count = min(len(draws) for draws in ranked)
    fewest = min(len(solutions) for solutions, _ in scenarios.values())
    average = np.mean([draws[:count] for draws in ranked], axis=0)
    result["average_" + AVERAGED] = _interval(average, fewest, level)
    return result
