"""Traces against autograd and naive loops, and on a model that took one known step."""

import numpy as np
import pytest
import torch
from helpers_whitebox import make_records

from mico_competition.attacks.whitebox.mlp.joint import Kernel
from mico_competition.attacks.whitebox.mlp.mlp_layers import HALFWAY, Layers, layers_of, unit_rows
from mico_competition.attacks.whitebox.mlp.trace import (
    input_noise,
    mean_probabilities,
    residual_directions,
    second_layer_traces,
    some_of_each,
    whitener,
)
from mico_competition.models.architectures import CNN, MLP

HIDDEN, FEATURES, CLASSES = 7, 12, 4


@pytest.fixture
def data():
    records = make_records(40, FEATURES, CLASSES)
    records.x += 0.1  # no empty basket
    return records


def mlp(seed=0, gain=1.0):
    torch.manual_seed(seed)
    return MLP(FEATURES, HIDDEN, CLASSES, gain)


def loss_of(model, data, i):
    return torch.nn.functional.cross_entropy(model(data.x[i : i + 1]), data.labels[i : i + 1])


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_layers_give_what_the_model_gives(data, gain):
    model = mlp(gain=gain)
    with torch.no_grad():
        w1, b1, w2, b2 = (part.clone() for part in model.parameters())
        layers = Layers(w1, b1, w2, b2, gain)
        hidden = layers.hidden(data.x)
        torch.testing.assert_close(hidden @ layers.w2.T + layers.b2, model(data.x))
        model.mlp[0].weight *= 0.5
        model.mlp[0].bias *= 0.5
        halfway = model.mlp[1](model.mlp[0](gain * data.x))
        torch.testing.assert_close(layers.hidden_at(data.x, (1.0, HALFWAY))[1], halfway)


