"""The attack on fleets of tiny real models: what it finds, must not see, and refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers_deeper import TinyCNN, cnn_fleet, fleet_problem, text_fleet
from sklearn.metrics import roc_auc_score
from torch import nn

from mico_competition.attacks import eb_likelihood_ratio
from mico_competition.attacks.registry import get_attack
from mico_competition.attacks.whitebox.layers import attack
from mico_competition.attacks.whitebox.layers.attack import (
    best_layers,
    best_ridge,
    fleet_signals,
    laid_out,
)
from mico_competition.attacks.whitebox.layers.frame import make_frame, supports
from mico_competition.attacks.whitebox.layers.layers import find_layers, layer_inputs, weights_of
from mico_competition.attacks.whitebox.layers.model_signals import signals_of
from mico_competition.attacks.whitebox.layers.ridge import free_decode
from mico_competition.attacks.whitebox.mlp.evidence import calibrator
from mico_competition.models.architectures import MLP


@pytest.fixture(scope="module")
def cnns():
    return cnn_fleet(total=14, seed=1)


@pytest.fixture(scope="module")
def texts():
    return text_fleet(total=10)


def auc(truth, scores):
    return roc_auc_score(truth.ravel(), scores.ravel())


def test_more_is_found_in_convolutional_networks_than_in_their_outputs(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 10)
    scores = best_layers(problem)
    assert scores.shape == (4, 24) and np.isfinite(scores).all()
    outputs = problem.gather("logit").score(eb_likelihood_ratio)
    assert auc(is_member[10:], scores) > auc(is_member[10:], outputs) + 0.03


def test_more_is_found_in_text_models_than_in_their_outputs(texts):
    models, data, is_member, _ = texts
    problem = fleet_problem(models, data, is_member, 7)
    scores = best_layers(problem)
    assert scores.shape == (3, 24)
    outputs = problem.gather("logit").score(eb_likelihood_ratio)
    assert auc(is_member[7:], scores) > max(0.97, auc(is_member[7:], outputs))


def test_columns_that_are_asked_for_get_their_own_scores(cnns):
    models, data, is_member = cnns
    everything = best_layers(fleet_problem(models, data, is_member, 10))
    columns = np.stack([np.random.default_rng(i).permutation(24)[:6] for i in range(4)])
    some = best_layers(fleet_problem(models, data, is_member, 10, columns=columns))
    assert np.allclose(some, np.take_along_axis(everything, columns, 1))


def test_the_heads_decode_is_the_free_decode_along_the_residual(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 10)
    frame = make_frame(problem.source, np.arange(14))
    got = signals_of(models[3], frame, batch=7)
    rows = layer_inputs(models[3], find_layers(models[3]), data.inputs(torch.arange(24)))
    (found,) = free_decode(rows["head"][:, 0], weights_of(models[3].head), (0.1,))
    expected = (found * frame.residual).sum(1)
    assert np.allclose(got["head free"][0.1], expected, atol=1e-4)
    assert set(got) == {
        "first trace",
        "first joint",
        "second trace",
        "second joint",
        "head free",
        "joint of all layers",
        "trace of all layers",
    }
    again = signals_of(models[3], frame, batch=24, work=0)
    assert set(again) == {"first trace", "second trace", "head free", "trace of all layers"}
    assert np.allclose(again["first trace"][0.0], got["first trace"][0.0], atol=1e-4)


def test_the_trace_of_all_layers_is_the_gradient_times_the_weights(cnns):
    models, data, is_member = cnns
    frame = make_frame(fleet_problem(models, data, is_member, 10).source, np.arange(14))
    model = models[3]
    expected = []
    for i in range(24):
        output = model(data.inputs(torch.tensor([i])))[0] @ frame.residual[i]
        found = torch.autograd.grad(output, list(model.parameters()))
        expected.append(
            sum(float((g * w.detach()).sum()) for g, w in zip(found, model.parameters()))
        )
    got = signals_of(model, frame, batch=7)["trace of all layers"][0.0]
    assert np.allclose(got, np.array(expected) - np.mean(expected), atol=1e-4)


def test_flipping_a_shadows_labels_changes_none_of_its_own_features(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 10)
    known_membership = problem.known_membership.copy()
    known_membership[4] = 1 - known_membership[4]
    flipped = fleet_problem(models, data, is_member, 10, known_membership=known_membership)
    signals, others = fleet_signals(problem), fleet_signals(flipped)
    for family, members in signals.items():
        for ridge, own in members.items():
            assert np.array_equal(own, others[family][ridge]), family
            before = calibrator(problem).log_ratio(own, problem.shadows)
            after = calibrator(flipped).log_ratio(own, flipped.shadows)
            assert np.allclose(before[4], after[4], atol=1e-5), family
            assert not np.allclose(before[5], after[5], atol=1e-2), family


def test_targets_labels_are_never_read(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 10)
    before = best_layers(problem)
    wrong = is_member.copy()
    wrong[10:] = ~wrong[10:]
    assert np.array_equal(before, best_layers(fleet_problem(models, data, wrong, 10)))


def test_the_ridge_is_chosen_by_shadows(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 10)
    noise = np.random.default_rng(0).normal(size=is_member.shape).astype(np.float32)
    signal = noise + 4 * is_member.astype(np.float32)
    signal[10:] = np.nan  # the targets' own signals take no part in the choice
    assert best_ridge(problem, {0.1: noise, 0.3: signal, 1.0: noise}) is signal


def test_signals_are_computed_once_for_all_folds(cnns, monkeypatch):
    models, data, is_member = cnns
    calls = []
    real = attack.signals_of

    def counted(model, frame):
        calls.append(1)
        return real(model, frame)

    monkeypatch.setattr(attack, "signals_of", counted)
    problem = fleet_problem(models, data, is_member, 10)
    fleet_signals(problem)
    fleet_signals(problem)
    assert len(calls) == 14


def test_constant_signals_are_left_out():
    rows = {i: {"a": {0.0: np.ones(3) * 2}, "b": {1.0: np.arange(3.0) + i}} for i in range(2)}
    assert set(laid_out(rows, 3)) == {"b"}


def refused(problem, match):
    with pytest.raises(ValueError, match=match):
        best_layers(problem)


def test_problems_that_cannot_be_decoded_are_refused(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 10)
    fleet = problem.source.fleet
    short = dataclasses.replace(fleet, records=fleet.records[:20])
    problem.source.fleet = short
    refused(problem, "records='all'")
    problem.source.fleet = fleet
    known_membership = is_member.astype(np.int8)
    of_shadows = {
        "targets": np.arange(4),
        "targets_in_shadows": True,
        "known_membership": known_membership,
    }
    own = fleet_problem(models, data, is_member, 10, **of_shadows)
    refused(own, "in folds")
    refused(fleet_problem(models[8:], data, is_member[8:], 3), "at least 4 shadow")


def test_models_that_are_no_shadows_of_each_other_are_refused(cnns):
    models, data, is_member = cnns
    other = TinyCNN().eval()
    other.second = nn.Conv2d(4, 3, kernel_size=2)
    refused(fleet_problem([*models[:3], other, *models[4:]], data, is_member, 10), "second")
    damaged = TinyCNN().eval()
    problem = fleet_problem([*models[:3], damaged, *models[4:]], data, is_member, 10)
    with torch.no_grad():
        damaged.head.weight[0, 0] = float("nan")
    refused(problem, "model 3 has NaN or infinite ones in head.weight")
    refused(fleet_problem([nn.Flatten()] * 12, data, is_member[:12], 10), "found none in Flatten")


def test_what_is_supported():
    assert supports(TinyCNN()) and supports(MLP()) and not supports(nn.ReLU())
    registered = get_attack("layers")
    assert registered.least_shadows == 4
    assert registered.white_box and not registered.leaves_one_out
