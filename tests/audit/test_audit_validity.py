"""How often bounds are above the true epsilon, on simulated mechanisms: 5 % of runs at most.

And how near they come: `tightness`, of which the tests hold a few values.
"""

import math

import numpy as np
import pytest
from helpers_audit_bounds import ALLOWED, RUNS, alarms, coins, gaussian, randomised_response
from scipy.stats import norm

from mico_competition.audit.bounds import METHODS, all_bounds
from mico_competition.audit.guesses import guess, plan_for
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.threshold import threshold_bound
from mico_competition.audit.tradeoff import gdp_mu

DELTA = 1e-5


def tightness(epsilon, points, runs=20, seed=0):
    """Mean bound / true epsilon of each method, on Gaussian mechanisms with fair coins."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        truth = coins(rng, points)
        scores = gaussian(rng, truth, epsilon, DELTA)
        bounds = all_bounds(truth, scores, delta=DELTA)
        found.append([bound.epsilon / epsilon for bound in bounds])
    return dict(zip(METHODS, np.mean(found, axis=0).round(3).tolist()))


def gaussian_runs(epsilon, points, half=False):
    def simulate(rng):
        truth = coins(rng, points, half)
        return truth, gaussian(rng, truth, epsilon, DELTA)

    return simulate


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "points"), [(1.0, 1000), (4.0, 300), (10.0, 1000)])
def test_no_false_alarms_on_gaussian_noise(epsilon, points):
    simulate = gaussian_runs(epsilon, points)
    for bound in METHODS.values():
        assert alarms(bound, simulate, epsilon, delta=DELTA) <= ALLOWED, bound


def test_no_false_alarms_without_any_signal():
    def simulate(rng):
        return coins(rng, 500), rng.normal(size=500)

    for bound in METHODS.values():
        assert alarms(bound, simulate, 0.0, delta=DELTA) <= ALLOWED, bound


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_no_false_alarms_on_randomised_response(epsilon):
    """The one-run bound's worst case: nothing tells more, so alarms are near 5 %, not fewer."""

    def simulate(rng):
        truth = coins(rng, 1000)
        return truth, randomised_response(rng, truth, epsilon)

    assert alarms(threshold_bound, simulate, epsilon, delta=0) <= ALLOWED
    for guesses in ((500, 500), (300, 0)):
        count = alarms(one_run_bound, simulate, epsilon, delta=0, guesses=guesses)
        assert count <= ALLOWED, guesses
    assert 0.01 * RUNS <= alarms(one_run_bound, simulate, epsilon, delta=0) <= ALLOWED
    plans = [(20, 20), (100, 100), (500, 500)]
    assert alarms(one_run_bound, simulate, epsilon, delta=0, guesses=plans) <= ALLOWED


@pytest.mark.parametrize(("delta", "plans"), [(0.001, [(20, 20), (250, 250)]), (0.01, [(75, 75)])])
def test_no_false_alarms_where_a_few_points_are_told(delta, plans):
    """Each point is told with probability delta, and those are guessed first."""

    def simulate(rng):
        truth = coins(rng, 500)
        return truth, randomised_response(rng, truth, 1.0, reveal=delta)

    for plan in plans:
        count = alarms(one_run_bound, simulate, 1.0, delta=delta, guesses=plan)
        assert count <= ALLOWED, plan
    assert alarms(threshold_bound, simulate, 1.0, delta=delta) <= ALLOWED
    if delta == 0.01:  # without regard to delta there are false alarms: the simulation can tell
        assert alarms(one_run_bound, simulate, 1.0, delta=0, guesses=(5, 5)) > ALLOWED


@pytest.mark.slow
def test_choosing_the_best_number_of_guesses_afterwards_would_deceive():
    """Why plans are made beforehand, and pay for each other."""
    grid = [(k, k) for k in (5, 10, 20, 40, 80, 160, 250)]

    def best_afterwards(truth, scores):
        return max(
            (one_run_bound(truth, scores, delta=0, guesses=plan) for plan in grid),
            key=lambda found: found.epsilon,
        )

    def simulate(rng):
        return coins(rng, 500), rng.normal(size=500)

    assert alarms(best_afterwards, simulate, 0.0) > 1.5 * ALLOWED
    assert alarms(one_run_bound, simulate, 0.0, delta=0, guesses=grid) <= ALLOWED


def test_how_near_bounds_come():
    """Ratios of bound to truth that were measured, less some slack."""
    small = tightness(4.0, 1000)
    large = tightness(4.0, 10_000, runs=5)
    for found, floors in ((small, (0.28, 0.45, 0.2, 0.6)), (large, (0.42, 0.56, 0.38, 0.84))):
        assert all(ratio >= floor for ratio, floor in zip(found.values(), floors)), found
        assert all(ratio < 1 for ratio in found.values())


def test_the_gaussian_of_a_simulation_is_the_mechanism():
    """The simulations' own ground: right guesses of all points are Phi(mu / 2) of them."""
    rng = np.random.default_rng(0)
    truth = coins(rng, 200_000)
    (made,) = guess(truth, gaussian(rng, truth, 4.0, DELTA), [(100_000, 100_000)], 0)
    assert made.right / 200_000 == pytest.approx(norm.cdf(gdp_mu(4.0, DELTA) / 2), abs=0.005)
    assert math.isclose(sum(plan_for(1000)), 200)
