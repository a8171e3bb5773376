"""Trade-off curves against their definitions: integrals, duality, another library, many digits."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from mico_competition.audit.tradeoff import (
    GAUSSIAN,
    dp_tpr,
    gdp_delta,
    gdp_epsilon,
    gdp_mu,
    gdp_tpr,
)

RATES = np.concatenate([[0, 1e-300, 1e-9], np.linspace(0.001, 1, 300)])


@pytest.mark.parametrize(("mu", "epsilon"), [(0.1, 0.05), (1, 0), (1, 2), (2.5, 6), (6, 1)])
def test_delta_is_the_mass_that_epsilon_leaves_over(mu, epsilon):
    """Its definition: the integral of max(0, p - e^epsilon q), for N(mu, 1) and N(0, 1)."""

    def left_over(x):
        return norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x)

    start = epsilon / mu + mu / 2  # p is e^epsilon q here, and more beyond
    expected = quad(left_over, start, start + mu + 12, epsabs=1e-14)[0]
    assert gdp_delta(mu, epsilon) == pytest.approx(expected, rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("mu", [1e-6, 0.01, 1, 5, 40, 1000])
@pytest.mark.parametrize("epsilon", [0, 1e-6, 0.01, 1, 10, 1000, 5e5])
def test_delta_is_right_to_many_digits_wherever_it_is_not_nothing(mu, epsilon):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        high = mpmath.ncdf(m / 2 - e / m)
        expected = high - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
    found = gdp_delta(mu, epsilon)
    assert 0 <= found <= 1
    if expected > 1e-290:
        assert found == pytest.approx(float(expected), rel=1e-8)
    else:
        assert found < 1e-280


@pytest.mark.slow
def test_another_library_agrees():
    """Google's dp_accounting: one Gaussian of noise 1 / mu."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    for mu in (0.3, 1.0, 2.0):
        losses = pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4)
        for delta in (1e-8, 1e-5, 1e-2):
            assert gdp_epsilon(mu, delta) == pytest.approx(
                losses.get_epsilon_for_delta(delta), abs=1e-3
            )


def test_each_way_round():
    for mu in (0.01, 0.5, 1, 4, 40, 1e4):
        for delta in (1e-12, 1e-5, 0.1, 0.9):
            epsilon = gdp_epsilon(mu, delta)
            if epsilon > 0:
                assert gdp_delta(mu, epsilon) == pytest.approx(delta, rel=1e-4)
                assert gdp_mu(epsilon, delta) == pytest.approx(mu, rel=1e-8)
            else:
                assert gdp_delta(mu, 0) <= delta
    for epsilon in (0, 1e-3, 1, 10, 1e6):
        mu = gdp_mu(epsilon, 1e-5)
        assert gdp_delta(mu, epsilon) == pytest.approx(1e-5, rel=1e-3)


def test_ends():
    assert gdp_delta(0, 0) == gdp_delta(0, 5) == gdp_epsilon(0, 0) == gdp_epsilon(0, 0.1) == 0
    assert gdp_epsilon(1, 0) == math.inf and gdp_mu(3, 0) == 0
    for mu in (0, 3, 1e6):
        assert gdp_tpr(mu, [0, 1]).tolist() == [0, 1]
    assert gdp_tpr(math.inf, [0, 0.5, 1]).tolist() == [1, 1, 1]
    for epsilon in (0, 3, 1e4):
        assert dp_tpr(epsilon, 1e-5, [0, 1]) == pytest.approx([1e-5, 1], rel=1e-9)
    assert dp_tpr(math.inf, 0, [0, 0.5, 1]).tolist() == [1, 1, 1]
    np.testing.assert_allclose(gdp_tpr(0, RATES), RATES, rtol=1e-12)
    np.testing.assert_allclose(dp_tpr(0, 0, RATES), RATES, rtol=1e-12)


def test_dp_tpr_equals_the_plain_formula():
    for epsilon, delta in ((0.5, 0), (1, 1e-5), (4, 0.01), (10, 1e-5)):
        found = dp_tpr(epsilon, delta, RATES)
        for fpr, tpr in zip(RATES, found):
            lines = (math.exp(epsilon) * fpr + delta, 1 - math.exp(-epsilon) * (1 - delta - fpr))
            assert tpr == pytest.approx(min(1, *lines), rel=1e-12)
        assert (np.diff(found) >= 0).all() and (found >= RATES - 1e-15).all()


def test_arguments_broadcast():
    grid = dp_tpr(np.array([[0.0], [1.0], [4.0]]), np.array([[0.0], [1e-5], [0.1]]), RATES)
    assert grid.shape == (3, len(RATES))
    np.testing.assert_array_equal(grid[1], dp_tpr(1.0, 1e-5, RATES))
    grid = gdp_tpr(np.array([[0.0], [2.0], [np.inf]]), RATES)
    np.testing.assert_array_equal(grid[1], gdp_tpr(2.0, RATES))


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_the_gaussian_curve_is_the_least_of_all_its_epsilons(mu):
    """Dong, Roth and Su (2022), proposition 3: both ways of writing one claim agree."""
    epsilons = np.linspace(0, 30, 6001)
    deltas = np.array([gdp_delta(mu, e) for e in epsilons])
    inner = RATES[RATES > 1e-5]
    least = dp_tpr(epsilons[:, None], deltas[:, None], inner).min(axis=0)
    np.testing.assert_allclose(gdp_tpr(mu, inner), least, atol=2e-5)
    assert (gdp_tpr(mu, inner) <= least + 1e-12).all()


def test_the_familys_functions_are_inverse():
    for mu in (0.0, 0.7, 3.0):
        for fpr in (0.0, 1e-6, 0.3, 1.0):
            tpr = GAUSSIAN.tpr(mu, fpr)
            assert tpr == gdp_tpr(mu, fpr)
            assert GAUSSIAN.fpr(mu, tpr) == pytest.approx(fpr, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dp_tpr(-1, 0, 0.5), "epsilon at least 0"),
        (lambda: dp_tpr(1, 1.5, 0.5), r"delta in \[0, 1\]"),
        (lambda: dp_tpr(1, 0, [0.5, np.nan]), r"fpr in \[0, 1\]"),
        (lambda: gdp_tpr(-1, 0.5), "mu at least 0"),
        (lambda: gdp_tpr(1, 1.5), r"fpr in \[0, 1\]"),
        (lambda: gdp_delta(-1, 0), "mu=-1 finite and at least 0"),
        (lambda: gdp_delta(1, math.nan), "epsilon=nan finite"),
        (lambda: gdp_epsilon(math.inf, 0.1), "mu=inf finite"),
        (lambda: gdp_epsilon(1, 1), "delta=1"),
        (lambda: gdp_mu(math.inf, 0.1), "epsilon=inf finite"),
        (lambda: gdp_mu(1, -0.1), "delta=-0.1"),
    ],
)
def test_what_is_out_of_range_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
