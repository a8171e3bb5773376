"""Clopper-Pearson against scipy and by exact coverage; the checks of scores, delta and level."""

import re

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from mico_competition.audit import binomial
from mico_competition.audit.checked import check_delta, check_level, check_scores


@pytest.mark.parametrize("n", [1, 7, 200, 100_000])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.9999])
def test_bounds_equal_scipys_exact_interval(n, level):
    for k in {0, 1, n // 3, n - 1, n}:
        found = binomtest(k, n).proportion_ci(level, method="exact")
        assert binomial.interval(k, n, level) == pytest.approx((found.low, found.high), abs=1e-10)
        one_sided = binomtest(k, n, alternative="greater").proportion_ci(level, method="exact")
        assert binomial.lower(k, n, level) == pytest.approx(one_sided.low, abs=1e-10)
        one_sided = binomtest(k, n, alternative="less").proportion_ci(level, method="exact")
        assert binomial.upper(k, n, level) == pytest.approx(one_sided.high, abs=1e-10)


def test_they_hold_as_often_as_they_say_for_every_probability():
    """Not by drawing: the chance of all counts whose bound holds, summed."""
    n, level = 40, 0.9
    counts = np.arange(n + 1)
    low, high = (bound(counts, n, level) for bound in (binomial.lower, binomial.upper))
    both = binomial.interval(counts, n, level)
    held = []
    for p in np.linspace(0, 1, 501):
        chance = binom.pmf(counts, n, p)
        held.append([chance[low <= p].sum(), chance[p <= high].sum()])
        assert chance[(both[0] <= p) & (p <= both[1])].sum() >= level - 1e-9
    assert np.min(held) >= level - 1e-9
    assert np.min(held) < level + 0.001  # and for some probability no oftener


def test_counts_may_be_arrays_and_ends_are_known():
    low = binomial.lower(np.array([[0, 5], [9, 10]]), 10, 0.95)
    assert low.shape == (2, 2) and low[0, 0] == 0 and (np.diff(low.ravel()) > 0).all()
    assert binomial.upper([10, 20], [10, 20], 0.95).tolist() == [1, 1]
    assert binomial.upper(0, 50, 0.975) == pytest.approx(1 - 0.025 ** (1 / 50))
    assert type(binomial.lower(3, 5, 0.9)) is float


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, 0), (0.5, 5), (float("nan"), 5)])
def test_what_are_no_counts_is_refused(counts):
    for bound in (binomial.lower, binomial.upper, binomial.interval):
        with pytest.raises(ValueError, match="pass counts, not rates"):
            bound(counts[0], counts[1], 0.95)


def test_levels_and_deltas():
    for level in (0, 1, 95, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"level=.* in \(0, 1\): 0.95 is usual"):
            check_level(level)
        with pytest.raises(ValueError, match="level"):
            binomial.interval(1, 2, level)
    check_delta(0.0)
    for delta, zero in ((1, True), (-1e-9, True), (float("nan"), True), (0, False)):
        with pytest.raises(ValueError, match="take the delta of the claim"):
            check_delta(delta, zero=zero)


def test_scores_that_are_fit_come_back_as_arrays():
    truth, scores = check_scores([1, 0, True], [3, 1e300, -5])
    assert truth.dtype == bool and truth.tolist() == [True, False, True]
    assert scores.dtype == np.float64 and scores.tolist() == [3, 1e300, -5]


@pytest.mark.parametrize(
    ("truth", "scores", "words"),
    [
        ([0, 1], [0.5, float("nan")], "got 1 NaN or infinite"),
        ([0, 1], [float("inf"), -float("inf")], "got 2 NaN or infinite"),
        ([0, 2], [0.5, 0.5], "0 (non-member) or 1 (member)"),
        ([0.5, 1], [0.5, 0.5], "0 (non-member) or 1 (member)"),
        ([0, 1, 1], [0.5, 0.5], "2 scores for 3 values of truth"),
        ([], [], "got none"),
        ([1, 1], [0.5, 0.4], "one kind only"),
        ([0, 0], [0.5, 0.4], "one kind only"),
        ([[0, 1]], [[0.5, 0.4]], "flat sequence"),
        ([0, 1], ["a", "b"], "flat sequence"),
        ([0, 1], [[1], [1, 2]], "flat sequence"),
    ],
)
def test_scores_that_are_unfit_are_refused_in_one_sentence(truth, scores, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        check_scores(truth, scores)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
