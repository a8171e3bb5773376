"""One-run p-values against the best of all mechanisms, against linear programs, and by hand."""

import math

import numpy as np
import pytest
from helpers_audit_bounds import least_fpr, strongest
from scipy.optimize import linprog
from scipy.stats import binom

from mico_competition.audit.guesses import Guessed, chance_of
from mico_competition.audit.one_run import one_run_p_value
from mico_competition.audit.one_run_fdp import impossible
from mico_competition.audit.tradeoff import gdp_tpr


def one_run_fdp_p_value(guessed, least_fpr):
    """The probability of so many right guesses, at most, under a trade-off curve."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if impossible(guessed, middle, least_fpr) else (middle, high)
    return high


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.5])
def test_no_mechanism_at_all_is_right_more_often(epsilon, delta):
    """The best of all (epsilon, delta) mechanisms for 3 and 4 points reaches the p-value."""
    for points, guesses in ((3, 2), (3, 3), (4, 1), (4, 2)):
        for right in range(1, guesses + 1):
            best = strongest(points, guesses, right, epsilon, delta)
            made = Both(guesses, 0, right, points)  # of both kinds, in whatever numbers
            p_value = one_run_p_value(made, epsilon=epsilon, delta=delta)
            assert best == pytest.approx(p_value, abs=1e-7), (points, guesses, right)
            assert best <= one_run_fdp_p_value(made, least_fpr(epsilon, delta)) + 1e-7


class Both(Guessed):
    """Guesses of which it is not said beforehand how many are of which kind."""

    sides = 2


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.1), (1.0, 0.0), (1.0, 0.05), (2.5, 0.01)])
def test_plans_of_both_kinds_and_of_one(epsilon, delta):
    for points, plan in ((3, (2, 1)), (4, (1, 1)), (4, (2, 0)), (3, (0, 3)), (4, (1, 0))):
        for right in range(1, sum(plan) + 1):
            best = strongest(points, plan, right, epsilon, delta)
            made = Guessed(*plan, right, points)
            assert best <= one_run_p_value(made, epsilon=epsilon, delta=delta) + 1e-7
            curve = one_run_fdp_p_value(made, least_fpr(epsilon, delta))
            assert best <= curve + 1e-7
            if made.sides == 1:  # bounds more than if both kinds were possible
                both = one_run_fdp_p_value(Both(*plan, right, points), least_fpr(epsilon, delta))
                assert curve <= both + 1e-9


def published(made, epsilon, delta):
    """Steinke, Nasr and Jagielski (2023), theorem 5.2, as it stands there."""
    r, v, q = made.guesses, made.right, 1 / (1 + math.exp(-epsilon))
    short = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, q))
    return binom.sf(v - 1, r, q) + 2 * made.points * delta * max(short / np.arange(1, v + 1))


@pytest.mark.slow
@pytest.mark.parametrize("points", [100, 1000, 10_000])
def test_the_published_theorem_asks_for_more_where_it_matters(points):
    for r in {20, points // 10, points}:
        for epsilon in (0.0, 1.0, 4.0):
            for v in range(1, r + 1, max(1, r // 60)):
                made = Guessed(r - r // 2, r // 2, v, points)
                theirs = published(made, epsilon, 1e-5)
                if theirs < 0.5:
                    assert one_run_p_value(made, epsilon=epsilon, delta=1e-5) <= theirs


def test_without_delta_it_is_the_binomial_tail():
    for r, v, epsilon in ((1, 1, 0.3), (50, 40, 1.0), (1000, 990, 4.0), (1000, 100, 0.0)):
        made = Guessed(r - r // 3, r // 3, v, 2 * r)
        expected = binom.sf(v - 1, r, 1 / (1 + math.exp(-epsilon)))
        assert one_run_p_value(made, epsilon=epsilon, delta=0) == pytest.approx(expected, rel=1e-9)


def test_the_formula_by_hand():
    made, epsilon, delta = Guessed(30, 20, 44, 400), 1.2, 1e-3
    w = binom(50, 1 / (1 + math.exp(-epsilon)))
    expected = w.sf(43) * (1 + 400 * delta * w.cdf(43) / (44 * w.pmf(44)))
    found = one_run_p_value(made, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(expected) and found > 1.2 * w.sf(43)
    # Where all probabilities are below what a float holds, what delta adds is still there.
    far = one_run_p_value(Guessed(2000, 2000, 4000, 4000), epsilon=0.0, delta=1e-3)
    assert far == pytest.approx(1e-3)


def test_a_mechanism_that_tells_a_few_points_needs_the_number_of_all_points():
    """Of m points delta m are told, and only these are guessed: all guesses are right."""
    points, delta = 1000, 0.02
    chance = binom.sf(9, points, delta)  # that 10 or more are told
    assert chance > 0.99
    assert one_run_p_value(Guessed(5, 5, 10, points), epsilon=1.0, delta=delta) >= chance
    assert one_run_fdp_p_value(Guessed(5, 5, 10, points), least_fpr(1.0, delta)) >= chance


@pytest.mark.parametrize(("sides", "points"), [(1, 24), (2, 24), (2, 60)])
def test_the_recursion_finds_what_a_linear_program_finds(sides, points):
    """The largest sum of p_v, ..., p_r under R_c <= F(H_{c-1}), with straight pieces for F."""
    r, epsilon, delta = 20, 0.9, 0.01
    lines = [(math.exp(epsilon), delta), (math.exp(-epsilon), 1 - math.exp(-epsilon) * (1 - delta))]
    i = np.arange(r + 1)
    scale = 2 / sides
    rows, most = [], []
    for c in range(1, r + 1):
        for slope, start in lines:
            above, before = i * (i >= c) / points, (r - i) * (i >= c - 1) / points
            rows.append(scale * above - slope * scale * before)
            most.append(start)
    for v in (12, 16, 20):
        found = linprog((i >= v) * -1.0, rows, most, np.ones((1, r + 1)), [1], bounds=(0, 1))
        made = Guessed(r if sides == 1 else r // 2, 0 if sides == 1 else r // 2, v, points)
        p_value = one_run_fdp_p_value(made, least_fpr(epsilon, delta))
        assert p_value == pytest.approx(-found.fun, abs=1e-6)


def test_half_of_the_points_drawn_costs_what_it_can_tell():
    """Ten points, five of them in; the five that are guessed answer, and the rest only in sum.

    Each point answers with epsilon, and the sum of the other five is told with epsilon, too; but
    who knows that there are five in all learns from it about the five guessed.
    """
    epsilon = 0.19
    q, ratio = 1 / (1 + math.exp(-epsilon)), math.exp(-epsilon)
    sums = np.arange(6)
    told = ratio ** np.abs(sums[:, None] - np.arange(-60, 66)) * (1 - ratio) / (1 + ratio)
    answers = np.array(list(np.ndindex(2, 2, 2, 2, 2)))
    wrong = np.abs(answers[:, None] - answers).sum(axis=2)
    prior = np.array([math.comb(5, 5 - a.sum()) / math.comb(10, 5) for a in answers])
    joint = prior[:, None, None] * (q ** (5 - wrong) * (1 - q) ** wrong)[:, :, None]
    joint = joint * told[5 - answers.sum(axis=1)][:, None, :]
    all_right = joint.max(axis=0).sum()
    made = Guessed(5, 0, 5, 10)
    p_value = one_run_p_value(made, epsilon=epsilon, delta=0)
    assert p_value < 0.05 < all_right  # so that for fair coins is too small
    chance = chance_of(np.arange(10) < 5, "half")
    assert chance == pytest.approx(math.comb(10, 5) / 2**10)
    assert all_right <= p_value / chance


def test_the_curve_is_what_is_presumed():
    """A p-value of one's own curve: what was observed, on Gaussian noise of this mu."""
    made = Guessed(100, 100, 190, 1000)
    values = [
        one_run_fdp_p_value(made, lambda t, m=mu: 1 - float(gdp_tpr(m, 1 - t)))
        for mu in (0, 0.5, 1, 2)
    ]
    assert values[0] < 1e-8 and values == sorted(values) and values[3] > 0.5
