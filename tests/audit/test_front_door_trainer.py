"""`audit_trainer` on training functions of one's own: true and false claims, and its coins."""

from typing import Any

import numpy as np
import pytest
import torch

import mico_competition as mico
from mico_competition.audit.tradeoff import gdp_epsilon


def noisy_sum(sigma):
    """A Gaussian mechanism whose canaries have gradients of norm 1, each in its own direction."""

    def train(include, seed):
        return include + np.random.default_rng(seed).normal(0, sigma, len(include))

    return train


def test_a_true_claim_raises_no_alarm_and_a_false_one_does():
    true = gdp_epsilon(1 / 0.4, 1e-5)
    audit = mico.audit_trainer(noisy_sum(0.4), canaries=2000, epsilon=true, seed=1)
    assert not audit.alarm and 0.3 * true < audit.proven.epsilon < true
    assert audit.sentence().startswith("Nothing contradicts the claim")
    broken = mico.audit_trainer(noisy_sum(0.4), canaries=2000, epsilon=true / 8, seed=1)
    assert broken.alarm and broken.sentence().startswith("ALARM: the trainer does not meet")
    assert str(broken).startswith(broken.sentence()) and "<b>ALARM: the" in broken._repr_html_()
    assert broken.to_frame().loc["one-run", "epsilon"] == broken.proven.epsilon


def test_false_alarms_are_as_rare_as_the_level_says():
    """A mechanism that meets its claim exactly: randomised response on each canary."""
    epsilon = 1.0
    keeps = np.exp(epsilon) / (1 + np.exp(epsilon))

    def train(include, seed):
        return np.where(np.random.default_rng(seed).random(len(include)) < keeps, include, ~include)

    audits = [
        mico.audit_trainer(train, canaries=300, epsilon=epsilon, level=0.8, seed=seed)
        for seed in range(60)
    ]
    assert sum(audit.alarm for audit in audits) <= 0.2 * 60 + 2.5 * np.sqrt(60 * 0.2 * 0.8)
    assert np.mean([audit.proven.epsilon for audit in audits]) > 0.3


def test_coins_are_fair_and_differ_from_run_to_run_and_from_the_runs_own_seed():
    seen = []

    def train(include, seed):
        assert include.dtype == bool
        seen.append((include.copy(), seed))
        include[:] = False  # the auditor's own coins must not change
        return np.arange(500.0)

    audit = mico.audit_trainer(train, canaries=500, epsilon=1, runs=3, seed=5)
    coins = np.array([include for include, _ in seen])
    assert audit.let_in == coins.sum() and audit.runs == 3
    assert len({seed for _, seed in seen}) == 3
    assert 0.4 < coins.mean() < 0.6 and abs(np.corrcoef(coins)[0, 1]) < 0.2
    for include, seed in seen:
        assert not np.array_equal(np.random.default_rng(seed).random(500) < 0.5, include)
    mico.audit_trainer(train, canaries=500, epsilon=1, runs=3, seed=5)
    assert np.array_equal(seen[3][0], seen[0][0]) and seen[3][1] == seen[0][1]
    fresh = {mico.audit_trainer(train, canaries=500, epsilon=1).seed for _ in "ab"}
    assert len(fresh) == 2


