"""Remarks below a table of results: ties at a threshold, and scores of the wrong sign."""

import numpy as np
import pytest

import mico_competition as mico
from mico_competition.evaluation.attack_result import AttackResult
from mico_competition.evaluation.measure import measure
from mico_competition.evaluation.page import to_html
from mico_competition.evaluation.remarks import remarks
from mico_competition.evaluation.results import Results
from mico_competition.evaluation.table import text

TIED = (
    "The scores of loss are tied at the threshold of 1% FPR, where the TPR is anything from 0.0% "
    "to 90.0%: points of one score are accepted together or not at all, and these exceed the rate, "
    "so the TPR without them is counted."
)


def tied(models=20):
    """Nine members in ten and one non-member in ten share the highest score of each model."""
    rng = np.random.default_rng(0)
    truth = np.tile(np.arange(200) < 100, (models, 1))
    scores = rng.random(truth.shape)
    scores[:, :90] = scores[:, 100:110] = 1
    return truth, scores


def test_ties_that_leave_a_tpr_open_are_explained_wherever_the_numbers_stand():
    truth, scores = tied()
    result = Results([AttackResult.of("loss", truth, scores, resamples=50)])
    assert result["loss"].tpr(0.01).value == 0
    sentence = TIED.replace("threshold of 1% FPR", "thresholds of 10%, 1% and 0.1% FPR")
    assert sentence in str(result)
    assert sentence in str(result["loss"])
    assert sentence.replace("<", "&lt;") in result._repr_html_()
    assert sentence in to_html([(result.evaluation(), [])])
    assert sentence in text(result.evaluation())


def test_each_range_of_a_tied_tpr_is_named():
    truth, scores = tied()
    scores[:, :50] += 1  # half of the members apart from the others, and without non-members
    (words,) = remarks({"a": measure(truth, scores, resamples=50)})
    assert "10%, 1% and 0.1% FPR, where the TPR is anything from 50.0% to 90.0%:" in words
    scores[:, 109] += 1.5  # one non-member in a hundred above all: no point is below 1% FPR
    (words,) = remarks({"a": measure(truth, scores, resamples=50)})
    assert "threshold of 10% FPR, where the TPR is anything from 50.0% to 90.0%:" in words


def test_scores_without_ties_need_no_remark():
    rng = np.random.default_rng(1)
    truth = rng.random((20, 150)) < 0.5
    scores = rng.normal(size=truth.shape) + truth
    assert remarks({"a": measure(truth, scores, resamples=50)}) == []
    few = np.round(scores, 2)  # some points share a score, and the TPR hardly depends on it
    assert remarks({"a": measure(truth, few, resamples=50)}) == []


@pytest.mark.parametrize("models", [20, 1])
def test_scores_of_the_wrong_sign_are_recognised(models):
    rng = np.random.default_rng(2)
    truth = rng.random((models, 200)) < 0.5
    losses = rng.normal(size=truth.shape) - truth
    sentence = (
        "The AUC of mine is below 0.5 by more than chance: larger scores must mean likelier "
        "members, so turn the sign of scores that are smaller for members, such as a loss, and "
        "check that the membership is True for members."
    )
    assert remarks({"mine": measure(truth, losses, resamples=50)}) == [sentence]
    assert remarks({"mine": measure(truth, -losses, resamples=50)}) == []
    chance = rng.normal(size=truth.shape)
    assert remarks({"mine": measure(truth, chance, resamples=50)}) == []


def test_a_loss_returned_by_an_attack_of_ones_own_gets_the_hint():
    rng = np.random.default_rng(3)
    membership = rng.random((8, 60)) < 0.5
    losses = rng.exponential(1, (8, 60)) * np.where(membership, 0.1, 1)

    def loss(target, shadow, is_member):
        return target

    loss.signal = "loss"
    result = mico.evaluate(mico.ModelPool.from_losses(losses, membership), loss, resamples=50)
    assert "larger scores must mean likelier members" in str(result)


def test_a_saved_result_keeps_its_remarks(tmp_path):
    truth, scores = tied()
    result = Results([AttackResult.of("loss", truth, -scores, resamples=50)])
    result.save(tmp_path / "a.json")
    assert "larger scores must mean likelier members" in str(Results.load(tmp_path / "a.json"))
    result.save(tmp_path / "b.json", scores=True)
    assert str(Results.load(tmp_path / "b.json")) == str(result)
