"""`epsilon_bounds` and `tpr_limit`: the functions of the package's own front door."""

import math

import numpy as np
import pytest
import torch

import mico_competition as mico
from mico_competition.audit.bounds import all_bounds
from mico_competition.audit.limits import max_tpr
from mico_competition.audit.tradeoff import dp_tpr, gdp_tpr
from mico_competition.audit.verdict import Scored, deciding_bounds


def scored(points=600, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(points) % 2 == 1)
    return truth, rng.normal(size=points) + shift * truth


# --- bounds


def test_each_bound_is_its_methods():
    truth, scores = scored()
    found = mico.epsilon_bounds(truth, scores, delta=1e-5)
    expected = {b.method: b.epsilon for b in all_bounds(truth, scores, delta=1e-5)}
    assert {b.method: b.epsilon for b in found if b.method in expected} == expected
    assert len(found) == 5 and {b.level for b in found} == {0.95}
    assert (found.members, found.nonmembers, found.models) == (300, 300, 1)


def test_several_models_are_paired_each_by_itself():
    models = [scored(seed=seed) for seed in range(3)]
    truth, scores = (np.stack(parts) for parts in zip(*models))
    found = mico.epsilon_bounds(truth, scores, delta=1e-5)
    one = Scored("mine", "train", "a", list(truth), list(scores), None)
    both = deciding_bounds(one, delta=1e-5, level=0.95)
    assert [found[m].epsilon for m in ("one-run", "one-run of pairs")] == [b.epsilon for b in both]
    assert found.models == 3 and "From 3 models, 900 members" in str(found)


def test_the_headline_is_one_of_the_lines():
    found = mico.epsilon_bounds(*scored())
    words = f"{found.headline.epsilon:.2f}"
    text = str(found)
    assert text.startswith(f"epsilon >= {words} at delta 1e-5")
    (line,) = [row for row in text.splitlines() if row.startswith("one-run  ")]
    assert line.split()[1] == words
    frame = found.to_frame()
    assert frame.loc["one-run", "epsilon"] == found.headline.epsilon
    assert list(frame.index) == [bound.method for bound in found]
    assert words in found._repr_html_() and "presumes" in found._repr_html_()
    assert all(frame["presumes"])


def test_uneven_members_leave_the_methods_that_need_no_coins():
    rng = np.random.default_rng(0)
    truth = np.arange(600) < 100
    found = mico.epsilon_bounds(truth, rng.normal(size=600) + 4 * truth)
    assert set(found.missing) == {"one-run", "one-run f-DP"}
    assert found.headline.method == "threshold" and found.headline.epsilon > 0
    assert "No bound by one-run: Expected about as many members" in str(found)
    with pytest.raises(KeyError, match="Expected about as many members"):
        found["one-run"]


def test_half_is_for_one_model():
    truth, scores = scored()
    coins = mico.epsilon_bounds(truth, scores)["one-run"].epsilon
    half = mico.epsilon_bounds(truth, scores, membership="half")["one-run"].epsilon
    assert 0 < half < coins
    with pytest.raises(ValueError, match="several models"):
        mico.epsilon_bounds([truth] * 2, [scores] * 2, membership="half")
    with pytest.raises(ValueError, match="Unknown membership"):
        mico.epsilon_bounds(truth, scores, membership="dice")


def test_half_says_what_it_presumes():
    truth, scores = scored()
    half = mico.epsilon_bounds(truth, scores, membership="half")
    assert "presumes that half of the points were drawn as members" in half.sentence()
    assert "coin" not in str(half) + half._repr_html_()
    frame = half.to_frame()
    assert "half of the points" in frame.loc["one-run f-DP", "presumes"]
    assert "coin" in str(mico.epsilon_bounds(truth, scores))
    with pytest.raises(ValueError, match='exactly half .* membership="half", got 450 of 1,000'):
        mico.epsilon_bounds(np.arange(1000) < 450, np.arange(1000.0), membership="half")


