"""The clipped sum of any layer, frozen in part, called twice or tied, is that of a loop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.dpsgd import DPSGD, clip_factors

B = 4  # examples


def losses_of(model, inputs, targets):
    """Half the weighted squares of all outputs of an example."""
    outputs = model(inputs)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    outputs = outputs.flatten(1)
    return (outputs**2 * torch.linspace(0.5, 1.5, outputs.shape[1]).to(outputs)).sum(1) / 2


def by_loop(model, inputs, bound):
    """The clipped sums of all trained parameters by autograd on batches of one, and the norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    sums, norms = [torch.zeros_like(p) for p in trained], []
    for at in range(len(inputs)):
        loss = losses_of(model, inputs[at : at + 1], torch.zeros(1)).sum()
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found)]
        norms.append(torch.cat([g.flatten() for g in found]).norm())
        factor = clip_factors(norms[-1:][0], bound)
        sums = [total + factor * g for total, g in zip(sums, found)]
    return sums, torch.stack(norms)


def assert_sums_agree(model, inputs):
    """Some examples are clipped and some are not; frozen parameters get nothing."""
    model, inputs = model.double(), inputs.double() if inputs.is_floating_point() else inputs
    _, lengths = by_loop(model, inputs, 1.0)
    bound = float(lengths.median())
    expected, lengths = by_loop(model, inputs, bound)
    model.zero_grad()
    keeper = BookKeeper(model)
    with keeper.recording(len(inputs)):
        norms = keeper.norms(losses_of(model, inputs, None))
    torch.testing.assert_close(norms, lengths, rtol=1e-8, atol=1e-10)
    keeper.write_weighted_sum(clip_factors(norms.detach(), bound))
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter, total in zip(trained, expected):
        torch.testing.assert_close(parameter.grad, total, rtol=1e-7, atol=1e-9)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return keeper.layers


def shaken(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def frozen(model, *names):
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


IMAGE, SEQUENCE, ROW = (4, 6, 5), (4, 9), (6,)
FORMULA = {
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "depthwise": (lambda: nn.Conv2d(4, 8, (3, 2), groups=4, padding=1, stride=2), IMAGE),
    "grouped, by pairs": (lambda: nn.Conv2d(16, 64, 3, groups=2), (16, 4, 4)),
    "same": (lambda: nn.Conv2d(4, 3, (2, 3), padding="same", dilation=2), IMAGE),
    "valid": (lambda: nn.Conv2d(4, 3, 2, padding="valid"), IMAGE),
    "circular": (lambda: nn.Conv2d(4, 3, 3, padding=(1, 2), padding_mode="circular"), IMAGE),
    "reflect": (lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect", bias=False), IMAGE),
    "replicate": (lambda: nn.Conv1d(4, 3, 3, padding=2, padding_mode="replicate"), SEQUENCE),
    "Conv1d grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2, stride=2, padding=1), SEQUENCE),
    "Conv1d same": (lambda: nn.Conv1d(4, 6, 3, padding="same", dilation=3), SEQUENCE),
    "GroupNorm": (lambda: shaken(nn.GroupNorm(2, 4)), IMAGE),
    "LayerNorm, bias": (lambda: frozen(shaken(nn.LayerNorm(5)), "weight"), IMAGE),
    "LayerNorm, weight": (lambda: frozen(shaken(nn.LayerNorm(5)), "bias"), IMAGE),
    "Linear, bias": (lambda: frozen(nn.Linear(6, 3), "weight"), ROW),
    "Linear, weight": (lambda: frozen(nn.Linear(6, 3), "bias"), ROW),
    "Linear, bias of places": (lambda: frozen(nn.Linear(9, 3), "weight"), SEQUENCE),
    "Conv2d, bias": (lambda: frozen(nn.Conv2d(4, 3, 2), "weight"), IMAGE),
    "Conv2d, weight": (lambda: frozen(nn.Conv2d(4, 3, 2), "bias"), IMAGE),
    "head": (
        lambda: frozen(
            nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), "0.weight", "0.bias"
        ),
        ROW,
    ),
    "backbone": (
        lambda: frozen(
            nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), "2.weight", "2.bias"
        ),
        ROW,
    ),
}


