"""Checks of a run's numbers against the claim, with intervals.

These are plain statistics (docs/METHODS.md, section 10.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy import stats

from mico_competition.audit import binomial

PASS, NOTE, ALARM = "pass", "note", "alarm"

ROUNDING = 1e-3
"""Smaller relative departures from the claim come from float32 and the clipping margin."""


@dataclass(frozen=True)
class Measured:
    """A number found in a run, with its two-sided interval.

    Attributes:
        value: the number found.
        low, high: the interval, which contains the claimed number with probability `level` if the
            claim holds.
        level: in (0, 1]; 1 for a number without randomness.
    """

    value: float
    low: float
    high: float
    level: float

    def below(self, claimed: float) -> bool:
        """Whether it is clearly less than claimed."""
        return self.high < claimed * (1 - ROUNDING)

    def above(self, claimed: float) -> bool:
        """Whether it is clearly more than claimed."""
        return self.low > claimed * (1 + ROUNDING)


@dataclass(frozen=True)
class Check:
    """One number of a run, compared with the claim.

    Attributes:
        name: such as "noise" or "clipping of mlp.0".
        verdict: PASS, NOTE or ALARM.
        says: the finding, in a clause.
        claimed: the number claimed.
        measured: the number found.
        detail: further numbers, by name.
    """

    name: str
    verdict: str
    says: str
    claimed: float
    measured: Measured
    detail: Mapping[str, float] = field(default_factory=dict)


def exactly(value: float) -> Measured:
    """A number without randomness."""
    return Measured(value, value, value, 1.0)


def normal(value: float, error: float, level: float) -> Measured:
    """An estimate with a normal distribution of known standard deviation `error`."""
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    return Measured(value, value - reach, value + reach, level)


def deviation(squares: float, count: int, level: float) -> Measured:
    """The standard deviation of normal numbers of mean 0, from their squares (chi-square, exact).

    Args:
        squares: sum of squares.
        count: the number of numbers; with 0 the interval is infinite.
        level: of the interval.
    """
    if count == 0:
        return Measured(0.0, 0.0, math.inf, level)
    few, many = chi_square_tails(count, level)
    value, low, high = (math.sqrt(squares / by) for by in (count, many, few))
    return Measured(value, low, high, level)


def rate(successes: int, trials: int, level: float) -> Measured:
    """A probability from a count (Clopper and Pearson, exact)."""
    if successes > trials:
        return exactly(successes / trials)
    return Measured(successes / trials, *binomial.interval(successes, trials, level), level)


def binomial_variance(squares: float, count: int, trials: int, q: float, level: float) -> Measured:
    """The variance of binomial numbers over the expected one, with an interval.

    Args:
        squares, count, trials, q: as in `binomial_spread`.
        level: of the interval.

    Returns:
        1 if it is as expected; infinite if there is variance where none is expected.
    """
    if trials * q * (1 - q) == 0:
        return exactly(1.0 if squares == 0 else math.inf)
    value, freedom = binomial_spread(squares, count, trials, q)
    few, many = chi_square_tails(freedom, level)
    return Measured(value, value * freedom / many, value * freedom / few, level)


def binomial_spread(squares: float, count: int, trials: int, q: float) -> tuple[float, float]:
    """The variance of binomial numbers over the expected one, and its degrees of freedom.

    The sum is approximated by a scaled chi-square of the same mean and variance (Satterthwaite,
    Biometrics Bulletin 2, 1946).

    Args:
        squares: sum of squared deviations from the expected mean, trials * q.
        count: the number of numbers.
        trials, q: of each of them, with 0 < q < 1.
    """
    variance = trials * q * (1 - q)
    fourth = variance * (1 + (3 * trials - 6) * q * (1 - q))
    return squares / (count * variance), 2 * count * variance**2 / (fourth - variance**2)


def chi_square_tails(freedom: float, level: float) -> tuple[float, float]:
    """The two quantiles between which a chi-square lies with probability `level`."""
    low, high = stats.chi2.ppf([(1 - level) / 2, (1 + level) / 2], freedom).tolist()
    return low, high