def test_scores_and_members_in_the_wrong_order():
    truth, scores = scored()
    with pytest.raises(ValueError, match="Expected is_member to be 0 .*pass is_member first"):
        mico.epsilon_bounds(scores, truth)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.ones(4), np.ones((2, 2))), {}, r"one shape.*\(4,\) and \(2, 2\)"),
        (([[1, 0], [1]], [[1, 0], [1]]), {}, "one shape"),
        ((np.ones(4), np.ones(4)), {}, "members .1. and non-members"),
        ((np.arange(4) % 2, np.full(4, np.nan)), {}, "finite"),
        ((np.arange(4) % 2, np.arange(4.0)), {}, "Expected at least .* guesses"),
        ((np.arange(4) % 2, np.arange(4.0)), {"delta": 0}, "delta=0"),
        ((np.arange(4) % 2, np.arange(4.0)), {"level": 95}, "level=95"),
    ],
)
def test_bad_arguments(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        mico.epsilon_bounds(*arguments, **options)


# --- limits


def test_limits_of_each_guarantee():
    rates = np.array([0.001, 0.1, 0.5])
    run = mico.Mechanism(1.0, 0.05, 20)
    claim = mico.PrivacyClaim(1.0, 1e-5, run)
    assert np.array_equal(mico.tpr_limit(epsilon=4, delta=1e-5, fpr=rates), dp_tpr(4, 1e-5, rates))
    assert np.array_equal(mico.tpr_limit(mu=1.5, fpr=rates), gdp_tpr(1.5, rates))
    assert np.array_equal(mico.tpr_limit(mechanism=run, fpr=rates), max_tpr(run, rates))
    assert mico.tpr_limit(mechanism=claim, fpr=0.1) == float(max_tpr(run, np.array(0.1)))


def test_numbers_give_a_float_and_arrays_an_array():
    one = mico.tpr_limit(epsilon=4, delta=1e-5, fpr=0.1)
    assert type(one) is float and one == pytest.approx(0.98352, abs=1e-5)
    assert mico.tpr_limit(epsilon=[1, 2], fpr=0.1).shape == (2,)
    assert mico.tpr_limit(epsilon=math.inf, fpr=0.0) == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "got none"),
        ({"epsilon": 1, "mu": 1}, "got epsilon and mu"),
        ({"epsilon": -1}, "epsilon at least 0"),
        ({"epsilon": 1, "delta": 2}, "delta in .0, 1."),
        ({"mu": math.nan}, "mu at least 0"),
    ],
)
def test_bad_limits(options, words):
    with pytest.raises(ValueError, match=words):
        mico.tpr_limit(fpr=0.1, **options)
    with pytest.raises(ValueError, match="fpr"):
        mico.tpr_limit(epsilon=1, fpr=1.1)


# --- the list of attacks


def test_the_list_of_attacks():
    found = mico.list_attacks()
    assert {"threshold", "rmia", "whitebox"} <= set(found.names)
    assert len(found.names) == len(set(found.names)) == len(found)
    assert "lira-online (lira)" in str(found) and "<table" in found._repr_html_()
    assert list(found.to_frame().index) == found.names
    assert mico.list_attacks("white box")[0].access == "white box"
    with pytest.raises(ValueError, match="access='glass box'"):
        mico.list_attacks("glass box")


def test_models_that_tell_each_others_members_count_once():
    """Guesses on a pair of complementary models are right together, so they are not two tosses."""
    rng = np.random.default_rng(0)
    first = rng.random((4, 100)) < 0.5
    scores = rng.normal(size=(8, 100))
    paired = np.stack([row for one in first for row in (one, ~one)])
    same = np.concatenate([first, first])
    for truth, models in ((paired, "models 0 and 1"), (same, "models 0 and 4")):
        with pytest.raises(ValueError, match=f"{models} have the same or complementary ones"):
            mico.epsilon_bounds(truth, scores)
    assert mico.epsilon_bounds(paired[::2], scores[::2]).models == 4


HALVES = np.arange(200) % 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": "a"}, r"delta='a' in \(0, 1\)"),
        ({"level": None}, r"level=None in \(0, 1\)"),
        ({"seed": "a"}, "seed='a' to be a whole number"),
        ({"seed": -1}, "seed=-1 to be a whole number"),
        ({"scores": [object()] * 200}, "scores to hold numbers alone"),
    ],
)
def test_arguments_of_another_type_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        mico.epsilon_bounds(**{"is_member": HALVES, "scores": HALVES, **options})


def test_scores_that_require_gradients_and_objects_are_numbers():
    expected = mico.epsilon_bounds(HALVES, HALVES).headline.epsilon
    for scores in (torch.tensor(HALVES * 1.0, requires_grad=True), HALVES.astype(object)):
        assert mico.epsilon_bounds(HALVES, scores).headline.epsilon == expected


def test_a_rate_outside_is_shown():
    with pytest.raises(ValueError, match="got -1"):
        mico.tpr_limit(epsilon=-1, fpr=0.1)
