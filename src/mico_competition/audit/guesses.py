"""The guesses of a one-run audit: which points are guessed to be members, without using the truth.

The k_plus largest scores are guessed to be members, the k_minus smallest to be non-members, and the
auditor abstains from the rest. These numbers are fixed beforehand; trying several and reporting the
best needs a correction. The default is a list of such plans with Bonferroni's correction:
docs/METHODS.md, section 9.5 (formula 79).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln
from scipy.stats import binomtest

MEMBERSHIPS = ("coins", "half")
_FEWEST = 16  # guesses of the smallest default plan
_UNFAIR = 1e-6  # truth that is less probable than this under fair coins is refused

Plan = tuple[int, int]
"""(k_plus, k_minus): the numbers of points guessed to be members and non-members."""


@dataclass(frozen=True)
class Guessed:
    """The outcome of a plan.

    Attributes:
        k_plus, k_minus: the numbers of points guessed to be members and non-members.
        right: the number of right guesses.
        points: the number of all points.
    """

    k_plus: int
    k_minus: int
    right: int
    points: int

    @property
    def guesses(self) -> int:
        """The number of guesses."""
        return self.k_plus + self.k_minus

    @property
    def sides(self) -> int:
        """1 if all guesses are of one kind, else 2."""
        return 1 + (self.k_plus > 0 and self.k_minus > 0)

    def perfect(self) -> Guessed:
        """The same plan, if every guess were right."""
        return Guessed(self.k_plus, self.k_minus, self.guesses, self.points)

    def detail(self) -> dict[str, float]:
        """Numbers for a bound's detail."""
        return {
            "points": float(self.points),
            "guesses": float(self.guesses),
            "guessed_in": float(self.k_plus),
            "guessed_out": float(self.k_minus),
            "right": float(self.right),
        }


def plan_for(points: int) -> Plan:
    """The usual plan: a tenth of the points and a hundred more, half of them at each end.

    Fewer guesses are right more often; more guesses give more certainty. On Gaussian mechanisms of
    epsilon 1 to 10, a fifth of 1,000 points and a tenth of 10,000 gave the best or the second-best
    bounds, for both one-run methods.
    """
    guesses = min(points, 100 + points // 10)
    return guesses - guesses // 2, guesses // 2


def default_plans(points: int) -> list[tuple[Plan, float]]:
    """The default plans, each with its share of the error probability.

    The usual plan has half of it. The other half is divided equally among plans for other cases:
    the attacker knows all points (guess all, then half of them, and so on), few points with
    certainty (down to _FEWEST guesses), or only members with certainty (guess members only). Where
    the usual plan is best, this costs a few percent of the bound; elsewhere it gains up to 2.5
    (benchmarks/audit_false_alarms.py, docs/PRIVACY.md).
    """
    sizes = []
    size = points
    while size >= _FEWEST:
        sizes.append(size)
        size //= 2
    usual = plan_for(points)
    both = [(size - size // 2, size // 2) for size in sizes]
    others = [plan for plan in (*both, *((size, 0) for size in sizes[2:])) if plan != usual]
    if not others:
        return [(usual, 1.0)]
    return [(usual, 0.5), *((plan, 0.5 / len(others)) for plan in others)]


def plans_of(guesses: Any, points: int) -> list[tuple[Plan, float]]:
    """The plans that `guesses` describes, each with its share of the error probability.

    Args:
        guesses: None for `default_plans`, one pair, or a sequence of pairs with equal shares.
        points: the number of points.

    Raises:
        ValueError: if a plan is no pair of whole numbers >= 0 that sum to 1 up to `points`.
    """
    if guesses is None:
        return default_plans(points)
    pairs = [guesses] if len(guesses) == 2 and np.ndim(guesses[0]) == 0 else list(guesses)
    for pair in pairs:
        sound = len(pair) == 2 and all(isinstance(k, int | np.integer) and k >= 0 for k in pair)
        if not (sound and 1 <= sum(pair) <= points):
            raise ValueError(
                f"Expected guesses to be (k_plus, k_minus), whole numbers that sum to 1 up to the "
                f"{points} points, or a list of such pairs, got {pair}."
            )
    if not pairs:
        raise ValueError("Expected at least one pair (k_plus, k_minus) of guesses, got none.")
    return [((int(plus), int(minus)), 1 / len(pairs)) for plus, minus in pairs]


def guess(member: np.ndarray, value: np.ndarray, plans: Sequence[Plan], seed: int) -> list[Guessed]:
    """The outcome of each plan.

    Args:
        member, value: bool[n] and float64[n].
        plans: the numbers of guesses.
        seed: for the order of tied scores.
    """
    # Tied scores are ordered at random, since the given order may depend on membership.
    shuffled = np.random.default_rng(seed).permutation(value.size)
    truth = member[shuffled][np.argsort(value[shuffled], kind="stable")]
    found = []
    for plus, minus in plans:
        right = int(truth[truth.size - plus :].sum()) + int((~truth[:minus]).sum())
        found.append(Guessed(plus, minus, right, int(truth.size)))
    return found


def chance_of(member: np.ndarray, membership: str) -> float:
    """The divisor of a p-value for fair coins: 1, or less if exactly half are members.

    An event with probability p under fair and independent coins has probability at most p / P given
    the number of members, where P is the probability of that number: 1 / sqrt(pi n / 2) for half of
    n points.

    Args:
        member: bool[n].
        membership: "coins" if each point has its own coin, "half" if the number of members is fixed
            and they are drawn uniformly.

    Raises:
        ValueError: on another word; on truth that fair coins give less than once in a million
            times.
    """
    if membership not in MEMBERSHIPS:
        raise ValueError(f"Unknown membership {membership!r}: take one of {MEMBERSHIPS}.")
    n, members = member.size, int(member.sum())
    if binomtest(members, n).pvalue < _UNFAIR:
        raise ValueError(
            "Expected about as many members as non-members, as fair coins give, got "
            f"{members} and {n - members}: drop points of the larger kind at random, before "
            "anyone looks at scores, until there are as many of both, and pass membership='half'."
        )
    if membership == "coins":
        return 1.0
    logarithm = gammaln(n + 1) - gammaln(members + 1) - gammaln(n - members + 1)
    return float(math.exp(logarithm - n * math.log(2)))


def pairs(truth: np.ndarray, scores: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a member and a non-member, as points for a one-run bound.

    This is for one model with a fixed number of members (half of MICO's challenge points). Given
    the pairs, which one of the two is the member is a fair coin, independent of the other pairs, so
    `one_run_bound` holds without "half". A pair's coin replaces one record by another, so the bound
    is on the epsilon of replacement. For several models, make the pairs within each model and join
    them.

    Args:
        truth, scores: of one model, bool[n] and float64[n] of `check_scores`.
        seed: for the pairs and their order.

    Returns:
        `(truth, scores)`, bool[p] and float64[p] with p the smaller of the numbers of members and
        non-members: whether the first of the two is the member, and half the difference of its
        score and the second's.
    """
    rng = np.random.default_rng(seed)
    inside, outside = (rng.permutation(np.flatnonzero(kind)) for kind in (truth, ~truth))
    count = min(inside.size, outside.size)
    first_is_member = rng.random(count) < 0.5
    gap = scores[inside[:count]] / 2 - scores[outside[:count]] / 2  # halved against overflow
    return first_is_member, np.where(first_is_member, gap, -gap)
