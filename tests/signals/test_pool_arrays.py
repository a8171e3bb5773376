"""Pools of arrays: signals by hand, memberships of all forms, and a sentence for each mistake."""

import numpy as np
import pytest
import torch

from mico_competition.attacks.scores.transforms import stable_logit
from mico_competition.signals.pool import ModelPool


def arrays(models=5, records=40, classes=3, seed=0):
    """(logits, labels, membership) of models that fit their members better."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, records)
    membership = rng.random((models, records)) < 0.5
    logits = rng.normal(size=(models, records, classes))
    logits[:, np.arange(records), labels] += 2 * membership
    return logits, labels, membership


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_signals_of_two_records_by_hand():
    pool = ModelPool.from_logits(
        [[[np.log(3), 0.0], [0.0, 0.0]], [[0.0, np.log(4)], [0.0, 0.0]]], [0, 1], np.eye(2)
    )
    first = [3 / 4, 1 / 5]
    np.testing.assert_allclose(pool.signal("confidence"), [[first[0], 0.5], [first[1], 0.5]])
    np.testing.assert_allclose(pool.signal("loss")[:, 0], -np.log(first))
    np.testing.assert_allclose(pool.signal("negative_loss"), -pool.signal("loss"))
    np.testing.assert_allclose(pool.signal("logit")[:, 0], [np.log(3), -np.log(4)])
    entropy = [-sum(p * np.log(p) for p in (q, 1 - q)) for q in first]
    np.testing.assert_allclose(pool.signal("entropy")[:, 0], entropy)
    assert pool.membership.tolist() == [[1, 0], [0, 1]] and pool.known.tolist() == [0, 1]
    assert (len(pool), pool.shape, pool.scenario) == (2, (2, 2), None)


def test_probabilities_and_losses_give_the_signals_of_their_logits():
    logits, labels, membership = arrays()
    pool = ModelPool.from_logits(logits, labels, membership)
    of_p = ModelPool.from_probabilities(softmax(logits), labels, membership)
    of_losses = ModelPool.from_losses(pool.signal("loss"), membership)
    for name in ("loss", "confidence", "logit", "entropy", "modified_entropy"):
        np.testing.assert_allclose(of_p.signal(name), pool.signal(name), rtol=1e-9, atol=1e-12)
    for name in ("loss", "confidence", "logit"):
        np.testing.assert_allclose(of_losses.signal(name), pool.signal(name), rtol=1e-9)
    np.testing.assert_allclose(pool.signal("logit"), stable_logit(logits, labels), rtol=1e-12)


def test_tensors_and_other_types_of_numbers():
    logits, labels, membership = arrays()
    whole = ModelPool.from_logits(logits, labels, membership).signal("logit")
    given = torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(membership)
    assert np.array_equal(ModelPool.from_logits(*given).signal("logit"), whole)
    single = ModelPool.from_logits(list(given[0].float().requires_grad_()), *given[1:])
    np.testing.assert_allclose(single.signal("logit"), whole, rtol=1e-4, atol=1e-5)
    half = ModelPool.from_logits(given[0].bfloat16(), *given[1:])
    np.testing.assert_allclose(half.signal("logit"), whole, atol=0.05)


def test_a_saturated_probability_has_a_finite_logit():
    p = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.98, 0.02], [0.0, 1.0]]])
    logit = ModelPool.from_probabilities(p, [0, 0], [[1, 0], [0, 1]]).signal("logit")
    assert logit[0, 0] == pytest.approx(np.log(1 / 0.01))  # 0 counts as half of 0.02
    assert logit[1, 1] == pytest.approx(-np.log(1 / 0.01))


def test_a_loss_of_0_has_a_finite_logit():
    pool = ModelPool.from_losses([[0.0, 1.0], [0.2, -1e-7]], [[1, 0], [0, 1]])
    assert pool.signal("loss").tolist() == [[0.0, 1.0], [0.2, 0.0]]
    assert pool.signal("logit")[0, 0] == pytest.approx(-np.log(np.expm1(0.1)))


@pytest.mark.parametrize(
    "unknown",
    [
        np.array([[1, 0, 1], [-1, -1, -1], [0, -1, 1]]),
        np.array([[1.0, 0, 1], [np.nan] * 3, [0, np.nan, 1]]),
        [[True, False, True], [None] * 3, [False, None, True]],
        np.ma.array([[1.0, 0, 1], [9] * 3, [0, 9, 1]], mask=[[0] * 3, [1] * 3, [0, 1, 0]]),
    ],
)
def test_unknown_membership(unknown):
    pool = ModelPool.from_losses(np.arange(9.0).reshape(3, 3), unknown)
    assert pool.membership.tolist() == [[1, 0, 1], [-1, -1, -1], [0, -1, 1]]
    assert pool.known.tolist() == [0]
    assert pool.fleet.rows("dev").tolist() == [2] and pool.fleet.rows("final").tolist() == [1]
    assert "members known of 1 of them" in repr(pool)


def test_select():
    logits, labels, membership = arrays()
    for make, given in (
        (ModelPool.from_logits, logits),
        (ModelPool.from_probabilities, softmax(logits)),
    ):
        pool = make(given, labels, membership)
        some = pool.select(models=[3, 1], records=labels == 0)
        assert np.array_equal(some.signal("logit"), pool.signal("logit")[[3, 1]][:, labels == 0])
        assert np.array_equal(some.membership, membership[[3, 1]][:, labels == 0])
    losses = ModelPool.from_losses([[0.0, 1.0, 2.0], [0.5, 0.1, 0.2]], [[1, 0, 1], [0, 1, 0]])
    assert losses.select(records=[2, 1]).signal("loss").tolist() == [[2.0, 1.0], [0.2, 0.1]]
    assert pool.select(records=slice(2, 4)).shape == (5, 2)
    for wrong in ({"models": [5]}, {"records": [0, 0]}, {"records": [True]}, {"models": []}):
        with pytest.raises(ValueError, match=f"Expected {next(iter(wrong))}"):
            pool.select(**wrong)


def test_repr():
    pool = ModelPool.from_logits(*arrays())
    text = "5 models, 40 records, 3 classes, members known of all models; holds logits"
    assert repr(pool) == f"ModelPool({text})"
    assert pool._repr_html_() == f"<b>ModelPool</b>: {text}"


def spoilt(**changes):
    logits, labels, membership = arrays()
    return {"logits": logits, "labels": labels, "membership": membership, **changes}


LOGITS, LABELS, MEMBERSHIP = arrays()
NAN = LOGITS.copy()
NAN[2, 7, 1] = np.nan
TWICE = LOGITS.copy()
TWICE[4] = TWICE[1]
HUGE = LOGITS.copy()
HUGE[3, 2, 0] = -1e300

MISTAKES = {
    "transposed mask": ({"membership": MEMBERSHIP.T}, r"\(40, 5\): .*pass membership\.T"),
    "mask of one row": ({"membership": MEMBERSHIP[0]}, r"membership of shape \[models, records\]"),
    "mask of other records": ({"membership": MEMBERSHIP[:, :30]}, "40 records, .* covers 30"),
    "mask of other values": ({"membership": MEMBERSHIP * 2}, "-1 or NaN where .* got 2"),
    "mask of fractions": ({"membership": MEMBERSHIP * 0.5}, "got 0.5"),
    "all members": ({"membership": np.ones((5, 40))}, "every record is a member: add records"),
    "no members": ({"membership": np.zeros((5, 40), bool)}, "every record is a non-member"),
    "indices of members": (
        {"membership": [np.flatnonzero(row) for row in MEMBERSHIP]},
        r"membership\[model, indices\] = True",
    ),
    "text mask": ({"membership": [["yes"] * 40] * 5}, "Expected membership to"),
    "one-hot labels": ({"labels": np.eye(3)[LABELS]}, r"\(40, 3\).*pass labels.argmax\(1\)"),
    "a column of labels": ({"labels": LABELS[:, None]}, r"pass labels.ravel\(\)"),
    "labels from 1": ({"labels": LABELS + 1}, r"0..2.* got 1..3: .*pass labels - 1"),
    "labels below 0": ({"labels": LABELS - 1}, r"got -1..1: count classes from 0"),
    "fractions as labels": ({"labels": LABELS + 0.5}, "whole numbers"),
    "NaN as labels": ({"labels": np.full(40, np.nan)}, "whole numbers"),
    "other labels": ({"labels": LABELS[:30]}, r"logits of shape .* got \(5, 40, 3\): 30 records"),
    "NaN": ({"logits": NAN}, r"finite logits of model 2, got .* 1 of 40 records, first .* 7"),
    "probabilities": ({"logits": softmax(LOGITS)}, "sums to 1: .*ModelPool.from_probabilities"),
    "one model": ({"logits": LOGITS[0]}, r"\(40, 3\): for a single model, pass logits\[None\]"),
    "losses": ({"logits": LOGITS[..., 0]}, r"\(5, 40\): .* ModelPool.from_losses"),
    "one output": ({"logits": LOGITS[..., :1]}, "pass the two columns 0 and z"),
    "records first": ({"logits": LOGITS.swapaxes(0, 1)}, r"pass logits.swapaxes\(0, 1\)"),
    "twins": ({"logits": TWICE}, "Models 1 and 4 have the same outputs"),
    "text": ({"logits": [[["a"]]]}, "Expected logits to hold numbers"),
    "no models": ({"logits": LOGITS[:0]}, "at least one model"),
    "an empty list": ({"logits": []}, r"at least one model and record, got \(0,\)"),
    "1e300": ({"logits": HUGE}, r"of model 3 of at most 1e\+12 in size, got 1e\+300 at record 2"),
    "names as labels": (
        {"labels": LABELS.astype(str)},
        r"np.unique\(labels, return_inverse=True\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_sentence(mistake):
    changes, sentence = MISTAKES[mistake]
    with pytest.raises(ValueError, match=sentence):
        ModelPool.from_logits(**spoilt(**changes))


@pytest.mark.parametrize("rounding", [np.float16, np.float32])
@pytest.mark.parametrize("copies", [2, 3])
def test_models_that_differ_by_rounding_are_refused(rounding, copies):
    logits, labels, membership = arrays(models=12)
    for row in range(1, copies):
        logits[4 * row] = logits[0].astype(rounding).astype(float) + 1e-9 * row
    with pytest.raises(ValueError, match="Models [048] and [048] have the same outputs up to roun"):
        ModelPool.from_logits(logits, labels, membership)


@pytest.mark.parametrize("copies", [2, 4])
def test_a_pool_in_which_every_model_has_a_copy_is_refused(copies):
    logits, labels, membership = arrays(models=6)
    again = [logits + 1e-6 * k for k in range(copies)]
    with pytest.raises(ValueError, match="have the same outputs up to rounding"):
        ModelPool.from_logits(np.concatenate(again), labels, np.tile(membership, (copies, 1)))


def test_models_that_are_only_alike_are_no_copies():
    for seed in range(20):
        logits, labels, membership = arrays(models=8, seed=seed)
        logits[1:] = logits[0] + 0.1 * (logits[1:] - logits[0])  # all alike
        logits[2] = logits[0] + 0.3 * (logits[2] - logits[0])  # and one more so
        assert len(ModelPool.from_logits(logits, labels, membership)) == 8


def test_mistakes_with_probabilities():
    with pytest.raises(ValueError, match=r"sum 1 over the classes.*ModelPool.from_logits"):
        ModelPool.from_probabilities(LOGITS, LABELS, MEMBERSHIP)
    with pytest.raises(ValueError, match=r"probabilities of shape \[models, records, classes\]"):
        ModelPool.from_probabilities(LOGITS[0], LABELS, MEMBERSHIP)
    with pytest.raises(ValueError, match="from_losses takes -np.log of them"):
        ModelPool.from_probabilities(softmax(LOGITS)[..., 0], LABELS, MEMBERSHIP)
    rounded = softmax(LOGITS).astype(np.float16)
    assert len(ModelPool.from_probabilities(rounded, LABELS, MEMBERSHIP)) == 5


def test_mistakes_with_losses():
    losses = ModelPool.from_logits(LOGITS, LABELS, MEMBERSHIP).signal("loss")
    for wrong, sentence in (
        (-losses, "look like negative losses .*pass -losses"),
        (losses - 1, "a cross-entropy is never negative"),
        (losses[0], r"for a single model, pass losses\[None\]"),
        (LOGITS, "ModelPool.from_logits takes them"),
        (losses[:0], r"losses of at least one model and record, got \(0, 40\)"),
        (1e13 * losses, "such a model has diverged"),
        (np.where(losses > 1, np.inf, losses), "finite losses of model 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ModelPool.from_losses(wrong, MEMBERSHIP)
    with pytest.raises(ValueError, match=r"labels of shape \[records\] = \(40,\)"):
        ModelPool.from_losses(losses, MEMBERSHIP, LABELS[:3])
    with pytest.raises(ValueError, match="the order of from_losses is losses, membership, labels"):
        ModelPool.from_losses(losses, LABELS, MEMBERSHIP)
    with pytest.raises(ValueError, match="does not follow from losses"):
        ModelPool.from_losses(losses, MEMBERSHIP).signal("entropy")
    with pytest.raises(ValueError, match="Unknown signal 'lss': choose one of loss"):
        ModelPool.from_losses(losses, MEMBERSHIP).signal("lss")
