"""Decodes of Adam's steps and of final gradients: exact on small cases, evidence on real models."""

import numpy as np
import pytest
import torch
from helpers_whitebox import make_records, whitebox_problem

from mico_competition.attacks.whitebox.mlp.adaptive import adaptive, root_mean_squares
from mico_competition.attacks.whitebox.mlp.balance import (
    balance_kernel,
    final_gradients,
    white_inputs,
)
from mico_competition.attacks.whitebox.mlp.features import ADAMS_STEPS, BALANCE, first_pass
from mico_competition.attacks.whitebox.mlp.joint import Kernel, joint_decode, solve_shifted
from mico_competition.attacks.whitebox.mlp.mlp_layers import layers_of
from mico_competition.attacks.whitebox.mlp.pipeline import area, evidence
from mico_competition.attacks.whitebox.mlp.prior import deviations
from mico_competition.attacks.whitebox.mlp.trace import residual_directions, residual_lengths
from mico_competition.models.architectures import MLP


@pytest.fixture(scope="module")
def data():
    return make_records(40, 12, 3)


def model(seed=0):
    torch.manual_seed(seed)
    return MLP(12, 5, 3)


def test_final_gradients_are_those_of_the_losses(data):
    network = model()
    hidden = network.mlp[0](data.x)
    hidden.retain_grad()
    logits = network.mlp[2](torch.tanh(hidden))
    torch.nn.functional.cross_entropy(logits, data.labels, reduction="sum").backward()
    ours = final_gradients(layers_of(network), data.x, data.labels)
    torch.testing.assert_close(ours, -hidden.grad, atol=1e-6, rtol=1e-4)


def test_lengths_and_directions_give_the_residual():
    usual = np.random.default_rng(0).dirichlet(np.ones(4), 6)
    labels = np.array([0, 1, 2, 3, 0, 1])
    found = residual_lengths(usual, labels)[:, None] * residual_directions(usual, labels)
    np.testing.assert_allclose(found, np.eye(4)[labels] - usual, atol=1e-6)


def test_weights_are_multiplied_by_the_root_mean_square_of_their_gradients(data):
    directions = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    each = directions[:, :, None] * data.x[:, None, :]
    expected = each.square().mean(0).sqrt()
    torch.testing.assert_close(root_mean_squares(directions, data.x.square()), expected)


def test_a_decode_of_adams_steps_has_a_kernel_of_its_traces(data):
    """T of weights that are one record's step, rescaled, is that record's row of K, in scale."""
    layers = [layers_of(model(seed)) for seed in range(4)]
    usual = np.full((40, 3), 1 / 3)
    residual = torch.as_tensor(residual_directions(usual, data.labels.numpy()))
    length = torch.as_tensor(residual_lengths(usual, data.labels.numpy()))
    unit = [own.directions(own.hidden(data.x), residual) for own in layers]
    by_row = dict(enumerate(layers))
    frame = adaptive(by_row, unit.__getitem__, data.x, length, torch.arange(40))
    kernel, trace = frame.decoded(0, unit[0])
    assert float(kernel.diagonal.mean()) == pytest.approx(1, rel=1e-4)
    weights = layers[0].w1 * root_mean_squares(unit[0] * length[:, None], data.x.square())
    root = torch.linalg.lstsq(data.x - data.x.mean(0), frame.white).solution
    whitening = root @ root.T
    for i in (0, 7):
        step = (data.x[i] - data.x.mean(0)) @ whitening
        expected = kernel.directions[i] @ weights @ step
        assert float(trace[i]) == pytest.approx(float(expected), rel=1e-3)


def test_members_whose_gradients_cancel_are_found_exactly():
    """Pairs of members cancel, non-members do not: c is 0 and -1 if there are enough weights."""
    generator = torch.Generator().manual_seed(0)
    x, d = torch.randn(30, 12, generator=generator), torch.randn(30, 6, generator=generator)
    x[10:20], d[10:20] = x[:10], -d[:10]  # members 0 to 19
    kernel = Kernel(x, d).standardised()
    (c,) = solve_shifted(kernel, -kernel(torch.ones(30)), [1e-6], tolerance=1e-5)
    assert c[:20].abs().max() < 0.01 and (c[20:] + 1).abs().max() < 0.01
    mean, spread = deviations(None, None, None).of(0, np.array([1.0, 0.5]))
    np.testing.assert_allclose(mean, [0, -0.5])
    assert spread[0] < spread[1]


def test_inputs_are_whitened_with_the_bias(data):
    layers = [layers_of(model(seed)) for seed in range(3)]
    white = white_inputs(layers, data.x, data.labels)
    assert white.shape == (40, 13)
    ones = torch.cat([data.x, torch.ones(40, 1)], dim=1)
    sums = [ones.T @ final_gradients(own, data.x, data.labels) for own in layers]
    moments = sum((own @ own.T).double() for own in sums)
    metric = torch.linalg.inv(moments / (moments.trace() / 13) + 0.1 * torch.eye(13))
    expected = ones.double() @ metric @ ones.double().T
    torch.testing.assert_close((white @ white.T).double(), expected, rtol=1e-3, atol=1e-3)
    kernel = balance_kernel(white, layers[0], data.x, data.labels)
    assert float(kernel.diagonal.mean()) == pytest.approx(1, rel=1e-4)


def test_both_decodes_tell_members_of_real_models():
    problem, truth = whitebox_problem()
    first = first_pass(problem)
    cases = (first.adaptive, ADAMS_STEPS, 0.75), (first.balance, BALANCE, 0.7)
    for decodes, (few, _), least in cases:
        assert tuple(decodes) == few.ridges
        assert area(evidence(problem, decodes[1.0]).asked(problem), truth) > least


def test_large_kernels_multiply_in_bfloat16_and_solve_as_well(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    kernel = Kernel(
        torch.randn(300, 20, generator=generator), torch.randn(300, 8, generator=generator)
    )
    kernel = kernel.standardised()
    trace = kernel(torch.randn(300, generator=generator))
    exact = joint_decode(kernel, trace, [1.0, 3.0])
    path = "mico_competition.attacks.whitebox.mlp.joint."
    monkeypatch.setattr(path + "LARGE", 1)
    monkeypatch.setattr(path + "multiplies_bfloat16", lambda device: True)
    assert kernel.fast().white.dtype == torch.bfloat16
    rounded = joint_decode(kernel, trace, [1.0, 3.0])
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    monkeypatch.setattr(path + "multiplies_bfloat16", lambda device: False)
    assert kernel.fast().white.dtype == torch.float32
