"""The network on outputs and losses: learns a planted signal, is the same for a seed."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers_learned import auc, planted
from test_stacking import flipped, with_known_membership

from mico_competition.attacks.stacking.neural import (
    Settings,
    neural,
    neural_features,
    train_and_score,
)
from mico_competition.attacks.stacking.table import make_table

QUICK = Settings(hidden=16, epochs=6, batch_size=64, networks=1)
CPU = torch.device("cpu")


def ask(problem, **options):
    return neural(problem, settings=QUICK, device=CPU, **options)


def test_it_finds_a_planted_signal_and_calibration_helps():
    problem, truth = planted(shift=2.0)
    plain, calibrated = (auc(ask(problem, calibrate=c), truth) for c in (False, True))
    assert calibrated > 0.8 and calibrated > plain + 0.02


def test_nothing_is_found_where_nothing_is():
    problem, truth = planted(shift=0.0, asked=150)
    assert abs(auc(ask(problem), truth) - 0.5) < 0.08


def test_it_learns_a_rule_that_no_line_can_draw():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2))
    labels = x[:, 0] * x[:, 1] > 0
    scores = train_and_score(x[:3000], labels[:3000], x[3000:], QUICK, 0, CPU)
    assert auc(scores, labels[3000:]) > 0.95


def test_log_odds_are_for_equal_classes():
    """With 10 % members and no information the answer is still 0: the classes are balanced."""
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.1
    scores = train_and_score(np.ones((4000, 2)), labels, np.ones((5, 2)), QUICK, 0, CPU)
    assert np.abs(scores).max() < 0.1


def test_it_is_the_same_for_a_seed_and_leaves_the_global_generator_alone():
    problem, _ = planted()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = ask(problem, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(first, ask(problem, seed=1))
    assert not np.array_equal(first, ask(problem, seed=2))


def test_networks_are_averaged():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(200, 3)), rng.random(200) < 0.5
    one = [train_and_score(x, labels, x, QUICK, seed, CPU) for seed in (0, 7919)]
    both = train_and_score(x, labels, x, dataclasses.replace(QUICK, networks=2), 0, CPU)
    np.testing.assert_allclose(both, np.mean(one, axis=0), rtol=1e-6, atol=1e-7)


def test_features_of_a_pseudo_target_do_not_see_its_labels():
    problem, _ = planted()
    before = neural_features(make_table(problem), top=2)
    after = neural_features(make_table(flipped(problem, 3, slice(None))), top=2)
    assert len(before) == 2 + 6 + 6
    for first, second in zip(before, after):
        np.testing.assert_allclose(first[3], second[3], rtol=1e-5, atol=1e-5)
    assert any(np.abs(first - second).max() > 1e-3 for first, second in zip(before, after))


def test_refusals():
    problem, _ = planted()
    with pytest.raises(ValueError, match="1 or more"):
        neural(problem, top=0)
    known_membership = problem.known_membership.copy()
    known_membership[problem.shadows] = 0
    with pytest.raises(ValueError, match="one kind only"):
        ask(with_known_membership(problem, known_membership))
    problem.source._logits[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        ask(problem)
