"""The paired test of two attacks, and intervals of the TPR at any FPR: level and coverage."""

import re

import numpy as np
import pytest
from scipy.stats import binom, norm

from mico_competition.audit.rates import tpr_interval
from mico_competition.evaluation.measure import METRICS, compare, measure
from mico_competition.evaluation.paired import p_value, paired_test


def two_attacks(rng, models=25, points=60, gain=0.0):
    """Truth and two attacks whose noise is half shared; some models leak more, to either."""
    truth = rng.random((models, points)) < 0.5
    luck = rng.uniform(0.5, 1.5, (models, 1))
    shared = rng.normal(size=truth.shape) + luck * truth
    one, other = (shared + rng.normal(size=truth.shape) for _ in "ab")
    return truth, one + gain * truth, other


# --- paired


def test_it_is_the_paired_interval_with_its_p_value():
    truth, one, other = two_attacks(np.random.default_rng(0), gain=0.5)
    for metric in METRICS:
        found = paired_test(truth, one, other, metric=metric, resamples=400, seed=5)
        pair = [measure(truth, scores, resamples=400, seed=5) for scores in (one, other)]
        expected = compare(*pair)[metric]
        assert found[:3] == (expected.value, expected.low, expected.high)
        back = paired_test(truth, other, one, metric=metric, resamples=400, seed=5)
        assert back.difference == -found.difference
        assert back.p_value == found.p_value
    assert paired_test(truth, one, other, metric="AUC").p_value < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("models", [6, 12, 50])
def test_the_p_value_is_where_the_interval_ends_at_zero(models):
    """An interval at level 1 - p leaves out 0 just when p is above the p-value, nearly."""
    rng = np.random.default_rng(models)
    least, compared = p_value(np.ones(2000), models), 0
    for gain in (0.0, 0.0, 0.05, 0.1, 0.1, 0.2):
        truth, one, other = two_attacks(rng, models, 100, gain)
        options = {"metric": "AUC", "resamples": 2000}
        p = paired_test(truth, one, other, **options).p_value
        assert least <= p <= 1
        if 2 * least < p < 0.9:  # fewer draws on one side do not tell
            compared += 1
            above = paired_test(truth, one, other, level=1 - 1.05 * p - 0.01, **options)
            below = paired_test(truth, one, other, level=1 - 0.95 * p + 0.01 * p, **options)
            assert above.low > 0 or above.high < 0
            assert below.low <= 0 <= below.high
    assert compared >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "least"), [("AUC", 0.02), ("TPR_FPR_1000", 0.01)])
def test_its_level(metric, least):
    """Two equally good attacks differ at 5 % in 5 % of all cases; a better one is found."""
    rng = np.random.default_rng(1)
    runs = 200
    found = [paired_test(*two_attacks(rng), metric=metric, resamples=200) for _ in range(runs)]
    false = sum(one.p_value <= 0.05 for one in found)
    assert least * runs <= false <= binom.ppf(0.999, runs, 0.05)
    held = sum(one.low <= 0 <= one.high for one in found) / runs
    assert 0.93 <= held <= 0.97 + 0.015  # one standard error of the simulation
    better = [
        paired_test(*two_attacks(rng, gain=0.8), metric=metric, resamples=200) for _ in range(20)
    ]
    assert sum(one.p_value <= 0.05 and one.difference > 0 for one in better) >= 15


def test_attacks_that_do_not_differ():
    truth, one, _ = two_attacks(np.random.default_rng(2))
    assert paired_test(truth, one, one) == (0, 0, 0, 1)
    assert paired_test(truth, one, np.exp(one), metric="AUC").p_value == 1
    assert p_value(np.ones(1000), 50) > 1e-4  # a thousand draws do not make certain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "F1"}, "Unknown metric 'F1': take one of TPR_FPR_1000"),
        ({"level": 95}, "level=95"),
        ({"resamples": 0}, "resamples=0"),
        ({"models": 1}, "at least two models"),
        ({"shape": True}, "[models, points]"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, words):
    options = dict(change)
    truth, one, other = two_attacks(np.random.default_rng(0), options.pop("models", 5))
    other = other[:, :7] if options.pop("shape", False) else other
    with pytest.raises(ValueError, match=re.escape(words)):
        paired_test(truth, one, other, **options)


# --- TPR at any FPR


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1, 0.5, 0.95])
def test_exact_intervals_of_the_tpr_hold_as_often_as_they_say(fpr):
    rng = np.random.default_rng(4)
    expected = norm.cdf(norm.ppf(fpr) + 1.5)
    runs, held, widths = 400, 0, []
    for _ in range(runs):
        truth = np.arange(400) < 150
        low, high = tpr_interval(truth, rng.normal(size=400) + 1.5 * truth, fpr)
        assert 0 <= low <= high <= 1
        held += low <= expected <= high
        widths.append(high - low)
    assert held / runs >= 0.95
    assert np.mean(widths) < {0.0: 1.01, 0.01: 0.75, 0.1: 0.4, 0.5: 0.25, 0.95: 0.2}[fpr]


def test_exact_intervals_at_the_ends_and_with_ties():
    truth = np.arange(1000) % 2
    low, high = tpr_interval(truth, truth, 0.05)
    assert low == pytest.approx(0.0125 ** (1 / 500)) and high == 1
    assert tpr_interval(truth, truth, 1.0) == tpr_interval(truth, truth, 0.999)
    low, high = tpr_interval(truth, np.zeros(1000), 0.3)  # ties in random order: chance
    assert 0.15 < low < 0.3 < high < 0.45
    assert tpr_interval([1, 0], [0.3, 0.2], 0.1) == (0, 1)
    with pytest.raises(ValueError, match="fpr"):
        tpr_interval(truth, truth, 1.5)