def test_scores_come_from_what_train_returns():
    def train(include, seed):
        return {"weights": torch.tensor(include.astype(float))}

    def score(model):
        return model["weights"].requires_grad_()

    audit = mico.audit_trainer(train, score=score, canaries=200, epsilon=1, seed=0)
    assert audit.alarm and audit.bounds.models == 1


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, r"Expected train to return a score for each canary, float.100., got"),
        (torch.nn.Linear(1, 1), "got Linear: return numbers, or pass `score`"),
        (np.zeros(99), r"got shape \(99,\)"),
        (np.full(100, np.inf), "Expected finite scores from train, got 100 NaN"),
    ],
)
def test_results_that_are_no_scores(result, words):
    with pytest.raises(ValueError, match=words):
        mico.audit_trainer(lambda include, seed: result, canaries=100, epsilon=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"canaries": 10}, "canaries=10 >= 100"),
        ({"epsilon": -1}, "epsilon=-1"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"runs": 0}, "runs=0"),
        ({"delta": 0}, "delta=0"),
        ({"level": 1}, "level=1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mico.audit_trainer(noisy_sum(1), **{"canaries": 100, "epsilon": 1, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"canaries": 100.5}, "canaries=100.5 to be a whole number"),
        ({"runs": 1.5}, "runs=1.5 to be a whole number"),
        ({"epsilon": "1"}, "epsilon='1' >= 0"),
        ({"seed": "q"}, "seed='q' to be a whole number"),
        ({"train": None}, r"train\(include, seed\), got NoneType"),
        ({"train": lambda include: include}, r"train\(include, seed\), got <lambda>"),
    ],
)
def test_arguments_of_another_type_are_named(options, words):
    def train(include, seed):
        return 1.0 * include

    with pytest.raises(ValueError, match=words):
        mico.audit_trainer(**{"train": train, "canaries": 100, "epsilon": 1, **options})


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([None] * 100, "got list: return numbers"),
        (np.ones(100) * 1j, "got ndarray"),
        (np.ones((100, 1)), r"got shape \(100, 1\)"),
    ],
)
def test_results_of_other_numbers(result, words):
    with pytest.raises(ValueError, match=words):
        mico.audit_trainer(lambda include, seed: result, canaries=100, epsilon=1)


def test_calls_that_lack_an_argument_and_scores_that_are_no_function():
    audit: Any = mico.audit_trainer
    with pytest.raises(ValueError, match=r"needs canaries \(m >= 100, .*and epsilon \(>= 0, the"):
        audit(noisy_sum(1))
    with pytest.raises(ValueError, match="takes train alone by position"):
        audit(noisy_sum(1), 200, 1.0)
    with pytest.raises(ValueError, match=r"called as score\(result\), got str"):
        mico.audit_trainer(noisy_sum(1), canaries=100, epsilon=1, score="loss")


def test_an_error_says_in_which_run_it_happened():
    def train(include, seed):
        train.calls += 1
        return noisy_sum(1)(include, seed) if train.calls < 2 else 1 / 0

    train.calls = 0
    with pytest.raises(ZeroDivisionError) as caught:
        mico.audit_trainer(train, canaries=100, epsilon=1, runs=3)
    assert caught.value.__notes__ == ["This happened in run 2 of 3 of the audit."]


def test_scores_of_the_wrong_sign_get_a_hint_and_others_none():
    def negative(include, seed):
        return -noisy_sum(0.5)(include, seed)

    audit = mico.audit_trainer(negative, canaries=300, epsilon=1, seed=0)
    assert audit.bounds.hint.startswith("Members have smaller scores than non-members (AUC 0.121)")
    assert audit.bounds.hint.endswith("give them with the opposite sign.")
    assert audit.bounds.hint in str(audit) and audit.bounds.hint in audit._repr_html_()
    assert audit.bounds.hint in str(audit.bounds) and "opposite" in audit.bounds._repr_html_()
    right = mico.audit_trainer(noisy_sum(0.5), canaries=300, epsilon=1, seed=0)
    assert not right.bounds.hint and "sign" not in str(right) + right._repr_html_()
    nothing = [
        mico.audit_trainer(noisy_sum(1e6), canaries=100, epsilon=1, seed=seed).bounds.hint
        for seed in range(30)
    ]
    assert not any(nothing)


def test_scores_in_bfloat16_and_float64_are_those_numbers():
    def train(include, seed):
        return torch.from_numpy(noisy_sum(1)(include, seed)).to(train.dtype)

    epsilons = []
    for train.dtype in (torch.bfloat16, torch.float64):
        epsilons.append(mico.audit_trainer(train, canaries=300, epsilon=1, seed=0).proven.epsilon)
    plain = mico.audit_trainer(noisy_sum(1), canaries=300, epsilon=1, seed=0).proven.epsilon
    assert epsilons[1] == plain and epsilons[0] > 0
    scores = torch.arange(200) % 2
    assert mico.epsilon_bounds(scores, scores.bfloat16()).headline.epsilon > 3
