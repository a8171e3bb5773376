"""Bounds by thresholds, and all bounds at once: known values, naive loops, what is refused."""

import math
import re

import numpy as np
import pytest
from helpers_audit_bounds import coins, gaussian, randomised_response
from helpers_work import calls
from scipy.stats import norm

from mico_competition.audit import binomial
from mico_competition.audit.bound import Bound, largest_excluded
from mico_competition.audit.bounds import METHODS, all_bounds
from mico_competition.audit.gaussian import gaussian_bound
from mico_competition.audit.threshold import epsilon_of_rates, threshold_bound
from mico_competition.audit.tradeoff import dp_tpr, gdp_epsilon

BOTH = (threshold_bound, gaussian_bound)
HALF = np.arange(200) % 2


def noisy(seed=0, points=2000, epsilon=4.0):
    rng = np.random.default_rng(seed)
    truth = coins(rng, points)
    return truth, gaussian(rng, truth, epsilon, 1e-5)


# --- thresholds


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
def test_epsilon_of_rates_is_the_least_that_allows_them(delta):
    for tpr, fpr in ((0.9, 0.1), (0.999, 0.5), (0.3, 0.01), (0.5, 0.5), (0.9999, 0.0001)):
        epsilon = float(epsilon_of_rates(tpr, fpr, delta))
        if epsilon > 0:
            assert dp_tpr(epsilon, delta, fpr) == pytest.approx(tpr, rel=1e-9)
        else:
            assert dp_tpr(0, delta, fpr) >= tpr
    assert epsilon_of_rates(0, 0.5, 0.6) == -math.inf


def test_perfect_scores_have_a_known_bound():
    for delta in (0.0, 1e-5, 0.1):
        found = threshold_bound(HALF, HALF * 1e300, delta=delta)
        assert found.detail["thresholds"] == 20
        edge = (0.05 / 40) ** (1 / 100)
        assert found.epsilon == pytest.approx(math.log((edge - delta) / (1 - edge)))
    found = gaussian_bound(HALF, HALF, delta=1e-5)
    assert found.detail["mu"] == pytest.approx(2 * norm.ppf(edge))
    assert found.epsilon == gdp_epsilon(found.detail["mu"], 1e-5)
    assert found.method == "Gaussian DP" and math.isfinite(found.epsilon)


def test_corrected_is_what_a_loop_over_ranks_finds():
    truth, scores = noisy(points=300)
    members, others = np.sort(scores[truth]), np.sort(scores[~truth])

    def ranks(count):
        found = {1}
        while 1.5 ** len(found) <= count / 2 or len(found) < 2:
            found.add(math.ceil(1.5 ** len(found)))
        return sorted(found)

    tops, bottoms = ranks(len(others)), ranks(len(members))
    level = 1 - 0.05 / (2 * (len(tops) + len(bottoms)))
    rates = [((members > others[-k]).sum(), k - 1) for k in tops]
    rates += [(len(members) - k + 1, (others >= members[k - 1]).sum()) for k in bottoms]
    low = [binomial.lower(tp, len(members), level) for tp, _ in rates]
    high = [binomial.upper(fp, len(others), level) for _, fp in rates]
    found = threshold_bound(truth, scores, delta=1e-5)
    best = max(float(epsilon_of_rates(tpr, fpr, 1e-5)) for tpr, fpr in zip(low, high))
    assert found.epsilon == pytest.approx(best) and found.epsilon > 0
    found = gaussian_bound(truth, scores, delta=1e-5)
    mu = max(norm.ppf(tpr) - norm.ppf(fpr) for tpr, fpr in zip(low, high))
    assert found.detail["mu"] == pytest.approx(mu) and found.epsilon == gdp_epsilon(mu, 1e-5)


