"""Epsilon from one training run, if the mechanism's trade-off curve has one unknown parameter.

The setting is that of `one_run`, with a family of trade-off curves in place of epsilon and delta.
The recursion for the probability of so many right guesses is in docs/METHODS.md, section 9.6
(formulas 80 and 81). Source: Mahloujifar, Melis and Chaudhuri, "Auditing f-differential privacy in
one run", ICML 2025 (arXiv 2410.22235). The case that all guesses are of one kind is our addition.

The curve must hold in both directions. Points may depend on each other. But the bound assumes the
family: for Gaussian DP that is Gaussian noise without sampling. For another mechanism it gives the
Gaussian curve that the guesses reached, whose epsilon may exceed the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mico_competition.audit.bound import Bound, largest_excluded
from mico_competition.audit.checked import check_delta, check_level, check_scores
from mico_competition.audit.guesses import Guessed, chance_of, guess, plans_of
from mico_competition.audit.tradeoff import GAUSSIAN, Family

_MOST = 2**10  # an error message searches up to this number of guesses for the fewest that suffice


def one_run_fdp_bound(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    guesses: Any = None,
    membership: str = "coins",
    seed: int = 0,
    curve: Family = GAUSSIAN,
) -> Bound:
    """A lower bound on epsilon from one run, if the mechanism's curve belongs to a family.

    Args:
        truth, scores, level, guesses, membership, seed: see `one_run_bound`.
        delta: in (0, 1), at which epsilon is read from the curve.
        curve: the family; Gaussian DP by default.

    Returns:
        A `Bound`, by "one-run f-DP", with the parameter ("mu") in `detail`, besides the details of
        `one_run_bound`. All scores equal give 0.

    Raises:
        ValueError: as `one_run_bound`.
    """
    member, value = check_scores(truth, scores)
    check_delta(delta, zero=False)
    check_level(level)
    chance = chance_of(member, membership)
    plans = plans_of(guesses, member.size)
    made = guess(member, value, [plan for plan, _ in plans], seed)
    alphas = [(1 - level) * chance * share for _, share in plans]
    _enough(made, alphas)
    constant = bool((value == value[0]).all())
    known = [0.0 if constant else _parameter(one, a, curve) for one, a in zip(made, alphas)]
    best = int(np.argmax(known))
    detail = {curve.name: known[best]} | made[best].detail()
    detail |= {"plans": float(len(plans)), "chance": chance}
    return Bound("one-run f-DP", curve.epsilon(known[best], delta), delta, level, detail)


def impossible(guessed: Guessed, alpha: float, least_fpr: Callable[[float], float]) -> bool:
    """Whether so many right guesses have a probability below `alpha` under the curve."""
    m, r, v = guessed.points, guessed.guesses, guessed.right
    whole = r / m  # the value of R + H when the p_i sum to 1
    scale = 2 / guessed.sides
    right, wrong = alpha * v / m, alpha * (r - v) / m
    for i in range(v - 1, -1, -1):
        # At most all guesses of one side can be right.
        if right + wrong > whole or scale * right > 1:
            return True
        needed = least_fpr(scale * right) / scale
        if needed <= wrong:
            return False  # and nothing further down is needed
        right += i / (r - i) * (needed - wrong)
        wrong = needed
    return right + wrong > whole


def _parameter(guessed: Guessed, alpha: float, curve: Family) -> float:
    """The largest parameter under which so many right guesses are too unlikely."""

    def excluded(parameter: float) -> bool:
        return impossible(guessed, alpha, partial(curve.fpr, parameter))

    return largest_excluded(excluded)


def _enough(made: list[Guessed], alphas: Sequence[float]) -> None:
    """ValueError if no plan gives a positive bound even with all guesses right."""

    def proves(one: Guessed, alpha: float) -> bool:
        return impossible(one.perfect(), alpha, float)

    if any(map(proves, made, alphas)):
        return
    alpha = max(alphas)
    points, most = made[0].points, max(one.guesses for one in made)
    needed = next(
        r for r in range(1, _MOST) if proves(Guessed(r - r // 2, r // 2, r, max(r, points)), alpha)
    )
    raise ValueError(
        f"Expected at least {needed} guesses, on as many points, for a bound above 0, got {most} "
        f"guesses on {points} points: add points or guesses, or lower the level."
    )
