"""Faults that a first batch, first weights or a length hide from a glance at the model."""

from typing import Any

import pytest
import torch
from helpers_private_checks import Net, Tokens, data, refused, stack_trainer, trainer_of, values
from torch import nn
from torch.nn import functional

from mico_competition.models.architectures import MLP
from mico_competition.training.dpsgd import GRAD_SAMPLE_MODES
from mico_competition.training.stacked_model import stacked as stack_of

EVERY_MODE = pytest.mark.parametrize("mode", GRAD_SAMPLE_MODES)


# -- what is made of the first batch, and kept -------------------------------------------------


class FirstMean(Net):
    """Subtracts the mean of the first batch it has seen, as data-dependent initialisation does."""

    mean: torch.Tensor | None = None

    def between(self, x):
        if self.mean is None:
            self.mean = x.detach().mean(0)
        return x - self.mean


class FirstNumber(FirstMean):
    def between(self, x):
        if self.mean is None:
            self.mean = float(x.detach().mean())
        return x - self.mean


class FirstInPlace(Net):
    def __init__(self):
        super().__init__()
        self.mean, self.ready = torch.zeros(8), []

    def between(self, x):
        if not self.ready:
            self.mean.copy_(x.detach().mean(0))
            self.ready.append(True)
        return x - self.mean


class FirstInDict(Net):
    def __init__(self):
        super().__init__()
        self.kept: dict[str, torch.Tensor] = {}

    def between(self, x):
        return x - self.kept.setdefault("mean", x.detach().mean(0))


class FirstInObject(Net):
    class Holder:
        pass

    def __init__(self):
        super().__init__()
        self.holder = self.Holder()

    def between(self, x):
        if not hasattr(self.holder, "mean"):
            self.holder.mean = x.detach().mean(0)
        return x - self.holder.mean


class LargestSoFar(Net):
    largest = 0.1

    def between(self, x):
        self.largest = max(self.largest, float(x.detach().abs().max()))
        return x / self.largest


class MeanByLength(FirstInDict):
    def between(self, x):
        return x - self.kept.setdefault(str(len(x)), x.detach().mean(0))


FIRST = [
    FirstMean,
    FirstNumber,
    FirstInPlace,
    FirstInDict,
    FirstInObject,
    LargestSoFar,
    MeanByLength,
]


@pytest.mark.parametrize("kind", FIRST, ids=lambda kind: kind.__name__)
def test_what_a_first_batch_leaves_in_the_model_is_refused(kind):
    torch.manual_seed(0)
    refused(kind(), "bookkeeping", "changes with the others of its batch")


@EVERY_MODE
def test_in_every_mode(mode):
    torch.manual_seed(0)
    refused(FirstMean(), mode, "changes with the others of its batch")


def test_what_a_first_pass_keeps_elsewhere_is_made_of_no_data():
    kept = []

    class FirstElsewhere(Net):
        def between(self, x):
            if not kept:
                kept.append(x.detach().mean(0))
            return x - kept[0]

    means = []
    for seed in (0, 1):
        torch.manual_seed(0)
        kept.clear()
        model = FirstElsewhere()
        inputs, labels = data(model, seed=seed)
        trainer_of(model).step(torch.arange(20), inputs.__getitem__, labels)
        means.append(kept[0])
    assert torch.equal(*means)


# -- what first weights hide -------------------------------------------------------------------


class ZeroBranch(Net):
    """Mixes examples in a branch that two layers of zeros keep out of loss and gradients."""

    def __init__(self):
        super().__init__()
        self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 8)
        for parameter in (*self.c.parameters(), *self.d.parameters()):
            nn.init.zeros_(parameter)

    def between(self, x):
        return x + self.d(self.c(x - x.mean(0)))


class ZeroHead(Net):
    """The same with one, below a head of zeros."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(8, 8)
        for parameter in (*self.c.parameters(), self.b.weight):
            nn.init.zeros_(parameter)

    def between(self, x):
        return x + self.c(x - x.mean(0))


class ZeroOutside(Net):
    """A weight used by a function, whose result a layer of zeros multiplies."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(8, 4)
        nn.init.zeros_(self.c.weight)

    def forward(self, x):
        return super().forward(x) + self.c(functional.linear(x, self.a.weight))


@EVERY_MODE
def test_zero_weights_hide_nothing(mode):
    torch.manual_seed(0)
    refused(ZeroBranch(), mode, "changes with the others of its batch")
    refused(ZeroHead(), mode, "changes with the others of its batch")
    refused(ZeroOutside(), mode, r"Parameter a\.weight cannot be clipped")


# -- stacks ------------------------------------------------------------------------------------


class _FirstMeans(nn.Module):
    means = None

    def forward(self, x):
        if self.means is None:
            self.means = x.detach().mean(0, keepdim=True)
        return torch.tanh(x - self.means)


def test_a_stack_that_keeps_its_first_batch_is_refused():
    torch.manual_seed(0)
    stacked: Any = stack_of([MLP(6, 5, 3) for _ in range(3)])
    stacked.mlp[1] = _FirstMeans()
    trainer, inputs, labels = stack_trainer(stacked)
    before = values(stacked)
    with pytest.raises(ValueError, match="changes with the others of its batch"):
        trainer.step([torch.arange(9)] * 3, inputs, labels)
    assert all(map(torch.equal, before, values(stacked)))
    assert stacked.mlp[1].means is None


# -- lengths, shapes, gradients that stop ------------------------------------------------------


@pytest.mark.parametrize("every", [4, 5, 6, 7])
def test_mixing_at_some_lengths_only_is_refused(every):
    class Some(Net):
        def between(self, x):
            return x - x.mean(0) if len(x) % every == 0 else x

    torch.manual_seed(0)
    refused(Some(), "bookkeeping", "the others of its batch|in a batch of . than alone", batch=9)


def test_padding_cut_to_the_longest_of_the_batch_is_refused_in_a_sentence():
    class Cut(Tokens):
        def forward(self, ids):
            return super().forward(ids[:, (ids != 0).any(0)])

    torch.manual_seed(0)
    refused(Cut(), "bookkeeping", "with the others of its batch|another loss in a batch of 2")


@EVERY_MODE
def test_a_parameter_frozen_by_the_forward_pass_is_refused_by_name(mode):
    class Freezing(Net):
        def between(self, x):
            self.b.weight.requires_grad_(False)
            return x

    refused(Freezing(), mode, r"Parameter b\.weight is frozen by the forward pass")


@EVERY_MODE
def test_a_parameter_frozen_between_steps_is_refused_by_name(mode):
    model = Net()
    inputs, labels = data(model)
    trainer = trainer_of(model, mode)
    trainer.step(torch.arange(9), inputs.__getitem__, labels)
    model.b.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"Parameter b\.weight is frozen"):
        trainer.step(torch.arange(9), inputs.__getitem__, labels)


def test_what_opacus_cannot_add_noise_to_is_refused_in_a_sentence():
    torch.manual_seed(0)
    refused(Tokens(sparse=True), "ghost", r"table\.weight has a sparse gradient")


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_a_layer_over_which_opacus_stumbles_is_refused_in_a_sentence(mode):
    class Bags(Tokens):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(10, 8)

        def forward(self, ids):
            return self.out(torch.tanh(self.table(ids)))

    refused(Bags(), mode, f"grad_sample_mode {mode} cannot train this model|no per-example gradi")