@pytest.mark.parametrize("bound", BOTH)
def test_ties_and_nonsense_prove_nothing(bound):
    assert bound(HALF, np.zeros(200), delta=1e-5).epsilon == 0
    assert bound(HALF, np.full(200, -1e300), delta=1e-5).epsilon == 0
    assert bound(HALF, -1.0 * HALF, delta=1e-5).epsilon == 0  # all guesses wrong
    one = np.arange(200) == 3
    assert bound(HALF, one, delta=1e-5).epsilon == 0


@pytest.mark.parametrize("bound", BOTH)
def test_only_the_order_of_scores_counts(bound):
    truth, scores = noisy()
    expected = bound(truth, scores, delta=1e-5)
    assert expected.epsilon > 0
    assert bound(truth, 1e300 * np.tanh(scores), delta=1e-5).epsilon == expected.epsilon
    assert bound(list(truth), list(scores), delta=1e-5) == expected
    assert bound(truth, scores, delta=1e-5, level=0.99).epsilon < expected.epsilon


def test_tied_scores_lose_nothing_of_randomised_response():
    rng = np.random.default_rng(5)
    truth = coins(rng, 10_000)
    found = threshold_bound(truth, randomised_response(rng, truth, 2.0), delta=0)
    assert 1.6 < found.epsilon < 2.0


# --- all of them


def test_all_bounds_are_each_methods_own():
    truth, scores = noisy()
    found = all_bounds(truth, scores, delta=1e-5, level=0.9, seed=3)
    assert [one.method for one in found] == list(METHODS)
    for one in found:
        assert one == METHODS[one.method](truth, scores, delta=1e-5, level=0.9, seed=3)
        assert isinstance(one, Bound) and (one.delta, one.level) == (1e-5, 0.9)
        assert 0 < one.epsilon < 4.5 and all(type(v) is float for v in one.detail.values())


def test_presuming_more_proves_more():
    """On a Gaussian mechanism, with independent points: averages over some runs."""
    rows = [[b.epsilon for b in all_bounds(*noisy(seed), delta=1e-5)] for seed in range(10)]
    one_run, one_run_fdp, threshold, gauss = np.mean(rows, axis=0)
    assert threshold < gauss and one_run < one_run_fdp < gauss < 4


def test_no_call_for_each_of_ten_thousand_points():
    truth, scores = noisy(points=10_000)
    for bound in BOTH:
        assert calls(lambda: bound(truth, scores, delta=1e-5)) < 10_000  # noqa: B023


def test_the_largest_excluded():
    for edge in (1e-3, 0.5, 1.0, 7.3, 1e5):
        found = largest_excluded(lambda x, edge=edge: x < edge)
        assert found < edge and found == pytest.approx(edge, rel=1e-5, abs=2e-6)
    assert largest_excluded(lambda x: False) == 0


@pytest.mark.parametrize(
    ("truth", "options", "words"),
    [
        (np.arange(12) % 2, {}, "at least 9 members and 9 non-members for a bound above 0"),
        (np.arange(60) % 2, {"level": 1 - 1e-9}, "got 30 and 30: add points, or lower the level"),
        (HALF, {"delta": 1.5}, "delta=1.5 in"),
        (HALF, {"delta": float("nan")}, "delta=nan in"),
        (HALF, {"level": 95}, "level=95 in (0, 1)"),
        (np.ones(20), {}, "one kind only"),
    ],
)
def test_what_cannot_be_bounded_is_refused_in_one_sentence(truth, options, words):
    for bound in BOTH:
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            bound(truth, np.arange(truth.size), **{"delta": 1e-5, **options})
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_so_many_points_as_the_sentence_asks_for_are_enough():
    truth = np.arange(18) % 2
    assert threshold_bound(truth, truth, delta=1e-5).epsilon > 0


def test_deltas_and_levels_of_all():
    with pytest.raises(ValueError, match=r"delta=0 in \(0, 1\)"):
        all_bounds(HALF, HALF, delta=0)
    with pytest.raises(ValueError, match="level=1 "):
        all_bounds(HALF, HALF, delta=1e-5, level=1)