@pytest.mark.parametrize("name", FORMULA)
def test_layers_with_a_formula(name):
    torch.manual_seed(0)
    make, shape = FORMULA[name]
    scale = torch.linspace(0.3, 2, B).view(-1, *[1] * len(shape))
    layers = assert_sums_agree(make(), torch.randn(B, *shape) * scale)
    assert not layers.whole


class Scale(nn.Module):
    """A norm as in Llama, whose parameter is used in forward."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """Self-attention with a mask that is the same for all examples."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = x.unflatten(1, (-1, 8))
        mask = torch.triu(torch.full((x.shape[1],) * 2, -torch.inf).to(x), 1)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


class Token(nn.Module):
    """A class token that is put in front, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.place = nn.ParameterList([torch.randn(1, 6)])
        self.mix = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x.unsqueeze(1) + self.place[0]], 1)
        return self.mix(x)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.layer(x.transpose(1, 2))[0][:, -1])


WHOLE = {
    "norm": (lambda: nn.Sequential(nn.Linear(6, 5), Scale(5), nn.Linear(5, 3)), ROW),
    "PReLU": (lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 3)), ROW),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2, groups=1), (2, 3, 4, 3)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 3, 2, stride=2), IMAGE),
    "attention": (Attention, (24,)),
    "token": (Token, ROW),
    "GRU": (lambda: Recurrent(nn.GRU), SEQUENCE),
    "LSTM": (lambda: Recurrent(nn.LSTM), SEQUENCE),
    "Bilinear": (lambda: Pairs(), ROW),
    "BatchNorm in eval mode": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5).eval()),
        ROW,
    ),
}


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Bilinear(6, 6, 3)

    def forward(self, x):
        return self.mix(x, x.cos())


@pytest.mark.parametrize("name", WHOLE)
def test_layers_without_a_formula(name):
    torch.manual_seed(0)
    make, shape = WHOLE[name]
    scale = torch.linspace(0.3, 2, B).view(-1, *[1] * len(shape))
    layers = assert_sums_agree(make(), torch.randn(B, *shape) * scale)
    assert layers.whole
    assert any("numbers an example" in how for how in layers.described().values())


class Twice(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x))) + self.layer(x.cos())


TWICE = {
    "Linear": (lambda: nn.Linear(6, 6), ROW),
    "Linear of places": (lambda: nn.Linear(9, 9), SEQUENCE),
    "LayerNorm": (lambda: shaken(nn.LayerNorm(6)), ROW),
    "Conv1d": (lambda: nn.Conv1d(4, 4, 3, padding=1), SEQUENCE),
    "norm": (lambda: Scale(6), ROW),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_layer_called_several_times(name):
    torch.manual_seed(0)
    make, shape = TWICE[name]
    assert_sums_agree(
        Twice(make()),
        torch.randn(B, *shape) * torch.linspace(0.3, 2, B).view(-1, *[1] * len(shape)),
    )


class Language(nn.Module):
    """Tokens, positions of any form, and a head that may be tied to the tokens' table."""

    def __init__(self, *, tied, positions="row", padding=None):
        super().__init__()
        self.tokens = nn.Embedding(9, 6, padding_idx=padding)
        self.places, self.positions = nn.Embedding(7, 6), positions
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 9)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids):
        places = torch.arange(ids.shape[1])
        places = {"vector": places, "row": places[None], "full": places.expand_as(ids)}
        return self.head(self.mix(self.tokens(ids) + self.places(places[self.positions])).tanh())


@pytest.mark.parametrize("positions", ["vector", "row", "full"])
@pytest.mark.parametrize("padding", [None, 0])
def test_tied_tables_and_positions(positions, padding):
    torch.manual_seed(0)
    ids = torch.randint(9, (B, 7))
    model = Language(tied=True, positions=positions, padding=padding)
    assert_sums_agree(shaken(model), ids)
    model.tokens.weight.requires_grad_(False)
    assert_sums_agree(model, ids)
    assert_sums_agree(shaken(Language(tied=False, positions=positions)), ids)


