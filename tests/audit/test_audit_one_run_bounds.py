"""One-run bounds: known values, ties, plans, pairs, families, speed, and what is refused."""

import math
import re

import numpy as np
import pytest
from helpers_audit_bounds import coins, gaussian, least_fpr, randomised_response
from helpers_work import calls
from scipy.optimize import brentq

from mico_competition.audit.guesses import Guessed, guess, pairs, plan_for
from mico_competition.audit.one_run import one_run_bound, one_run_p_value
from mico_competition.audit.one_run_fdp import one_run_fdp_bound
from mico_competition.audit.tradeoff import Family, gdp_epsilon

BOTH = (one_run_bound, one_run_fdp_bound)
PURE = Family("epsilon", None, lambda e, tpr: least_fpr(e, 0)(tpr), lambda e, delta: e)


@pytest.mark.parametrize("bound", BOTH)
def test_perfect_scores_have_a_known_bound(bound):
    truth = np.arange(200) % 2
    found = bound(truth, truth * 1e300, delta=1e-5, guesses=(100, 100))
    assert found.detail["right"] == found.detail["guesses"] == 200
    assert (found.delta, found.level) == (1e-5, 0.95) and found.detail["points"] == 200
    if bound is one_run_bound:
        made = Guessed(100, 100, 200, 200)
        root = brentq(lambda e: one_run_p_value(made, epsilon=e, delta=1e-5) - 0.05, 0.1, 20)
        assert found.epsilon == pytest.approx(root, abs=1e-5)
        # Without delta q^200 = 0.05.
        q = 0.05 ** (1 / 200)
        pure = bound(truth, truth, delta=0, guesses=(100, 100))
        assert pure.epsilon == pytest.approx(math.log(q / (1 - q)), abs=1e-5)
    else:
        assert found.epsilon == gdp_epsilon(found.detail["mu"], 1e-5)
        assert 4 < found.epsilon < 40


@pytest.mark.parametrize("bound", BOTH)
def test_only_the_order_of_scores_counts(bound):
    rng = np.random.default_rng(0)
    truth = coins(rng, 400)
    scores = gaussian(rng, truth, 6.0, 1e-5)
    expected = bound(truth, scores, delta=1e-5)
    assert expected.epsilon > 1
    assert bound(truth, 1e300 * np.tanh(scores), delta=1e-5) == expected
    assert bound(list(truth), list(scores), delta=1e-5) == expected
    order = rng.permutation(400)
    assert bound(truth[order], scores[order], delta=1e-5) == expected
    assert bound(truth, scores, delta=1e-5, level=0.99).epsilon < expected.epsilon
    assert bound(truth, scores, delta=1e-3).epsilon < expected.epsilon


@pytest.mark.parametrize("bound", BOTH)
def test_ties_prove_nothing_whatever_order_they_are_given_in(bound):
    one = np.arange(2000) == 7
    for truth in (np.arange(2000) < 1000, np.arange(2000) >= 1000):
        assert bound(truth, np.zeros(2000), delta=1e-5).epsilon == 0
        held = [bound(truth, one, delta=1e-5, seed=seed).epsilon == 0 for seed in range(40)]
        assert sum(held) >= 35
        assert bound(truth, truth, delta=1e-5).epsilon > 3


def test_a_list_of_plans_pays_for_each():
    rng = np.random.default_rng(1)
    truth = coins(rng, 1000)
    scores = gaussian(rng, truth, 4.0, 1e-5)
    plans = [(50, 50), (100, 100), (200, 0), (0, 200)]
    for bound in BOTH:
        alone = [bound(truth, scores, delta=1e-5, guesses=plan).epsilon for plan in plans]
        stricter = [
            bound(truth, scores, delta=1e-5, guesses=plan, level=1 - 0.05 / 4).epsilon
            for plan in plans
        ]
        together = bound(truth, scores, delta=1e-5, guesses=plans)
        assert together.epsilon == pytest.approx(max(stricter), abs=1e-4)
        assert together.epsilon < max(alone) and together.detail["plans"] == 4


