"""One-run bounds where points hang together: common luck, half of the points drawn, pairs."""

import numpy as np
import pytest
from helpers_audit_bounds import (
    ALLOWED,
    RUNS,
    alarms,
    coins,
    gaussian,
    randomised_response,
    two_faced,
    two_faced_tpr,
)
from scipy.stats import norm

from mico_competition.audit.gaussian import gaussian_bound
from mico_competition.audit.guesses import pairs
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.one_run_fdp import one_run_fdp_bound

DELTA = 1e-5


@pytest.mark.slow
def test_points_that_hang_together_do_not_deceive_one_run_bounds():
    """A fifth of all runs answer well, the others not at all.

    Over all runs the mechanism is within a Gaussian curve.  But in a run that answers, every point
    does, and whoever takes points for independent is deceived: in a fifth of the runs.
    """
    epsilon, often = 4.0, 0.2
    grid = np.geomspace(1e-9, 0.5, 4000)
    mu = float((norm.ppf(two_faced_tpr(grid, epsilon, often)) - norm.ppf(grid)).max())

    def simulate(rng):
        truth = coins(rng, 1000)
        return truth, two_faced(rng, truth, epsilon, often)

    def above(bound, **options):
        rng = np.random.default_rng(3)
        runs = [bound(*simulate(rng), delta=DELTA, **options) for _ in range(RUNS)]
        return sum(one.detail["mu"] > mu for one in runs)

    for guesses in (None, (500, 500), (100, 0)):
        assert above(one_run_fdp_bound, guesses=guesses) <= ALLOWED, guesses
    assert above(gaussian_bound) > 2 * ALLOWED
    assert alarms(one_run_bound, simulate, epsilon, delta=0) <= ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("membership", ["coins", "half"])
def test_half_of_the_points_drawn_gives_no_more_alarms(membership):
    """Just half of the points are in, as in MICO, and all scores share a shift."""

    def simulate(rng):
        truth = coins(rng, 200, half=True)
        return truth, gaussian(rng, truth, 4.0, DELTA) + rng.normal(scale=100)

    def answers(rng):
        truth = coins(rng, 200, half=True)
        return truth, randomised_response(rng, truth, 1.0)

    for guesses in (None, (100, 100), (100, 0)):
        options = {"guesses": guesses, "membership": membership}
        for bound in (one_run_bound, one_run_fdp_bound):
            assert alarms(bound, simulate, 4.0, delta=DELTA, **options) <= ALLOWED
        assert alarms(one_run_bound, answers, 1.0, delta=0, **options) <= ALLOWED


def test_pairs_bound_the_epsilon_of_replacing():
    """Randomised response of 1 for each record is 2 when one is replaced by another."""

    def simulate(rng):
        truth = coins(rng, 1000, half=True)
        scores = randomised_response(rng, truth, 1.0)
        return pairs(truth, scores, seed=int(rng.integers(2**31)))

    assert alarms(one_run_bound, simulate, 2.0, delta=0, guesses=(100, 100)) <= ALLOWED
    assert alarms(one_run_bound, simulate, 1.0, delta=0, guesses=(100, 100)) > RUNS / 2
