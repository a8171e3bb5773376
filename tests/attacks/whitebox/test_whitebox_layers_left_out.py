"""Layers that cannot be decoded in some models or in all of them, and models of other types."""

import copy
import weakref

import numpy as np
import pytest
import torch
from helpers_deeper import cnn_fleet, fleet_problem, images
from torch import nn

from mico_competition.attacks.whitebox.layers.attack import (
    best_layers,
    fleet_signals,
    laid_out,
)
from mico_competition.attacks.whitebox.layers.frame import make_frame
from mico_competition.attacks.whitebox.layers.layers import find_layers, layer_inputs, watch
from mico_competition.attacks.whitebox.layers.model_signals import signals_of
from mico_competition.attacks.whitebox.layers.whitenings import varies
from mico_competition.data.arrays import ArrayDataset


@pytest.fixture(scope="module")
def cnns():
    return cnn_fleet(total=8)


class Odd(nn.Module):
    """A layer that is called twice, one on constants, one on a single row; and two others."""

    def __init__(self, others=True):
        super().__init__()
        self.constants, self.single = nn.Linear(4, 16), nn.Linear(4, 16)
        self.again = nn.Linear(128, 128)
        self.inner, self.head = (nn.Linear(128, 16), nn.Linear(16, 3)) if others else (None, None)

    def forward(self, x):
        x = self.again(torch.tanh(self.again(x.flatten(1))))
        if self.inner is None:
            return x[:, :3] + self.constants(torch.full((len(x), 4), 0.1))[:, :3]
        single = self.single(torch.ones(1, 4))
        return self.head(torch.tanh(self.inner(x) + single + self.constants(x.new_ones(len(x), 4))))


def fleet(make, total=8):
    torch.manual_seed(0)
    data, rng = images(24), np.random.default_rng(0)
    is_member = np.stack([rng.permutation(24) < 12 for _ in range(total)])
    return fleet_problem([make().eval() for _ in range(total)], data, is_member, total - 2)


def with_dead(cnns, row, layer):
    """The problem of the fleet in which one model has a dead layer."""
    models, data, is_member = cnns
    models = [copy.deepcopy(model) for model in models]
    with torch.no_grad():
        for own in getattr(models[row], layer).parameters():
            own.zero_()
    return fleet_problem(models, data, is_member, 6)


@pytest.mark.parametrize("layer", ["head", "second", "first"])
@pytest.mark.parametrize("row", [0, 2, 7])
def test_a_dead_layer_of_one_model_changes_none_of_the_others_signals(cnns, row, layer):
    models, data, is_member = cnns
    healthy = fleet_signals(fleet_problem(models, data, is_member, 6))
    problem = with_dead(cnns, row, layer)
    signals = fleet_signals(problem)
    assert set(signals) == set(healthy)
    assert (
        not signals["second joint"][0.1][row].any()
        and signals["second joint"][0.1].any(1).sum() == 7
    )
    assert np.isfinite(best_layers(problem)).all()


def test_a_family_that_a_model_lacks_is_zero_there():
    full = {"a": {0.0: np.arange(3.0)}, "b": {0.1: np.arange(3.0) + 1}}
    for order in ((0, 1), (1, 0)):
        rows = {0: full, 1: {"a": {0.0: np.arange(3.0) + 2}}}
        table = laid_out({row: rows[row] for row in order}, 3)["b"][0.1]
        assert table[0].tolist() == [1, 2, 3] and table[1].tolist() == [0, 0, 0]
        assert np.isnan(table[2]).all()


def test_layers_called_twice_on_constants_or_on_one_row_are_left_out():
    problem = fleet(Odd)
    signals = fleet_signals(problem)
    assert {family.split()[0] for family in signals} == {"inner", "head", "joint", "trace"}
    assert np.isfinite(best_layers(problem)).all()


def test_a_model_without_a_layer_to_decode_is_named():
    with pytest.raises(ValueError, match="called once .* but model 0 has none"):
        best_layers(fleet(lambda: Odd(others=False)))


def test_inputs_vary_or_not_up_to_rounding():
    same = torch.full((5, 2, 3), 0.1)
    assert not varies([same, same + 1e-8])
    assert varies([same, same + 1e-5]) and varies([0 * same, 0 * same + 1e-20])
    assert not varies([same[:0]])


def test_rows_that_are_no_records_are_refused_by_name():
    model = Odd()
    layers = find_layers(model)
    seen = layer_inputs(model, layers, torch.rand(5, 2, 8, 8))
    assert set(seen) == {"constants", "inner", "head"}
    with pytest.raises(ValueError, match="single has 1 rows of inputs"):
        watch(model, {"single": layers["single"]}, torch.rand(5, 2, 8, 8), torch.rand(5, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_other_types_are_decoded_like_those_of_float32(cnns, dtype):
    models, data, is_member = cnns
    rows = torch.arange(24)
    usual = make_frame(fleet_problem(models, data, is_member, 6).source, np.arange(8))
    expected = signals_of(models[0], usual)
    inputs = data.inputs(rows).to(dtype)
    frame = copy.copy(usual)
    object.__setattr__(frame, "data", ArrayDataset(inputs, data.labels, lambda own: own))
    got = signals_of(copy.deepcopy(models[0]).to(dtype), frame)
    assert set(got) == set(expected)
    for family in ("first trace", "head free"):
        for ridge, own in got[family].items():
            assert np.corrcoef(own, expected[family][ridge])[0, 1] > 0.98, (family, ridge)


def test_the_logits_of_all_models_are_never_held_at_once(cnns):
    models, data, is_member = cnns
    problem = fleet_problem(models, data, is_member, 6)
    alive, most = [], 0

    def logits(row):
        nonlocal most
        own = np.zeros((24, 3), np.float32).view()
        alive.append(weakref.ref(own))
        most = max(most, sum(one() is not None for one in alive))
        return own

    problem.source.logits = logits
    make_frame(problem.source, np.arange(8))
    assert len(alive) == 8 and most <= 2
