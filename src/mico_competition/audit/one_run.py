"""Epsilon from one training run with many canaries: the bound of Steinke, Nasr and Jagielski.

A fair coin for each point decides whether it is in, and the auditor guesses some of the coins.
Under a private mechanism the number of right guesses is limited, however points depend on each
other. So points need not be independent, and no mechanism is assumed; but the two sides of a coin
must be what the privacy claim is about: a record added or removed.

The p-value is formula 77 of docs/METHODS.md, section 9.4, with its derivation. Source: "Privacy
auditing with one (1) training run", NeurIPS 2023 (arXiv 2305.08846). The term for delta is exact
here; that of their theorem 5.2 is often ten times as large. For few points the tests compare the
formula with the best of all mechanisms, by linear programming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import gammaln

from mico_competition.audit.bound import Bound, largest_excluded
from mico_competition.audit.checked import check_delta, check_level, check_scores
from mico_competition.audit.guesses import Guessed, chance_of, guess, plans_of

_MOST = 2**14  # an error message searches up to this number of guesses for the fewest that suffice


def one_run_bound(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    guesses: Any = None,
    membership: str = "coins",
    seed: int = 0,
) -> Bound:
    """A lower bound on epsilon from one run, for any mechanism.

    Points of several models may be joined if their coins are independent.

    Args:
        truth, scores: see `check_scores`; only the order of the scores counts.
        delta: in [0, 1).
        level: in (0, 1), the least probability with which the bound holds.
        guesses: (k_plus, k_minus), fixed before looking at the truth; or a list of such pairs, of
            which the best counts, with Bonferroni's correction; None for the list of
            `guesses.default_plans`.
        membership: "coins" if each point has its own fair coin; "half" if the number of members is
            fixed and they are drawn uniformly. "half" holds for every mechanism, and multiplies the
            p-value by about sqrt(pi n / 2). With "coins" the bound also held in simulations with
            half of the points in (tests/audit/test_audit_validity.py), but there are mechanisms for
            which it would not.
        seed: of the order of tied scores.

    Returns:
        A `Bound`. All scores equal give 0. `detail` has the number of points, how many the best
        plan guessed to be in and out, how many of these guesses are right, and the number of plans.

    Raises:
        ValueError: as `check_scores`; if an argument is out of range; if truth is too uneven for
            fair coins; if there are too few guesses for a positive bound.

    >>> truth = np.arange(1000) % 2
    >>> round(one_run_bound(truth, truth * 1.0, delta=0.0).epsilon, 1)  # every guess is right
    5.1
    """
    member, value = check_scores(truth, scores)
    check_delta(delta)
    check_level(level)
    chance = chance_of(member, membership)
    plans = plans_of(guesses, member.size)
    made = guess(member, value, [plan for plan, _ in plans], seed)
    alphas = [(1 - level) * chance * share for _, share in plans]
    _enough(made, delta, alphas)
    # Equal scores carry no information, whatever the order of the points.
    constant = bool((value == value[0]).all())
    known = [0.0 if constant else _epsilon(one, delta, a) for one, a in zip(made, alphas)]
    best = int(np.argmax(known))
    detail = made[best].detail() | {"plans": float(len(plans)), "chance": chance}
    return Bound("one-run", known[best], delta, level, detail)


def one_run_p_value(guessed: Guessed, *, epsilon: float, delta: float) -> float:
    """An upper bound on the probability of so many right guesses under (epsilon, delta).

    It is the formula of the module's docstring, for fair coins.

    Args:
        guessed: the plan and v, the number of right guesses.
        epsilon: >= 0, finite.
        delta: in [0, 1).

    Returns:
        A probability.
    """
    return _p_value(guessed, epsilon, delta, _log_choices(guessed.guesses))


def _p_value(guessed: Guessed, epsilon: float, delta: float, log_choices: np.ndarray) -> float:
    r, v = guessed.guesses, guessed.right
    if v == 0:
        return 1.0
    right = np.arange(r + 1)
    odds = np.logaddexp(0, -epsilon) * right + np.logaddexp(0, epsilon) * (r - right)
    log_mass = log_choices - odds
    tail = float(np.exp(log_mass[v:]).sum())
    if not delta:
        return min(1.0, tail)
    # Relative to P[W = v], which may be too small for a float.
    with np.errstate(over="ignore"):
        ratio = float(np.exp(log_mass[v:] - log_mass[v]).sum())
    free = guessed.points * delta * guessed.sides / 2
    return min(1.0, tail + free * ratio * max(0.0, 1 - tail) / v)


def _log_choices(r: int) -> np.ndarray:
    """log of r over 0, ..., r."""
    k = np.arange(r + 1)
    log_choices: np.ndarray = gammaln(r + 1) - gammaln(k + 1) - gammaln(r - k + 1)
    return log_choices


def _epsilon(guessed: Guessed, delta: float, alpha: float) -> float:
    """The largest epsilon under which so many right guesses are too unlikely.

    With delta the p-value need not grow with epsilon. The search stays valid: an (epsilon,
    delta)-private mechanism is private with every larger epsilon, too, so an excluded epsilon
    excludes all smaller ones.
    """
    log_choices = _log_choices(guessed.guesses)
    return largest_excluded(lambda e: _p_value(guessed, e, delta, log_choices) <= alpha)


def _enough(made: list[Guessed], delta: float, alphas: Sequence[float]) -> None:
    """ValueError if no plan gives a positive bound even with all guesses right."""

    def proves(one: Guessed, alpha: float) -> bool:
        return one_run_p_value(one.perfect(), epsilon=0.0, delta=delta) <= alpha

    if any(map(proves, made, alphas)):
        return
    alpha = max(alphas)
    points, most = made[0].points, max(one.guesses for one in made)
    tried = (r for r in range(1, _MOST) if r < 100 or r % 16 == 0)
    needed = next(
        (r for r in tried if proves(Guessed(r - r // 2, r // 2, r, max(r, points)), alpha)),
        None,
    )
    if needed is None:
        raise ValueError(
            f"With delta={delta} and {points} points no number of guesses proves anything: take a "
            "smaller delta or fewer points."
        )
    raise ValueError(
        f"Expected at least {needed} guesses, on as many points, for a bound above 0 at delta="
        f"{delta}, got {most} guesses on {points} points: add points or guesses, or lower the "
        "level."
    )
