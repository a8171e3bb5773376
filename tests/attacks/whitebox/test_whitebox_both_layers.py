"""The decode of both layers' weights: whole clipped gradients, in noise of one size."""

import numpy as np
import pytest
import torch
from helpers_whitebox import make_records, whitebox_problem
from torch.func import functional_call, grad, vmap

from mico_competition.attacks.whitebox.mlp import features, pipeline
from mico_competition.attacks.whitebox.mlp.balance import imbalance
from mico_competition.attacks.whitebox.mlp.both_layers import (
    PARTS,
    clipped_residual,
    gradient_kernel,
    gradient_lengths,
    gradient_trace,
)
from mico_competition.attacks.whitebox.mlp.evidence import make_stack
from mico_competition.attacks.whitebox.mlp.features import BOTH_LAYERS, first_pass
from mico_competition.attacks.whitebox.mlp.joint import Kernel, joint_decode
from mico_competition.attacks.whitebox.mlp.mlp_layers import Layers, layers_of
from mico_competition.attacks.whitebox.mlp.pipeline import (
    area,
    best,
    converged,
    decodes,
    evidence,
)
from mico_competition.models.architectures import MLP

N, D, C = 40, 12, 3


def model(gain):
    torch.manual_seed(5)
    return MLP(D, 5, C, gain=gain)


def residuals(network, data):
    """float32[N, C], e_y - p of the network's own outputs."""
    with torch.no_grad():
        return torch.eye(C)[data.labels] - network(data.x).softmax(1)


def gradients(network, data, part=1.0):
    """Autograd's descent directions: {parameter: float64[N, ...]}, and their lengths over all.

    They are of the loss of a part of the logits, divided by that part: at the model's weights, with
    the residual of those logits.
    """
    network = network.double()
    weights = {name: own.detach() for name, own in network.named_parameters()}

    def loss(weights, record, label):
        output = part * functional_call(network, weights, (record[None],))
        return torch.nn.functional.cross_entropy(output, label[None]) / part

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, data.x.double(), data.labels)
    length = torch.cat([own.flatten(1) for own in each.values()], 1).norm(dim=1)
    return {name: -own for name, own in each.items()}, length


def clipped_gradients(network, data):
    """{parameter: float64[N, ...]}: summed over parts of the logits, clipped at their median."""
    each = [gradients(network, data, part) for part in PARTS]
    bound = torch.stack([length for _, length in each]).flatten().median()
    factors = [(bound / length).clamp(max=1) for _, length in each]
    return {
        name: sum(
            torch.einsum("n,n...->n...", factor, own[name])
            for factor, (own, _) in zip(factors, each)
        )
        for name in each[0][0]
    }


def centred_gradients(network, data, gain):
    """float64[N, H D + C H]: those of the weights, less their parts along the mean inputs."""
    with torch.no_grad():
        hidden = torch.tanh(network.mlp[0](gain * data.x)).double()
    w1, b1, w2, b2 = clipped_gradients(network, data).values()
    w1 = w1 - b1[:, :, None] * (gain * data.x.double().mean(0))
    w2 = w2 - b2[:, :, None] * hidden.mean(0)
    return torch.cat([w1.flatten(1), w2.flatten(1)], 1)


def decoded_kernel(data, layers):
    return gradient_kernel(layers, data.x, data.x - data.x.mean(0), data.labels)


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_the_kernel_and_the_trace_are_those_of_whole_gradients(gain):
    data, network = make_records(N, D, C), model(gain)
    layers = layers_of(network)
    kernel = decoded_kernel(data, layers)
    expected = centred_gradients(network, data, gain)
    each = expected / expected.square().sum(1).mean().sqrt()
    expected = each @ each.T
    columns = torch.stack([kernel(own) for own in torch.eye(N)])
    torch.testing.assert_close(columns.double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(kernel.diagonal.double(), expected.diag(), rtol=1e-3, atol=1e-4)
    raw = each @ torch.cat([layers.w1.flatten(), layers.w2.flatten()]).double()
    usual = expected.sum(1)
    raw -= (raw @ usual) / (usual @ usual) * usual
    found = gradient_trace(kernel, layers)
    torch.testing.assert_close(found.double(), raw, rtol=1e-3, atol=1e-4)


def test_lengths_are_those_of_all_weights_and_biases():
    data, network = make_records(N, D, C), model(3.0)
    layers, residual = layers_of(network), residuals(network, data)
    hidden = layers.hidden(data.x)
    first = (1 - hidden * hidden) * (residual @ layers.w2)
    found = gradient_lengths(data.x, first, hidden, residual, gain=3.0)
    _, expected = gradients(network, data)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5)


