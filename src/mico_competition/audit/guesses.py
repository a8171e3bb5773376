"""One-run audits: which points are guessed to be members, by a rule that does not use the truth.

The k_plus largest scores are guessed to be members, the k_minus smallest to be non-members, and the
auditor abstains from the rest.  How many is decided beforehand: to count right guesses for many
numbers of guesses and report the best is another audit, which has to pay for each.  The default is
such a list of plans, paid for by Bonferroni's inequality: docs/METHODS.md, section 9.5 (formula
75).
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
_UNFAIR = 1e-6  # how rarely fair coins may fall so unevenly, for truth to be taken for theirs

Plan = tuple[int, int]
"""(k_plus, k_minus): how many are guessed to be members, and to be none."""


@dataclass(frozen=True)
class Guessed:
    """What came of a plan.

    Attributes:
        k_plus, k_minus: how many were guessed to be members, and to be none.
        right: how many of all guesses are.
        points: how many there are to guess.
    """

    k_plus: int
    k_minus: int
    right: int
    points: int

    @property
    def guesses(self) -> int:
        """How many records are guessed."""
        return self.k_plus + self.k_minus

    @property
    def sides(self) -> int:
        """1 if all guesses are of one kind, else 2."""
        return 1 + (self.k_plus > 0 and self.k_minus > 0)

    def perfect(self) -> Guessed:
        """The same plan with every guess right."""
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

    Few guesses are righter, many are surer.  On Gaussian mechanisms of epsilon 1 to 10, a fifth of
    1,000 points and a tenth of 10,000 came nearest to the truth or next to it, for both one-run
    bounds.
    """
    guesses = min(points, 100 + points // 10)
    return guesses - guesses // 2, guesses // 2


def default_plans(points: int) -> list[tuple[Plan, float]]:
    """The plans of an audit that chooses none, each with its share of what may fail.

    The usual plan has half of it.  The other half goes in equal parts to plans for what the usual
    one misses: all points are known (guess all, then half of them, and so on), few are sure (down
    to _FEWEST guesses), or few are sure and all of them are members (guess members only).  Where
    the usual plan is best that costs a few percent of the bound; elsewhere it gains up to 2.5
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
    """The plans that `guesses` means, and the share of each of what may fail.

    Args:
        guesses: None for `default_plans`, one pair, or a sequence of pairs with equal shares.
        points: how many there are.

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
    """What comes of each plan.

    Args:
        member, value: bool[n] and float64[n].
        plans: what to guess.
        seed: of the order of tied scores.
    """
    # Ties in random order, not in the given one, which may know who is a member.
    shuffled = np.random.default_rng(seed).permutation(value.size)
    truth = member[shuffled][np.argsort(value[shuffled], kind="stable")]
    found = []
    for plus, minus in plans:
        right = int(truth[truth.size - plus :].sum()) + int((~truth[:minus]).sum())
        found.append(Guessed(plus, minus, right, int(truth.size)))
    return found


def chance_of(member: np.ndarray, membership: str) -> float:
    """What a p-value for fair coins is to be divided by: 1, or less if half were drawn.

    Whatever happens with probability p if every point's coin is fair and independent happens with
    p / P at most, given that just so many came out as members, P being the probability of that:
    1 / sqrt(pi n / 2) for half of n points.

    Args:
        member: bool[n].
        membership: "coins" if each point was decided by itself, "half" if the number of members
            was fixed and who they are drawn uniformly.

    Raises:
        ValueError: on another word; on truth that fair coins do not give in a million times.
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
    """Pairs of a member and a non-member as points of their own, to be guessed by a one-run bound.

    For one model with a fixed number of members (half of MICO's challenge points).  Given who is
    paired with whom, which one of the two is the member is a fair coin, independent of the other
    pairs, so `one_run_bound` holds without "half".  But a pair's coin replaces one record by
    another: the epsilon that is bounded is that of replacing.  Of many models, each trained by
    itself, make the pairs within each model and join them.

    Args:
        truth, scores: of one model, bool[n] and float64[n] of `check_scores`.
        seed: who is paired with whom, and in which order.

    Returns:
        `(truth, scores)`, bool[p] and float64[p] with p the smaller of the numbers of members and
        non-members: whether the first of the two is the member, and half of what its score is
        above the second's.
    """
    rng = np.random.default_rng(seed)
    inside, outside = (rng.permutation(np.flatnonzero(kind)) for kind in (truth, ~truth))
    count = min(inside.size, outside.size)
    first_is_member = rng.random(count) < 0.5
    gap = scores[inside[:count]] / 2 - scores[outside[:count]] / 2  # halves do not overflow
    return first_is_member, np.where(first_is_member, gap, -gap)
