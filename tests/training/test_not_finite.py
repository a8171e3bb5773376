"""One record moves the clipped sum by C at most, also if its values or gradients are not finite."""

import pytest
import torch
from torch import nn

from mico_competition.models.architectures import MLP
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import DPSGD, GRAD_SAMPLE_MODES
from mico_competition.training.layer_rule import not_negative
from mico_competition.training.stacked_model import stacked as stack_of
from mico_competition.training.stacked_step import StackedDPSGD

NORM, BAD = 1.5, 3
VALUES = [1e20, 1e38, float("inf"), float("-inf"), float("nan")]


class Block(nn.Module):
    """A parameter of one row, beside a layer."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 5, 6))
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(x + self.place).mean(1)


class Scaled(nn.Module):
    """A layer without a formula."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x):
        return x * self.scale


class Tied(nn.Module):
    """An embedding and a linear layer with one weight; the record's values scale the result."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(6, 6), nn.Linear(6, 6)
        self.linear.weight = self.embedding.weight

    def forward(self, x):
        tokens = torch.arange(6).expand(len(x), 6)
        return self.linear(self.embedding(tokens).mean(1) * x)


MODELS = {
    "linear": ((6,), lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))),
    "positions": (
        (9, 6),
        lambda: nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Flatten(), nn.Linear(180, 4)),
    ),
    "pairs": ((2, 6), lambda: nn.Sequential(nn.Linear(6, 8), nn.Flatten(), nn.Linear(16, 4))),
    "norms": ((6,), lambda: nn.Sequential(nn.LayerNorm(6), nn.RMSNorm(6), nn.Linear(6, 4))),
    "convolution": (
        (2, 6, 6),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)
        ),
    ),
    "one row": ((5, 6), Block),
    "whole": ((6,), lambda: nn.Sequential(Scaled(), nn.Linear(6, 4))),
    "tied": ((6,), Tied),
}


def squared(model, inputs, targets):
    return (model(inputs) - targets).square().sum(1)


def trainer_of(model, mode="bookkeeping", losses=None):
    return DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=NORM,
        expected_batch_size=4,
        max_physical_batch_size=100,
        grad_sample_mode=mode,
        losses=losses,
    )


def sums(trainer, inputs, labels):
    """The clipped sum of a batch, as the optimizer accumulates it."""
    return torch.cat([s.flatten() for s in trainer._clipped_sum(Batch(inputs, labels), NORM).sums])


def check(trainer, inputs, labels):
    """The record BAD moves the sum by C at most; the others still contribute."""
    others = torch.arange(len(labels)) != BAD
    without = sums(trainer, inputs[others], labels[others])
    moved = (sums(trainer, inputs, labels) - without).double().norm()
    assert without.norm() > 0 and moved <= NORM * (1 + 1e-5)
    alone = sums(trainer, inputs[BAD : BAD + 1], labels[BAD : BAD + 1])
    assert alone.double().norm() <= NORM * (1 + 1e-5)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, "bookkeeping") for kind in MODELS] + [("linear", m) for m in GRAD_SAMPLE_MODES[1:]],
)
def test_a_record_with_values_that_are_not_finite(kind, mode, value):
    torch.manual_seed(0)
    shape, build = MODELS[kind]
    trainer = trainer_of(build(), mode)
    inputs, labels = torch.randn(7, *shape), torch.randint(4, (7,))
    inputs[BAD].view(-1)[2] = value
    check(trainer, inputs, labels)


@pytest.mark.parametrize("target", [3e38, float("inf"), float("nan")])
@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_a_loss_that_is_not_finite(mode, target):
    torch.manual_seed(0)
    trainer = trainer_of(MODELS["linear"][1](), mode, squared)
    inputs, targets = torch.randn(7, 6), torch.randn(7, 4)
    targets[BAD, 1] = target
    check(trainer, inputs, targets)


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_a_step_on_such_a_record_leaves_finite_weights(mode):
    torch.manual_seed(0)
    model = MODELS["linear"][1]()
    trainer = trainer_of(model, mode)
    inputs, labels = torch.randn(7, 6), torch.randint(4, (7,))
    inputs[BAD, 2] = float("nan")
    before = [p.detach().clone() for p in model.parameters()]
    for batch in [torch.tensor([0, 1, 2]), torch.arange(7), torch.tensor([BAD])]:
        trainer.step(batch, inputs.__getitem__, labels)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_such_a_record_in_the_first_batch(mode):
    """If it is refused, then by a clear sentence; otherwise the weights stay finite."""
    for value in (1e20, float("nan")):
        torch.manual_seed(0)
        model = MODELS["linear"][1]()
        inputs = torch.randn(3, 6)
        inputs[0, 2] = value
        try:
            trainer_of(model, mode).step(torch.arange(3), inputs.__getitem__, torch.arange(3))
        except ValueError as error:
            assert "in the first batch is not finite: look for values" in str(error)
        else:
            assert value == 1e20
        assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("value", VALUES)
def test_in_a_stack(value):
    """The models of a stack stay apart, and padding repeats record 0 without its values."""
    torch.manual_seed(0)
    model = stack_of([MLP(6, 8, 4) for _ in range(3)])
    trainer = StackedDPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=NORM,
        expected_batch_size=4,
        max_physical_batch_size=100,
        noise_generators=[torch.Generator().manual_seed(i) for i in range(3)],
    )
    x, labels = torch.randn(3, 5, 6), torch.randint(4, (3, 5))

    def sums(x, labels):
        made = trainer._clipped_sum(Batch(x.flatten(0, 1), labels.flatten(), 3), NORM).sums
        return torch.cat([part.reshape(3, -1).clone() for part in made], 1)

    expected = sums(x[:, 1:], labels[:, 1:])
    x[1, 0, 2] = value
    moved = (sums(x, labels) - expected).double().norm(dim=1)
    assert moved[1] <= NORM * (1 + 1e-5) and expected.isfinite().all()
    rows = torch.arange(3).unsqueeze(1)
    losses = []
    for batches in ([1, 2], [2, 3], [3, 4]), ([1, 2], [1], [1, 3, 4]):  # the last are padded
        given = [torch.tensor(batch) for batch in batches]
        losses.append(trainer.step(given, lambda at: x[rows, at].flatten(0, 1), labels))
    assert torch.stack(losses).isfinite().all()
    assert all(p.isfinite().all() for p in model.parameters())


def test_an_overflow_below_zero_is_no_norm_of_zero():
    given = torch.tensor([-1e-9, 2.0, -torch.inf, torch.nan, torch.inf])
    inf = torch.inf
    assert torch.equal(not_negative(given), torch.tensor([0.0, 2.0, inf, inf, inf]))


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trained_parameters_in_half_precision_are_refused(mode, dtype):
    model = MODELS["linear"][1]()
    model[2].to(dtype)
    with pytest.raises(ValueError, match=r"2\.weight .*float16.*call model\.float\(\)"):
        trainer_of(model, mode)


class Frozen(nn.Module):
    """A frozen body in half precision, and a head in float32."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 8).to(torch.bfloat16).requires_grad_(False)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x.to(torch.bfloat16)).tanh().float())


@pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)
def test_a_frozen_body_may_stay_in_half_precision(mode):
    torch.manual_seed(0)
    model = Frozen()
    before = model.head.weight.detach().clone()
    inputs, labels = torch.randn(7, 6), torch.randint(4, (7,))
    trainer_of(model, mode).step(torch.arange(7), inputs.__getitem__, labels)
    assert model.head.weight.isfinite().all() and not torch.equal(before, model.head.weight)