def test_members_are_found_in_weights_that_are_their_clipped_gradients_and_noise():
    """One step of DP-SGD: the decode tells more of the members than the traces."""
    data, network = make_records(30, D, C), model(1.0)
    start = layers_of(network)
    kernel = decoded_kernel(data, start)
    member = torch.arange(30) % 2 == 0
    w1, b1, w2, b2 = (
        own[member].sum(0).float() for own in clipped_gradients(network, data).values()
    )
    generator = torch.Generator().manual_seed(3)
    found, by_trace = [], []
    for _ in range(20):
        noisy = [own + 0.1 * torch.randn(own.shape, generator=generator) for own in (w1, w2)]
        trace = gradient_trace(kernel, Layers(noisy[0], b1, noisy[1], b2, 1.0))
        (c,) = joint_decode(kernel, trace, [0.1])
        found.append(area(c[None].numpy(), member[None].numpy()))
        by_trace.append(area(trace[None].numpy(), member[None].numpy()))
    assert sum(found) / 20 > 0.8, sum(found) / 20
    assert sum(found) > sum(by_trace) + 1.0, (sum(found) / 20, sum(by_trace) / 20)


def test_the_decode_tells_members_of_real_models():
    problem, truth = whitebox_problem()
    decodes = first_pass(problem).both
    assert tuple(decodes) == BOTH_LAYERS[0].ridges
    assert area(evidence(problem, decodes[3.0]).asked(problem), truth) > 0.6


@pytest.mark.parametrize(("known", "passes"), [(False, 0), (True, 1)])
def test_where_noise_dominates_the_decodes_for_plain_training_are_left_out(
    known, passes, monkeypatch
):
    problem, _ = whitebox_problem(known=known)
    first = first_pass(problem)
    logit = evidence(problem, problem.source.get("logit"))
    stack = make_stack(problem)
    assert converged(problem, first)
    found, noisy = decodes(problem, first, logit, stack)
    assert len(found) == 3 and not noisy
    monkeypatch.setattr(features, "COSTLY", 0)
    assert len(decodes(problem, first, logit, stack)[0]) == 2  # the joint decode would cost much
    monkeypatch.setattr(pipeline, "converged", lambda *given: False)
    found, noisy = decodes(problem, first, logit, stack)
    assert len(found) == 4 and not noisy  # as the joint decode tells more
    areas = {id(first.joint): 0.6, id(first.both): 0.7}
    monkeypatch.setattr(
        pipeline, "best_ridge", lambda problem, found, *rest: (areas[id(found)], 3.0, logit)
    )
    found, noisy = decodes(problem, first, logit, stack)
    assert [own.area for own in found] == [0.6, 0.7] and noisy
    repeated = []
    monkeypatch.setattr(pipeline, "second_pass", lambda *given: repeated.append(given[2]))
    monkeypatch.setattr(pipeline, "doubt_left", lambda *given: 0.1)
    assert np.isfinite(best(problem)).all()
    assert len(repeated) == passes
    assert all(own.c is first.both[3.0] for own in repeated)


def test_gradients_by_chance_are_out_of_balance_and_cancelling_ones_are_not():
    generator = torch.Generator().manual_seed(0)
    x, d = torch.randn(400, 12, generator=generator), torch.randn(400, 6, generator=generator)
    member = (torch.arange(400) < 300).float()
    assert imbalance(Kernel(x, d), member) == pytest.approx(1, abs=0.3)
    x[150:300], d[150:300] = x[:150], -d[:150]
    assert imbalance(Kernel(x, d), member) < 1e-3


def test_residuals_of_sure_models_keep_their_digits():
    data, network = make_records(N, D, C), model(1.0)
    layers = layers_of(network)
    sure = Layers(layers.w1, layers.b1, 400 * layers.w2, layers.b2, 1.0)
    found = clipped_residual(sure, data.x, sure.hidden(data.x), data.labels)
    w1, b1, w2, b2 = (own.double() for own in (sure.w1, sure.b1, sure.w2, sure.b2))
    exact = Layers(w1, b1, w2, b2, 1.0)
    x = data.x.double()
    expected = clipped_residual(exact, x, exact.hidden(x), data.labels)
    assert float(expected.abs().sum(1).min()) < 1e-8
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-30)


def test_one_odd_shadow_does_not_decide_whether_training_has_converged(monkeypatch):
    problem, _ = whitebox_problem()
    ratios = iter([9e13, 0.3, 0.4, 0.5, 0.55, 9e13, 0.7, 0.7, 0.5, 0.7])
    monkeypatch.setattr(pipeline, "imbalance", lambda *given: next(ratios))
    first = first_pass(problem)
    assert converged(problem, first) and not converged(problem, first)
