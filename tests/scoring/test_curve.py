"""What of a ROC curve may be shown: no labels can be read off it, by attack and by counting."""

import math

import numpy as np
import pytest
from mico_competition.scoring import score
from mico_competition.scoring.curve import (
    RATES,
    RECORDS,
    SCORED,
    _unit,
    grid,
    shown_curve,
)


def labels_from_curve(fpr, tpr, predictions):
    """What the exact curve tells someone who knows the predictions: every label in their order."""
    members, nonmembers = (round(1 / np.diff(rate)[np.diff(rate) > 0].min()) for rate in (tpr, fpr))
    labels = []
    for down, right in zip(np.diff(tpr) * members, np.diff(fpr) * nonmembers, strict=True):
        labels += [1] * round(down) + [0] * round(right)
    found = np.empty(len(predictions), dtype=int)
    found[np.argsort(-predictions)] = labels
    return found


def labels_from_page(curve, members, nonmembers, predictions):
    """The best guess from the shown points: a piece is of one kind, whichever it has more of."""
    fpr, tpr = np.array([0, *curve.fpr, 1]), np.array([0, *curve.tpr, 1])
    right, up = np.diff(fpr) * nonmembers, np.diff(tpr) * members
    ends = np.round(np.cumsum(right + up)).astype(int)
    found = np.zeros(len(predictions), dtype=int)
    order = np.argsort(-predictions)
    for start, end, kind in zip([0, *ends], ends, up > right, strict=False):
        found[order[start:end]] = kind
    return found


@pytest.mark.parametrize("gap", [0.0, 0.2, 2.0])
def test_labels_can_be_read_off_the_exact_curve_but_not_off_the_page(gap):
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([0, 1], 5000))
    predictions = gap * truth + rng.normal(size=10_000)
    exact = score(truth, predictions)
    assert np.array_equal(labels_from_curve(exact["fpr"], exact["tpr"], predictions), truth)
    curve = shown_curve(exact, {"members": 5000, "nonmembers": 5000})
    guessed = labels_from_page(curve, 5000, 5000, predictions)
    # With a signal no better than the attack's own best threshold, which its maker nearly knows.
    assert (guessed == truth).mean() <= exact["accuracy"] + (0.01 if gap else 0.02)


def label_bits(members, nonmembers):
    """How many bits the labels of so many records are worth: log2 of "n choose m"."""
    logs = [math.lgamma(count + 1) for count in (members + nonmembers, members, nonmembers)]
    return (logs[0] - logs[1] - logs[2]) / math.log(2)


def curve_bits(members, nonmembers):
    """A bound of what the shown curve can tell beside the scores, in bits."""
    levels = round(1 / _unit(members))
    return label_bits(levels, len(grid(nonmembers)) - len(SCORED))


@pytest.mark.parametrize("count", [1, 10, 37, 100, 500, 1000, 5000, 100_000])
def test_the_curve_is_coarse_whatever_its_size(count):
    rates = grid(count)
    assert set(SCORED) <= set(rates) <= set(RATES) and rates == sorted(rates)
    assert len(rates) <= len(RATES) == 36
    own = [rate for rate in rates if rate not in SCORED]
    gaps = [abs(rate - other) for rate in own for other in (0, *rates) if other != rate]
    assert all(count * gap > RECORDS - 0.2 for gap in gaps)
    assert curve_bits(count, count) <= 0.081 * label_bits(count, count)
    if count >= 5000:
        assert curve_bits(count, count) < 0.016 * label_bits(count, count)


def test_bits_are_those_of_counting():
    assert label_bits(3, 4) == pytest.approx(math.log2(math.comb(7, 3)))
    levels = 500  # 5,000 members in steps of 10
    points = len(grid(5000)) - len(SCORED)
    assert curve_bits(5000, 5000) == pytest.approx(math.log2(math.comb(levels + points, points)))


@pytest.mark.parametrize(("members", "nonmembers"), [(30, 30), (500, 300), (5000, 5000)])
def test_all_but_the_scores_is_rounded(members, nonmembers):
    rng = np.random.default_rng(members)
    truth = rng.permutation(np.repeat([0, 1], (nonmembers, members)))
    result = score(truth, truth + rng.normal(size=truth.size))
    curve = shown_curve(result, {"members": members, "nonmembers": nonmembers})
    scored = dict(zip(SCORED, (result[f"TPR_FPR_{round(10_000 * r)}"] for r in SCORED)))
    assert curve.fpr == grid(nonmembers) and curve.tpr == sorted(curve.tpr)
    unit = max(0.001, 10 / members)
    for fpr, tpr in zip(curve.fpr, curve.tpr, strict=True):
        if fpr in scored:
            assert tpr == scored[fpr]
        else:  # a multiple of the unit, unless a score stands between it and that
            exact = result["tpr"][result["fpr"] < fpr].max()
            assert abs(tpr - exact) <= unit / 2 + 1e-12
            assert abs(tpr / unit - round(tpr / unit)) < 1e-9 or tpr in scored.values()
    assert curve.low == curve.high == []


def test_unknown_numbers_of_records_make_the_curve_coarser_never_finer():
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1], 300)
    for values in (rng.random(600), np.round(rng.random(600), 1), np.zeros(600)):
        result = score(truth, values)
        known = shown_curve(result, {"members": 300, "nonmembers": 300})
        assert len(shown_curve(result).fpr) <= len(known.fpr)
