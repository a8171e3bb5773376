"""A number of a run held against what was claimed of it: intervals, and what follows from them.

Plain statistics (docs/METHODS.md, section 10.2): nothing here knows how a run is trained or
observed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy import stats

from mico_competition.audit import binomial

PASS, NOTE, ALARM = "pass", "note", "alarm"

ROUNDING = 1e-3
"""Departures of less, relative to the claim, are float32's and the clipping margin's."""


@dataclass(frozen=True)
class Measured:
    """A number found in a run, with its two-sided interval.

    Attributes:
        value: what was found.
        low, high: if the claim holds, they hold the claimed number with probability `level`.
        level: in (0, 1]; 1 where there is no chance in it.
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
    """One number of a run held against its claim.

    Attributes:
        name: what it is called, such as "noise" or "clipping of mlp.0".
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
    """A number that is known without chance."""
    return Measured(value, value, value, 1.0)


def normal(value: float, error: float, level: float) -> Measured:
    """A number that is normal about what it should be, of known standard deviation `error`."""
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    return Measured(value, value - reach, value + reach, level)


def deviation(squares: float, count: int, level: float) -> Measured:
    """The deviation of normal numbers about 0, from the sum of their squares (chi-square, exact).

    Args:
        squares: sum of squares.
        count: of how many numbers; of 0 nothing is known.
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
    """The variance of binomial numbers over what it should be, with an interval.

    Args:
        squares, count, trials, q: as in `binomial_spread`.
        level: of the interval.

    Returns:
        1 if it is as it should be; infinite if there is variance where there should be none.
    """
    if trials * q * (1 - q) == 0:
        return exactly(1.0 if squares == 0 else math.inf)
    value, freedom = binomial_spread(squares, count, trials, q)
    few, many = chi_square_tails(freedom, level)
    return Measured(value, value * freedom / many, value * freedom / few, level)


def binomial_spread(squares: float, count: int, trials: int, q: float) -> tuple[float, float]:
    """The variance of binomial numbers over what it should be, and its degrees of freedom.

    The sum is taken for a scaled chi-square of the same mean and variance (Satterthwaite,
    Biometrics Bulletin 2, 1946).

    Args:
        squares: sum of squared deviations from the mean that they should have, trials * q.
        count: of how many numbers.
        trials, q: of each of them, with 0 < q < 1.
    """
    variance = trials * q * (1 - q)
    fourth = variance * (1 + (3 * trials - 6) * q * (1 - q))
    return squares / (count * variance), 2 * count * variance**2 / (fourth - variance**2)


def chi_square_tails(freedom: float, level: float) -> tuple[float, float]:
    """The two quantiles between which a chi-square lies with probability `level`."""
    low, high = stats.chi2.ppf([(1 - level) / 2, (1 + level) / 2], freedom).tolist()
    return low, high
