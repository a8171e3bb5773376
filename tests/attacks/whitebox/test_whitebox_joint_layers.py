"""The joint decode of all layers, against dense matrices in float64 and on made-up weights."""

import pytest
import torch

from mico_competition.attacks.whitebox.layers.directions import whitening
from mico_competition.attacks.whitebox.layers.joint_layers import (
    OUTPUTS,
    RIDGES,
    affordable,
    decode,
    gram,
    project,
    together,
)


def made_up(records, outputs, inputs, seed):
    """Directions of records of rank 3, as from three positions."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(records, outputs, 3, generator=generator)
    return left @ torch.randn(records, 3, inputs, generator=generator) + 2.0


def projected(features, change):
    layer = project(features, change)
    assert layer is not None
    return layer


def test_a_gram_of_bfloat16_numbers_is_that_of_its_rows():
    rows = torch.randn(1100, 9000, generator=torch.Generator().manual_seed(0))
    got, exact = gram(rows), rows.double() @ rows.double().T
    assert torch.equal(got, got.T)
    assert float((got - exact).square().mean().sqrt()) < 0.005 * float(exact.square().mean().sqrt())


def test_a_layers_decode_is_a_dense_solve_of_directions_white_on_both_sides():
    features, change = made_up(40, 5, 30, seed=1), torch.randn(5, 30)
    rows = features.transpose(0, 1).flatten(1).double()
    root = whitening(rows @ rows.T, OUTPUTS).double()
    flat = (root.T @ features.double()).flatten(1)
    flat = flat - flat.mean(0)
    kernel, trace = flat @ flat.T, flat @ (root.T @ change.double()).flatten()
    scale = kernel.diagonal().mean()
    layer = projected(features.clone(), change)
    for ridge, got in decode(layer).items():
        matrix = kernel / scale + ridge * torch.eye(40)
        expected = torch.linalg.solve(matrix, trace / scale)
        assert float((got - expected).norm()) < 0.02 * float(expected.norm()), ridge


def test_directions_that_do_not_vary_have_no_kernel():
    assert project(torch.zeros(6, 2, 3), torch.ones(2, 3)) is None
    assert project(torch.ones(6, 2, 3), torch.ones(2, 3)) is None


def test_layers_together_find_members_that_no_single_layer_shows():
    records = 120
    inside = (torch.arange(records) % 2 == 0).float()
    layers = []
    for seed in range(4):  # 60 weights a layer: half as many as there are records
        features = made_up(records, 4, 15, seed)
        change = (features * inside[:, None, None]).sum(0) + 3 * torch.randn(4, 15)
        layers.append(projected(features, change))

    def apart(layer):
        found = decode(layer)[RIDGES[0]]
        return float((found[inside == 1].mean() - found[inside == 0].mean()) / found.std())

    alone = [apart(layer) for layer in layers]
    assert apart(together(layers)) > 1.25 * max(alone)


def test_layers_together_count_the_same_whatever_their_scale():
    small, change = made_up(30, 3, 10, seed=5), torch.randn(3, 10)
    large = 100 * made_up(30, 4, 8, seed=6)
    other = torch.randn(4, 8)
    both = together([projected(small.clone(), change), projected(large.clone(), other)])
    again = together([projected(small, change), projected(large / 100, other * 100)])
    assert torch.allclose(both.kernel, again.kernel, atol=0.02)
    assert float(both.kernel.diagonal().mean()) == pytest.approx(1, abs=1e-5)


def test_the_smallest_layers_are_decoded_jointly_as_far_as_the_work_allows():
    sizes = {"a": torch.zeros(4, 5), "b": torch.zeros(2, 5), "c": torch.zeros(9, 9)}
    assert affordable(sizes, 10, work=10**2 * 111) == {"a", "b", "c"}
    assert affordable(sizes, 10, work=10**2 * 111 - 1) == {"a", "b"}
    assert affordable(sizes, 10, work=10**2 * 111, numbers=10 * 30) == {"a", "b"}
    assert affordable(sizes, 10, work=0) == set()
