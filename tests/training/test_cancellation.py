"""One record moves the clipped sum by C at most, also if the positions of its gradient cancel.

A squared norm as a sum over pairs of positions is then mere rounding, and might come out as 0.
"""

import copy

import pytest
import torch
from torch import nn

from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import DPSGD

NORM = 1.0
SIZES = {torch.float32: (1e7, 3e3), torch.float64: (1e15, 1e7)}  # of positions, and of their sum


class Mean(nn.Module):
    """A layer on positions, their mean, and a head that sees nothing of the cancelling part."""

    def __init__(self, layer, *, channels_first=False):
        super().__init__()
        self.layer, self.head, self.channels_first = layer, nn.Linear(16, 3), channels_first

    def forward(self, x):
        if self.channels_first:
            return self.head(self.layer(x).flatten(2).mean(2))
        return self.head(self.layer(x).mean(1))


def cancelling(dtype, weight, positions, generator):
    """A record [positions, 64] whose first two positions cancel but for a short rest."""
    null = torch.linalg.svd(weight.double())[2][len(weight) :]
    large, rest = SIZES[dtype]
    towards, left = (torch.randn(len(null), generator=generator).double() @ null for _ in range(2))
    record = torch.zeros(positions, 64, dtype=torch.float64)
    record[0], record[1] = left * rest - towards * large, towards * large
    return record.to(dtype)


def clipped(model, mode, x, labels):
    """The clipped sum of a batch, float64[numbers], and the norms that bookkeeping finds."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = DPSGD(
        model,
        optimizer,
        noise_multiplier=1.0,
        max_grad_norm=NORM,
        expected_batch_size=1,
        max_physical_batch_size=64,
        grad_sample_mode=mode,
    )
    made = trainer._clipped_sum(Batch(x, labels), NORM)
    return torch.cat([part.double().flatten() for part in made.sums])


def linear():
    return Mean(nn.Linear(64, 16)), lambda record: record, lambda m: m.layer.weight


def wide():  # the gradient itself costs less than pairs
    return Mean(nn.Linear(64, 16)), lambda record: record, lambda m: m.layer.weight


def conv1d():
    model = Mean(nn.Conv1d(64, 16, 1), channels_first=True)
    return model, lambda record: record.T, lambda m: m.layer.weight[:, :, 0]


def conv2d():
    model = Mean(nn.Conv2d(64, 16, 1), channels_first=True)
    return model, lambda record: record.T.unsqueeze(2), lambda m: m.layer.weight[:, :, 0, 0]


CASES = {"linear": (linear, 4), "wide": (wide, 40), "conv1d": (conv1d, 4), "conv2d": (conv2d, 4)}


@pytest.mark.parametrize("dtype", list(SIZES))
@pytest.mark.parametrize(
    ("mode", "case"), [("bookkeeping", case) for case in CASES] + [("ghost", "linear")]
)
def test_a_record_whose_positions_cancel_is_clipped(mode, case, dtype):
    make, positions = CASES[case]
    torch.manual_seed(0)
    model, shaped, weight_of = make()
    model.to(dtype)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        record = cancelling(dtype, weight_of(model).detach(), positions, generator)
        together = torch.randn(4, *record.shape, generator=generator).to(dtype)
        together[2] = record
        x, labels = torch.stack([shaped(each) for each in together]), torch.arange(4) % 3
        others = torch.tensor([0, 1, 3])
        moved = clipped(copy.deepcopy(model), mode, x, labels) - clipped(
            copy.deepcopy(model), mode, x[others], labels[others]
        )
        assert moved.norm() <= 1.001 * NORM


class Words(nn.Module):
    """An embedding of tokens, tied to the output layer or not, whose sum the record scales."""

    def __init__(self, *, tied):
        super().__init__()
        self.embedding, self.out = nn.Embedding(6, 64), nn.Linear(64, 6, bias=False)
        self.tied = tied
        if tied:
            self.out.weight = self.embedding.weight

    def forward(self, x):  # each token twice; the record says how much each counts
        tokens = torch.arange(6).repeat(2).expand(len(x), 12)
        return self.out((self.embedding(tokens) * x.unsqueeze(2)).sum(1) / 1e3)


@pytest.mark.parametrize("tied", [False, True])
def test_tokens_that_cancel(tied):
    """The gradient is that of a copy in double precision, clipped."""
    torch.manual_seed(0)
    model = Words(tied=tied)
    x = torch.randn(3, 12)
    x[1, :6], x[1, 6:] = 1e6, torch.tensor([-1e6 + 16.0 * k for k in range(1, 7)])
    labels = torch.arange(3)
    double = copy.deepcopy(model).double()
    made = clipped(model, "bookkeeping", x, labels)
    wanted = clipped(double, "bookkeeping", x.double(), labels)
    assert (made - wanted).norm() < 5e-3


def test_the_gradients_of_two_tied_layers_cancel():
    """The first part of the norm is that of the embedding, the second that of the linear layer."""

    class Opposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
            self.linear.weight = self.embedding.weight

        def forward(self, x):  # both gradients are the same, but for the sign and a short rest
            of_tokens = self.embedding(torch.arange(4).expand(len(x), 4))
            of_linear = self.linear(torch.eye(4).to(x).expand(len(x), 4, 4))
            return (of_tokens * x).flatten(1).sum(1) - (of_linear * (x + 0.5).mT).flatten(1).sum(1)

    torch.manual_seed(0)
    model, x = Opposed(), torch.randn(5, 4, 4)
    x[2] *= 1e6
    x[2] = x[2].round()
    wanted = torch.full((4, 4), -0.5)
    keeper = BookKeeper(model)
    with keeper.recording(5):
        losses = model(x)
        norms = keeper.norms(losses)
    assert torch.allclose(norms[2], wanted.norm(), rtol=0.2)
    keeper.write_weighted_sum(torch.eye(5)[2] / norms[2])
    assert model.embedding.weight.grad.norm() == pytest.approx(1.0, abs=1e-3)


def test_other_examples_are_not_set_apart():
    """The sum over pairs keeps its digits for ordinary records, and the batch is one product."""
    torch.manual_seed(0)
    model = Mean(nn.Linear(64, 16))
    keeper = BookKeeper(model)
    with keeper.recording(8):
        losses = nn.functional.cross_entropy(
            model(torch.randn(8, 4, 64)), torch.arange(8) % 3, reduction="none"
        )
        keeper.norms(losses)
    assert not keeper._apart


def test_large_factors_do_not_hide_small_ones():
    """A square below the least float counts as 0, and must not leave a long gradient unclipped."""
    torch.manual_seed(0)
    model = nn.Linear(1000, 2)
    keeper = BookKeeper(model)
    x = torch.full((1, 1000), 5e17)
    with keeper.recording(1):
        norms = keeper.norms((model(x) * 1e-23).sum(1))
    keeper.write_weighted_sum(torch.where(norms.isfinite(), 1.0, 0.0))
    assert model.weight.grad.norm() <= norms[0] * 1.001 or not model.weight.grad.any()
