"""Traces, kernels and joint decodes of layers, against autograd's loops and dense matrices."""

import pytest
import torch
from helpers_deeper import (
    TinyCNN,
    images,
    naive_directions,
    sentences,
    tiny_roberta,
    unit_residual,
)
from torch import nn

from mico_competition.attacks.whitebox.layers.directions import (
    directions,
    input_covariance,
    kernel_work,
    squared_lengths,
    traces,
    whitening,
)
from mico_competition.attacks.whitebox.layers.layers import (
    Seen,
    find_layers,
    layer_inputs,
    shapes,
    token_embedding,
    watch,
    weights_of,
    with_gradient,
)
from mico_competition.attacks.whitebox.layers.ridge import free_decode

EYE = torch.eye


def example(kind):
    torch.manual_seed(5)
    if kind == "cnn":
        return TinyCNN().eval(), images(7)
    model = tiny_roberta()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # fresh weights are so small that all sentences look the same
    return model, sentences(7)


def looked_at(model, data, residual):
    inputs = data.inputs(torch.arange(len(data)))
    return watch(model, find_layers(model), inputs, residual)


@pytest.mark.parametrize("kind", ["cnn", "roberta"])
def test_directions_and_traces_are_those_of_a_loop_over_records(kind):
    model, data = example(kind)
    residual, layers = unit_residual(data), find_layers(model)
    seen, outputs = looked_at(model, data, residual)
    assert outputs.shape == (7, 3) and set(seen) == set(layers)
    naive = naive_directions(model, layers, data, residual)
    for name, own in seen.items():
        expected = naive[name]
        got = directions(own).double()
        assert (got - expected).norm() < 1e-4 * expected.norm().clamp(min=1e-3), name
        squares = squared_lengths(own).double()
        assert torch.allclose(squares, (expected**2).sum((1, 2)), rtol=1e-3, atol=1e-9), name
        weights = weights_of(layers[name])
        trace = (expected * weights.double()).sum((1, 2))
        error = (traces(own, weights).double() - trace).abs().max()
        assert error < 1e-4 * (expected.norm() * weights.norm()).clamp(min=1e-3), name


def test_positions_without_a_gradient_are_left_out_and_no_others():
    torch.manual_seed(0)
    inputs, gradients = torch.randn(3, 4, 5), torch.randn(3, 4, 2)
    gradients[:, 1] = 0
    gradients[0, 2] = 0  # other records have one there
    seen = Seen(inputs, gradients)
    kept = with_gradient(seen)
    assert kept.inputs.shape == (3, 3, 5)
    assert torch.allclose(directions(kept), directions(seen))
    assert with_gradient(kept) is kept
    nothing = Seen(inputs, 0 * gradients)
    assert with_gradient(nothing) is nothing


def test_the_layers_that_are_found():
    assert list(find_layers(TinyCNN())) == ["first", "second", "head"]
    model = tiny_roberta()
    names = list(find_layers(model))
    assert names[-2:] == ["classifier.dense", "classifier.out_proj"] and len(names) == 14
    assert token_embedding(model) is model.roberta.embeddings.word_embeddings
    assert token_embedding(TinyCNN()) is None
    assert shapes(TinyCNN())["first"] == (4, 2 * 9 + 1)
    assert shapes(TinyCNN())["second"] == (3, 4 * 4)


def test_layers_of_another_form_are_left_out():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), shared, nn.ReLU(), shared, nn.Linear(3, 2))
    assert list(find_layers(model)) == ["4"]


def test_watching_leaves_a_model_as_it_was():
    model, data = example("cnn")
    model.second.weight.requires_grad_(False)
    before = [(p.requires_grad, p.grad, p.clone()) for p in model.parameters()]
    looked_at(model, data, unit_residual(data))
    for parameter, (asked, gradient, value) in zip(model.parameters(), before):
        assert parameter.requires_grad == asked and parameter.grad is gradient
        assert torch.equal(parameter, value)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_watching_works_without_gradients_being_on():
    model, data = example("cnn")
    with torch.no_grad():
        seen, _ = looked_at(model, data, unit_residual(data))
    assert seen["first"].gradients.abs().sum() > 0


def test_a_layer_that_is_called_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3)

        def forward(self, x):
            return self.one(self.one(x))

    model = Twice()
    with pytest.raises(ValueError, match="called twice"):
        watch(model, find_layers(model), torch.rand(2, 3), torch.rand(2, 3))


def test_whitened_trace_is_the_trace_with_the_inverse_covariance():
    model, data = example("cnn")
    residual, layers = unit_residual(data), find_layers(model)
    seen, _ = looked_at(model, data, residual)
    rows = layer_inputs(model, layers, data.inputs(torch.arange(7)))
    assert torch.allclose(rows["first"], seen["first"].inputs)
    flat = rows["first"].flatten(0, 1).double()
    covariance = input_covariance([rows["first"][:3], rows["first"][3:]])
    assert torch.allclose(covariance, torch.cov(flat.T, correction=0), atol=1e-6)
    basis = whitening(covariance, 0.3).double()
    width = len(covariance)
    inverse = torch.linalg.inv(covariance / (covariance.trace() / width) + 0.3 * EYE(width))
    assert torch.allclose(basis @ basis.T, inverse, rtol=1e-3, atol=1e-4)
    naive = naive_directions(model, layers, data, residual)["first"]
    weights = weights_of(model.first)
    expected = (naive @ inverse * weights).sum((1, 2))
    got = traces(seen["first"], weights @ (basis @ basis.T).float())
    assert torch.allclose(got.double(), expected, atol=1e-4)


def test_constant_inputs_have_no_whitening():
    with pytest.raises(ValueError, match="vary between records"):
        whitening(input_covariance([torch.ones(3, 2, 4)]), 0.3)


def test_the_work_of_a_kernel_is_that_of_its_dense_product():
    model, data = example("cnn")
    seen, _ = looked_at(model, data, unit_residual(data))
    flat = directions(seen["head"]).flatten(1)
    assert kernel_work(7, weights_of(model.head)) == 7 * 7 * flat.shape[1]


@pytest.mark.parametrize("inputs", [5, 40])  # fewer and more than records: both Gram matrices
def test_the_free_decode_is_ridge_regression(inputs):
    torch.manual_seed(1)
    a, w = torch.randn(20, inputs), torch.randn(3, inputs)
    scale = float((a**2).sum(1).mean())
    for ridge, got in zip((0.1, 1.0), free_decode(a, w, (0.1, 1.0))):
        kernel = (a @ a.T).double() / scale + ridge * EYE(20)
        expected = torch.linalg.solve(kernel, (a @ w.T).double() / scale)
        assert torch.allclose(got, expected, atol=1e-6)


def test_the_free_decode_finds_who_was_added_to_the_weights():
    torch.manual_seed(2)
    a, inside = torch.randn(30, 200), torch.arange(30) % 2 == 0
    coefficients = torch.randn(30, 3) * inside[:, None]
    (found,) = free_decode(a, coefficients.T @ a, (1e-6,))
    assert torch.allclose(found, coefficients.double(), atol=1e-3)


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(ValueError, match="ridges > 0"):
        free_decode(torch.rand(3, 2), torch.rand(2, 2), (0.0,))
    with pytest.raises(ValueError, match="all zero"):
        free_decode(torch.zeros(3, 2), torch.rand(2, 2), (0.1,))