class Vision(nn.Module):
    """A transformer with a class token, positions and dropout between its layers."""

    def __init__(self, how="expand"):
        super().__init__()
        self.patches, self.head = nn.Conv2d(2, 6, 2, 2), nn.Linear(6, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.places = nn.Parameter(torch.randn(1, 5, 6))
        self.norm = nn.LayerNorm(6)
        self.how = how

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        token = (
            self.token.expand(len(x), -1, -1) if self.how == "expand" else self.token + 0 * x[:, :1]
        )
        x = torch.cat([token, x], 1) + self.places
        return self.head(self.norm(x)[:, 0] * self.places[:, :2].sum(1))


@pytest.mark.parametrize("how", ["expand", "broadcast"])
def test_parameters_with_one_row_that_a_block_uses_itself(how):
    torch.manual_seed(0)
    model = shaken(Vision(how))
    layers = assert_sums_agree(model, torch.randn(B, 2, 4, 4))
    assert not layers.whole
    assert isinstance(model.token, nn.Parameter)
    trainer = stepper(model.float())
    trainer.step(torch.arange(7), torch.randn(7, 2, 4, 4).__getitem__, torch.zeros(7))


def test_as_many_examples_as_positions():
    """A vector of positions is never taken for one token of each example."""
    torch.manual_seed(0)
    model = shaken(Language(tied=False, positions="vector")).double()
    keeper = BookKeeper(model)
    for count in (3, 7):
        ids = torch.randint(9, (count, 7))
        _, lengths = by_loop(model, ids, 1.0)
        with keeper.recording(count):
            norms = keeper.norms(losses_of(model, ids, None))
        torch.testing.assert_close(norms, lengths, rtol=1e-8, atol=1e-10)


def stepper(model, **changes):
    arguments = {
        "noise_multiplier": 1e-9,
        "max_grad_norm": 1.0,
        "expected_batch_size": 1,
        "max_physical_batch_size": 3,
        "losses": losses_of,
        **changes,
    }
    return DPSGD(model, torch.optim.SGD(model.parameters(), lr=1.0), **arguments)


@pytest.mark.parametrize("name", [*WHOLE, "tied"])
def test_whole_steps_with_all_checks(name):
    """The first batch's test passes, and the step is that of the loop; frozen weights stay."""
    torch.manual_seed(0)
    make, shape = WHOLE.get(name, (None, None))
    model = shaken(Language(tied=True)) if name == "tied" else make()
    inputs = torch.randint(9, (7, 5)) if name == "tied" else torch.randn(7, *shape)
    expected = copy.deepcopy(model)
    sums, _ = by_loop(expected, inputs, 1.0)
    trainer = stepper(model)
    trainer.step(torch.arange(7), inputs.__getitem__, torch.zeros(7))
    for before, after, total in zip(expected.parameters(), model.parameters(), sums):
        torch.testing.assert_close(after.detach(), before.detach() - total, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["positions", "mask"])
def test_what_all_examples_share_may_be_as_long_as_the_batch_of_the_checks(kind):
    """The checks compare five examples; here the sequences have five positions too."""
    torch.manual_seed(0)
    model = Attention() if kind == "mask" else Language(tied=False, positions="vector")
    inputs = torch.randn(7, 40) if kind == "mask" else torch.randint(9, (7, 5))
    trainer = stepper(model, max_physical_batch_size=6)
    trainer.step(torch.arange(7), inputs.__getitem__, torch.zeros(7))


def test_a_layer_that_draws_random_numbers_is_refused_by_name():
    class Noisy(Scale):
        def forward(self, x):
            return functional.dropout(super().forward(x), 0.5, self.training)

    model = nn.Sequential(nn.Linear(6, 5), Noisy(5))
    with pytest.raises(ValueError, match=r"Layer 1 draws random numbers.*dropout"):
        stepper(model).step(torch.arange(5), torch.randn(5, 6).__getitem__, torch.zeros(5))


def test_a_layer_whose_examples_come_second_is_refused_with_the_remedy():
    model = nn.Sequential(nn.Unflatten(1, (3, 4)), Swapped())
    with pytest.raises(ValueError, match="batch_first=True|separate"):
        stepper(model).step(torch.arange(5), torch.randn(5, 12).__getitem__, torch.zeros(5))


class Swapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(4, 5)

    def forward(self, x):
        return self.layer(x.transpose(0, 1))[0].transpose(0, 1)