def test_directions_are_those_of_the_loss_gradient(data):
    """The gradient of the loss to W1 is (p - y) back through W2 and tanh, times x: rank one."""
    model = mlp()
    layers = layers_of(model)
    probabilities = torch.softmax(model(data.x), 1).detach().numpy()
    residual = torch.as_tensor(residual_directions(probabilities, data.labels.numpy()))
    hidden = layers.hidden(data.x)
    directions = layers.directions(hidden, residual, slope=1.0)
    between = layers.directions(hidden, residual)
    steps = (1 - hidden**2).sqrt() * (residual @ layers.w2)
    torch.testing.assert_close(between, steps / steps.norm(dim=1, keepdim=True))
    for i in range(len(data)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(
            model(data.x[i : i + 1]), data.labels[i : i + 1]
        ).backward()
        update = -model.mlp[0].weight.grad
        expected = torch.outer(directions[i], data.x[i])
        torch.testing.assert_close(update / update.norm(), expected / expected.norm())
        last = -model.mlp[2].weight.grad
        outer = torch.outer(residual[i], hidden[i])
        torch.testing.assert_close(last / last.norm(), outer / outer.norm())


def test_trace_finds_one_step_on_one_record(data):
    """W1 + c a (outer) x adds c x~.x at the record, and c x~_j.x a_j.a at every other."""
    model = mlp()
    layers = layers_of(model)
    usual = np.full((len(data), CLASSES), 1 / CLASSES)
    residual = torch.as_tensor(residual_directions(usual, data.labels.numpy()))
    directions = layers.directions(layers.hidden(data.x), residual)
    covariance = torch.diag(torch.linspace(0.5, 2, FEATURES, dtype=torch.float64))
    root = whitener(covariance, 0.3)
    white = (data.x - data.x.mean(0)) @ root
    step, i = 0.37, 11
    moved = layers.w1 + step * torch.outer(directions[i], data.x[i])
    stepped = type(layers)(moved, layers.b1, layers.w2, layers.b2, layers.gain)
    kernel = Kernel(white, directions)
    before, after = (kernel.inner(own.w1 @ root) for own in (layers, stepped))
    filtered = white @ root.T
    expected = step * (filtered @ data.x[i]) * (directions @ directions[i])
    torch.testing.assert_close(after - before, expected, atol=1e-5, rtol=1e-4)
    assert int((after - before).argmax()) == i


def test_one_step_of_gradient_descent_raises_the_records_own_trace(data):
    model = mlp()
    layers = layers_of(model)
    probabilities = torch.softmax(model(data.x), 1).detach().numpy()
    residual = torch.as_tensor(residual_directions(probabilities, data.labels.numpy()))
    directions = layers.directions(layers.hidden(data.x), residual, slope=1.0)
    root = whitener(torch.eye(FEATURES, dtype=torch.float64), 1.0)
    centred = data.x - data.x.mean(0)
    kernel = Kernel(centred @ root, directions)
    before = kernel.inner(layers.w1 @ root)
    i, rate = 5, 0.1
    loss_of(model, data, i).backward()
    gradient = model.mlp[0].weight.grad
    with torch.no_grad():
        model.mlp[0].weight -= rate * gradient
    after = kernel.inner(layers_of(model).w1 @ root)
    # The step is rate |gradient| along a (outer) x / |x|; the whitener is I / 2.
    expected = rate * gradient.norm() / data.x[i].norm() * (centred[i] @ data.x[i]) / 2
    torch.testing.assert_close((after - before)[i], expected, atol=1e-6, rtol=1e-3)


def test_whitener_is_a_root_of_the_ridged_inverse():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    noise = half @ half.T
    root = whitener(noise, 0.3).double()
    expected = torch.linalg.inv(noise / (torch.trace(noise) / 9) + 0.3 * torch.eye(9))
    torch.testing.assert_close(root @ root.T, expected, atol=1e-5, rtol=1e-4)


def test_input_noise_is_the_pooled_covariance_over_models(data):
    models = [layers_of(mlp(seed)) for seed in range(5)]
    usual = np.full((len(data), CLASSES), 1 / CLASSES)
    residual = torch.as_tensor(residual_directions(usual, data.labels.numpy()))
    pooled = np.zeros((FEATURES, FEATURES))
    for i in range(len(data)):
        gradients = np.stack(
            [(own.w1.T @ own.directions(own.hidden(data.x), residual)[i]).numpy() for own in models]
        )
        pooled += np.cov(gradients, rowvar=False) / len(data)
    np.testing.assert_allclose(input_noise(models, data.x, residual), pooled, rtol=1e-4, atol=1e-8)
    with pytest.raises(ValueError, match="at least 2 models"):
        input_noise(models[:1], data.x, residual)
    with pytest.raises(ValueError, match="models that differ"):
        input_noise([models[0]] * 3, data.x, residual)


def test_second_layer_traces_are_products_with_the_gradient_direction(data):
    layers = layers_of(mlp())
    usual = np.full((len(data), CLASSES), 1 / CLASSES)
    residual = residual_directions(usual, data.labels.numpy())
    hidden = layers.hidden(data.x)
    ridges = (3.0, 0.3)
    ours = second_layer_traces(hidden, torch.as_tensor(residual), layers, ridges)
    h, w2 = hidden.numpy().astype(np.float64), layers.w2.numpy()
    covariance = np.cov(h, rowvar=False, bias=True)
    covariance /= np.trace(covariance) / HIDDEN
    for ridge, own in zip(ridges, ours):
        inverse = np.linalg.inv(covariance + ridge * np.eye(HIDDEN))
        for i in range(len(data)):
            update = np.outer(residual[i], inverse @ (h[i] - h.mean(0)))  # of W2
            np.testing.assert_allclose(own[i], (update * w2).sum(), rtol=1e-3, atol=1e-5)


def test_residual_directions_keep_their_digits_where_the_model_is_sure():
    logits = np.array([[0.0, -40.0, -41.0], [1.0, 2.0, 0.0]])
    probabilities = mean_probabilities([logits, logits])
    np.testing.assert_allclose(probabilities[1], np.exp([1, 2, 0]) / np.exp([1, 2, 0]).sum(), 1e-6)
    direction = residual_directions(probabilities, np.array([0, 0]))
    raw = np.array([1 + np.exp(-1), -1, -np.exp(-1)])
    np.testing.assert_allclose(direction[0], raw / np.linalg.norm(raw), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1, rtol=1e-6)


def test_unit_rows_leaves_zeros_alone():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit_rows(rows), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_some_of_each_class():
    labels = np.repeat([0, 1, 2], [50, 3, 50])
    chosen = some_of_each(labels, 30)
    assert np.bincount(labels[chosen]).tolist() == [10, 3, 10]
    assert len(np.unique(chosen)) == len(chosen)
    np.testing.assert_array_equal(chosen, some_of_each(labels, 30))


def test_other_models_are_refused():
    with pytest.raises(ValueError, match=r"Linear .*, but the model is a CNN: use .* `layers`"):
        layers_of(CNN())
    broken = mlp()
    with torch.no_grad():
        broken.mlp[0].weight[2, 3] = float("nan")
    with pytest.raises(ValueError, match="finite weights, but model 7"):
        layers_of(broken, "model 7")
    with pytest.raises(ValueError, match="finite logits"):
        mean_probabilities([np.zeros((3, 2)), np.array([[0, np.inf]] * 3)])
    with pytest.raises(ValueError, match="one model or more"):
        mean_probabilities([])
