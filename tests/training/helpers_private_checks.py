"""Models that cannot be trained privately, each by one thing that its forward pass does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.stacked_step import StackedDPSGD


class Net(nn.Module):
    """Two layers; subclasses do something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def between(self, x):
        return x

    def forward(self, x):
        return self.b(torch.tanh(self.between(self.a(x))))


def net(name, between):
    """A class of Net that applies `between`."""
    return type(name, (Net,), {"between": lambda self, x: between(x)})


class _MeanBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g - g.mean(0)


class _LengthBackward(_MeanBackward):
    @staticmethod
    def backward(ctx, g):
        return g * len(g)


def _last_from_first(x):
    return torch.cat([x[:-1], x[-1:] + 0.1 * x[:1]]) if len(x) > 1 else x


def _mixup(x):
    share = torch.rand(1)
    return share * x + (1 - share) * x[torch.randperm(len(x))]


MIXING = {
    "batch norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "centred": lambda x: x - x.mean(0),
    "centred, detached": lambda x: x - x.mean(0).detach(),
    "a thousandth": lambda x: x + 1e-3 * x.mean(0),
    "attention": lambda x: (x @ x.T).softmax(1) @ x,
    "softmax over the batch": lambda x: x.softmax(0),
    "neighbours": lambda x: x + 0.1 * x.roll(1, 0),
    "one row only": _last_from_first,
    "largest value": lambda x: x / x.abs().max().clamp(min=5.0),
    "ranks": lambda x: x + x.argsort(0).argsort(0) / len(x),
    "large batches only": lambda x: x - x.mean(0) if len(x) > 40 else x,
    "small batches only": lambda x: x - x.mean(0) if 1 < len(x) < 4 else x,
    "parts of a batch": lambda x: torch.cat([part - part.mean(0) for part in x.split(4)]),
    "noise": lambda x: x + (x.std(0) if len(x) > 1 else 1) * torch.randn_like(x),
    "chance": lambda x: torch.where(torch.rand(len(x), 1) < 0.5, x, x.roll(1, 0)),
    "mixup": _mixup,
    "draws that depend on data": lambda x: functional.rrelu(x + 0.01 * x.mean(0), training=True),
}
BY_LENGTH = {
    "divided by the length": lambda x: x / len(x),
    "length and dropout": lambda x: functional.dropout(x, 0.2) * (1 + 0.1 * len(x)),
    "alone": lambda x: 2 * x if len(x) == 1 else x,
}
BACKWARD = {
    "mean": _MeanBackward.apply,
    "length": _LengthBackward.apply,
    "length and dropout": lambda x: _LengthBackward.apply(functional.dropout(x, 0.2)),
}


class RunningStatistics(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("variance", torch.ones(8))

    def between(self, x):
        return functional.batch_norm(x, self.mean, self.variance, training=len(x) > 1)


class CountingBuffer(Net):
    seen: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.tensor(0))

    def between(self, x):
        self.seen += 1
        return x


