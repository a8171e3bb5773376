"""Book-keeping gives, layer by layer and in whole models, what a loop over examples gives."""

import copy
import math

import pytest
import torch
from helpers_bookkeeping import (
    KINDS,
    TOLERANCE,
    cast,
    gradients_by_loop,
    make,
    norms_of,
    weighted_sums,
)
from torch import nn

from mico_competition.training import ghost_norms, layer_rule
from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.dpsgd import clip_factors
from mico_competition.training.losses import per_example_losses


def assert_agrees(model, inputs, labels, losses=per_example_losses):
    """Norms and clipped sums against the loop; some examples are clipped, unless all are alike."""
    expected = gradients_by_loop(model, inputs, labels, losses)
    lengths = norms_of(expected)
    bound = float(lengths.mean()) * 0.999
    for dtype, tolerance in TOLERANCE.items():
        mine = copy.deepcopy(model).to(dtype)
        keeper = BookKeeper(mine)
        with keeper.recording():
            norms = keeper.norms(losses(mine, cast(inputs, dtype), labels))
        assert norms.dtype == dtype
        torch.testing.assert_close(norms.double(), lengths, rtol=tolerance, atol=1e-14)
        keeper.write_weighted_sum(clip_factors(norms, bound))
        sums = weighted_sums(expected, clip_factors(lengths, bound))
        whole = float(norms_of([sums]))
        for (name, parameter), part in zip(mine.named_parameters(), sums, strict=True):
            error = float((parameter.grad.double() - part).norm())
            # Some are nothing but rounding: attention does not change with the keys' bias.
            assert error <= tolerance * max(float(part.norm()), 1e-2 * whole), (name, dtype)
    return lengths, bound


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_norms_and_clipped_sums_are_the_loops(kind, batch, tmp_path):
    lengths, bound = assert_agrees(*make(kind, tmp_path, batch))
    if batch > 1:
        assert 1.05 * lengths.min() < bound < lengths.max() / 1.05, "some are clipped, some not"


# -- each rule, each branch -------------------------------------------------------------------


@pytest.fixture
def by_pairs(monkeypatch):
    """The shapes whose pairs of places were taken, in call order."""
    calls = []
    pairs = ghost_norms.pairs

    def counted(x):
        calls.append(tuple(x.shape))
        return pairs(x)

    for module in (ghost_norms, layer_rule):
        monkeypatch.setattr(module, "pairs", counted)
    return calls


@pytest.fixture(params=[0.0, 2.0, math.inf], ids=lambda kept: f"kept={kept}")
def kept(request, monkeypatch):
    """How large per-example gradients may be to be kept: none is, small ones are, all are."""
    monkeypatch.setattr(layer_rule, "KEPT", request.param)
    return request.param


def total_losses(model, inputs, labels):
    """A loss for models of any output: half the squares, weighted differently by place."""
    outputs = model(inputs).flatten(1)
    return (outputs**2 * torch.linspace(0.5, 1.5, outputs.shape[1]).to(outputs)).sum(1) / 2


@pytest.mark.parametrize(
    ("shape", "pairs"),
    [((3, 20), False), ((3, 4, 20), True), ((3, 90, 20), False), ((3, 2, 3, 20), True)],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, pairs, bias, kept, by_pairs):
    torch.manual_seed(0)
    assert_agrees(nn.Linear(20, 12, bias=bias), torch.randn(shape), torch.zeros(3), total_losses)
    assert kept == 2 or bool(by_pairs) == (pairs and not kept)


@pytest.mark.parametrize(
    ("channels", "size", "options", "pairs"),
    [
        ((16, 64), (5, 6), {}, True),
        ((16, 64), (5, 6), {"padding": (1, 0)}, True),
        ((16, 64), (5, 6), {"padding": 1, "bias": False}, True),
        ((16, 64), (5, 6), {"padding": (0, 1), "stride": (2, 1)}, False),
        ((16, 64), (7, 8), {"padding": (2, 1), "dilation": (1, 2)}, False),
        ((2, 3), (9, 8), {}, False),
        ((2, 3), (9, 8), {"padding": 2, "stride": 3, "dilation": 2, "bias": False}, False),
    ],
    ids=str,
)
def test_conv2d(channels, size, options, pairs, kept, by_pairs):
    torch.manual_seed(0)
    model = nn.Conv2d(*channels, kernel_size=(3, 2), **options)
    assert_agrees(model, torch.randn(3, channels[0], *size), torch.zeros(3), total_losses)
    assert kept == 2 or bool(by_pairs) == (pairs and not kept)