def test_who_is_guessed():
    member, value = np.array([1, 0, 1, 1, 0], dtype=bool), np.array([5.0, 4, 3, 2, 1])
    made = guess(member, value, [(1, 1), (2, 3), (5, 0), (0, 2)], seed=0)
    assert [one.right for one in made] == [2, 2, 3, 1]
    assert [(one.guesses, one.sides) for one in made] == [(2, 2), (5, 2), (5, 1), (2, 1)]
    usual = [plan_for(points) for points in (5, 100, 1000, 10_000)]
    assert usual == [(3, 2), (50, 50), (100, 100), (550, 550)]


def test_half_is_never_more_than_coins():
    rng = np.random.default_rng(2)
    truth = coins(rng, 1000, half=True)
    scores = gaussian(rng, truth, 4.0, 1e-5)
    for bound in BOTH:
        coin, half = (
            bound(truth, scores, delta=1e-5, membership=m).epsilon for m in ("coins", "half")
        )
        assert 0.5 < half < coin


def test_pairs_are_fair_coins_of_replacing():
    rng = np.random.default_rng(3)
    truth = np.arange(300) < 100
    scores = truth * 1.0 + 0.001 * rng.random(300)
    first, gap = pairs(truth, scores, seed=1)
    assert first.shape == gap.shape == (100,) and 30 < first.sum() < 70
    assert ((gap > 0) == first).all() and (np.abs(gap) > 0.49).all()
    # Each record is in one pair at most: sums tell.
    assert gap[first].sum() - gap[~first].sum() <= (scores[truth].sum()) / 2
    huge = pairs(truth, np.where(truth, 1.7e308, -1.7e308))[1]
    assert np.isfinite(huge).all()
    again = pairs(truth, scores, seed=1)
    assert (again[0] == first).all() and (again[1] == gap).all()


def test_another_family_can_be_presumed():
    """Randomised response: its own curve proves what the binomial tail does, nearly."""
    rng = np.random.default_rng(4)
    truth = coins(rng, 1000)
    scores = randomised_response(rng, truth, 2.0)
    own = one_run_fdp_bound(truth, scores, delta=1e-9, guesses=(500, 500), curve=PURE)
    plain = one_run_bound(truth, scores, delta=0, guesses=(500, 500))
    assert 1 < own.epsilon == own.detail["epsilon"] <= plain.epsilon + 1e-4


@pytest.mark.parametrize("bound", BOTH)
def test_few_calls_for_each_of_ten_thousand_points(bound):
    rng = np.random.default_rng(5)
    truth = coins(rng, 10_000)
    for epsilon in (0.0, 1.0, 10.0):
        scores = gaussian(rng, truth, epsilon, 1e-5) if epsilon else rng.normal(size=10_000)
        for guesses in (None, (5000, 5000), (5000, 0)):
            work = calls(lambda: bound(truth, scores, delta=1e-5, guesses=guesses))  # noqa: B023
            assert work < 10 * 10_000


FEW, MANY = np.arange(4) % 2, np.arange(100) % 2


@pytest.mark.parametrize(
    ("truth", "options", "words"),
    [
        (FEW, {}, "at least 5 guesses, on as many points, for a bound above 0"),
        (MANY, {"guesses": (3, 1)}, "at least 5 guesses"),
        (MANY, {"guesses": (101, 0)}, "the 100 points"),
        (MANY, {"guesses": (0, 0)}, "(k_plus, k_minus), whole numbers that sum to 1 up to the 100"),
        (MANY, {"guesses": (10.5, 3)}, "whole numbers"),
        (MANY, {"guesses": []}, "at least one pair"),
        (MANY, {"membership": "third"}, "membership 'third'"),
        (np.arange(100) < 10, {}, "got 10 and 90: drop points of the larger kind at random"),
        (MANY, {"delta": 1.0}, "delta=1.0"),
        (MANY, {"level": 95}, "level=95"),
    ],
)
def test_what_cannot_be_bounded_is_refused_in_one_sentence(truth, options, words):
    for bound in BOTH:
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            bound(truth, np.arange(truth.size), **{"delta": 1e-5, **options})
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.slow
def test_a_delta_that_allows_everything_is_said_to():
    with pytest.raises(ValueError, match=r"delta=0.1 and 100 points no number of guesses proves"):
        one_run_bound(MANY, MANY, delta=0.1)
    with pytest.raises(ValueError, match="delta=0"):
        one_run_fdp_bound(MANY, MANY, delta=0)
    assert one_run_fdp_bound(MANY, MANY, delta=0.1).epsilon > 1