class ReplacedBuffer(Net):
    mean: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8), persistent=False)

    def between(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x


class Counter(Net):
    calls = 0

    def between(self, x):
        self.calls += 1
        return x


class Queue(Net):
    def __init__(self):
        super().__init__()
        self.queue: list[Tensor] = []

    def between(self, x):
        self.queue.append(x.detach())
        return x


class Memory(Net):
    def __init__(self):
        super().__init__()
        self.last = [torch.zeros(8)]

    def between(self, x):
        y = x + 0.1 * self.last[0]
        self.last = [x.detach().mean(0)]
        return y


_elsewhere: dict[int, Tensor] = {}


class MemoryElsewhere(Net):
    def between(self, x):
        y = x + 0.1 * _elsewhere.get(id(self), torch.zeros(8))
        _elsewhere[id(self)] = x.detach().mean(0)
        return y


class OwnGenerator(Net):
    def __init__(self):
        super().__init__()
        self.draws = torch.Generator()

    def between(self, x):
        return x + torch.randn(x.shape, generator=self.draws)


class ShrinkingWeight(Net):
    def between(self, x):
        self.b.weight.data.mul_(0.999)
        return x


class NormalisedWeight(Net):
    def between(self, x):
        with torch.no_grad():
            self.b.weight.div_(self.b.weight.norm())
        return x


class SpectralNorm(Net):
    def __init__(self):
        super().__init__()
        self.a = nn.utils.spectral_norm(self.a)


WRITING = [
    (RunningStatistics, "Buffer mean is changed by the forward pass"),
    (CountingBuffer, "Buffer seen is changed"),
    (ReplacedBuffer, "Buffer mean is changed"),
    (ShrinkingWeight, r"Parameter b\.weight is changed by the forward pass"),
    (NormalisedWeight, r"Parameter b\.weight is changed"),
    (SpectralNorm, r"Buffer a\.weight_u is changed"),
    (Counter, "Attribute calls of the model changes"),
    (Queue, "Attribute queue of the model changes"),
    (OwnGenerator, "Attribute draws of the model changes"),
    (Memory, "losses of a batch change from one forward pass to the next|Attribute last"),
    (MemoryElsewhere, "losses of a batch change from one forward pass to the next"),
]


class Tokens(nn.Module):
    """The mean of its tokens' embeddings, classified."""

    records = "tokens"

    def __init__(self, **options):
        super().__init__()
        self.table, self.out = nn.Embedding(10, 8, **options), nn.Linear(8, 4)

    def forward(self, ids):
        return self.out(torch.tanh(self.table(ids).mean(1)))


class TokensTwice(Tokens):
    """The embeddings again, by a function with an option."""

    def __init__(self, **again):
        super().__init__()
        self.again = again

    def forward(self, ids):
        second = functional.embedding(ids, self.table.weight, **self.again)
        return self.out(torch.tanh((self.table(ids) + second).mean(1)))


class WeightOutside(nn.Module):
    """tanh(a(x)) through b, and x through a's weight by a function."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8, bias=False), nn.Linear(8, 8)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))) + functional.linear(x, self.a.weight)


class WeightAgain(Net):
    def forward(self, x):
        hidden = torch.tanh(self.a(x))
        return self.b(hidden) + functional.linear(2 * hidden, self.b.weight)


class GradientHook(Net):
    def __init__(self):
        super().__init__()
        self.a.weight.register_hook(lambda gradient: 3 * gradient)


class ScaledByWeight(Net):
    def forward(self, x):
        return super().forward(x) * (1 + self.a.weight.square().mean())


class OtherForward(Net):
    def __init__(self):
        super().__init__()
        layer = self.b
        layer.forward = lambda x: functional.linear(x, 2 * layer.weight, layer.bias)


UNCLIPPED = {
    WeightOutside: r"a\.weight",
    WeightAgain: r"b\.weight",
    GradientHook: r"a\.weight",
    ScaledByWeight: r"a\.weight",
    OtherForward: r"b\.weight",
}


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.c = nn.Linear(3, 3)


class WithoutGradient(Net):
    def forward(self, x):
        with torch.no_grad():
            below = self.a(x)
        return self.b(torch.tanh(below))


def data(model, count=60, seed=0):
    """Inputs and labels that a model takes: `records` is "tokens" or a record's shape."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    records = getattr(model, "records", (6,))
    if records == "tokens":
        ids = torch.randint(1, 10, (count, 7), generator=generator)
        lengths = torch.randint(1, 8, (count, 1), generator=generator)
        return torch.where(torch.arange(7) < lengths, ids, 0), labels
    return 2 * torch.randn(count, *records, generator=generator), labels


def values(model):
    """Copies of all weights and buffers."""
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers())]


def trainer_of(model, mode="bookkeeping", *, size=100, norm=1.0, optimizer=torch.optim.SGD):
    return DPSGD(
        model,
        optimizer(model.parameters(), lr=0.1),
        noise_multiplier=1.0,
        max_grad_norm=norm,
        expected_batch_size=8,
        max_physical_batch_size=size,
        grad_sample_mode=mode,
        noise_generator=torch.Generator().manual_seed(5),
    )


def refused(model, mode, message, *, size=100, batch=20):
    """A step on real data raises ValueError, and moves nothing."""
    before, names = values(model), [name for name, _ in model.named_parameters()]
    inputs, labels = data(model)
    with pytest.raises(ValueError, match=message):
        trainer_of(model, mode, size=size).step(torch.arange(batch), inputs.__getitem__, labels)
    assert all(map(torch.equal, before, values(model)))
    assert names == [name for name, _ in model.named_parameters()]


def stack_trainer(stacked):
    """A private trainer of a stack of three, inputs of 30 records of each model, and labels."""
    trainer = StackedDPSGD(
        stacked,
        torch.optim.SGD(stacked.parameters(), lr=1.0),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=4,
        max_physical_batch_size=40,
        noise_generators=[torch.Generator().manual_seed(i) for i in range(3)],
    )
    x, labels = torch.randn(3, 30, 6), torch.randint(3, (3, 30))
    rows = torch.arange(3).unsqueeze(1)
    return trainer, lambda positions: x[rows, positions].flatten(0, 1), labels