@pytest.mark.parametrize(
    ("channels", "length", "options", "pairs"),
    [
        ((16, 64), 9, {}, True),
        ((16, 64), 9, {"padding": 1, "bias": False}, True),
        ((16, 64), 9, {"padding": 2, "stride": 2}, False),
        ((3, 4), 40, {"dilation": 2}, False),
    ],
    ids=str,
)
def test_conv1d(channels, length, options, pairs, kept, by_pairs):
    torch.manual_seed(0)
    model = nn.Conv1d(*channels, kernel_size=3, **options)
    assert_agrees(model, torch.randn(3, channels[0], length), torch.zeros(3), total_losses)
    assert kept == 2 or bool(by_pairs) == (pairs and not kept)


class Tokens(nn.Module):
    """An embedding whose rows are scaled by `scales`, so that it can be cast with its inputs."""

    def __init__(self, **options):
        super().__init__()
        self.table = nn.Embedding(6, 4, **options)

    def forward(self, ids):
        return self.table(ids.long())


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("padding", [None, 1, -1])
def test_embedding(shape, padding):
    """Few tokens, so that each example has some of them more than once."""
    torch.manual_seed(0)
    model = Tokens(padding_idx=padding)
    with torch.no_grad():
        model.table.weight.normal_()  # the padding's row too
    ids = torch.arange(5).repeat_interleave(max(1, torch.tensor(shape[1:]).prod())).view(shape)
    ids = (ids + torch.randint(3, shape)) % 5  # 5 is the padding of -1, and occurs never
    assert_agrees(model, ids.float(), torch.zeros(5), total_losses)


@pytest.mark.parametrize("shape", [(3, 8), (3, 5, 8), (3, 2, 5, 8)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(shape, bias):
    torch.manual_seed(0)
    assert_agrees(nn.LayerNorm(8, bias=bias), torch.randn(shape), torch.zeros(3), total_losses)
    both = nn.LayerNorm(shape[1:], bias=bias)
    assert_agrees(both, torch.randn(shape), torch.zeros(3), total_losses)


def scaled(model):
    """With weights that are not all 1 and biases that are not all 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.mark.parametrize("shape", [(3, 8), (3, 5, 8), (3, 2, 5, 8)], ids=str)
def test_rms_norm(shape):
    torch.manual_seed(0)
    assert_agrees(scaled(nn.RMSNorm(8)), torch.randn(shape), torch.zeros(3), total_losses)
    both = scaled(nn.RMSNorm(shape[1:], eps=0.1))
    assert_agrees(both, torch.randn(shape), torch.zeros(3), total_losses)


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 5), (3, 6, 4, 5), (3, 6, 2, 4, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_group_norm(shape, groups):
    torch.manual_seed(0)
    model = scaled(nn.GroupNorm(groups, 6, eps=0.01))
    assert_agrees(model, 3 * torch.randn(shape) + 1, torch.zeros(3), total_losses)


@pytest.mark.parametrize(
    "layer", [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d], ids=lambda k: k.__name__
)
def test_instance_norm(layer):
    torch.manual_seed(0)
    shape = (3, 6, 4, 5, 2)[: 2 + int(layer.__name__[-2])]
    model = scaled(layer(6, affine=True, eps=0.01))
    assert_agrees(model, 3 * torch.randn(shape) + 1, torch.zeros(3), total_losses)


class ByName(nn.Module):
    """Calls its layer with a named argument, and changes the result in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.two(input=self.one(input=x).tanh()).relu_()


def test_calls_by_name_and_results_changed_in_place():
    torch.manual_seed(0)
    assert_agrees(ByName(), torch.randn(7, 4), torch.zeros(7), total_losses)


def test_rounding_never_makes_a_norm_of_nothing():
    """The gradients of the places cancel; a sum over pairs of places is then mere rounding."""
    torch.manual_seed(0)
    rule = ghost_norms.LinearRule("layer", nn.Linear(64, 64))
    a = torch.randn(200, 1, 64).repeat(1, 8, 1)
    g = torch.randn(200, 8, 64)
    g -= g.mean(1, keepdim=True)
    assert rule.norms_from(a, g).min() < 0
    rule.see_input(a)
    rule.see_output_gradient(g)
    assert rule.squared_norms(torch.Size([200])).min() == 0
