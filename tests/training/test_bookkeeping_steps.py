"""Steps by book-keeping are those of Opacus' hooks; what cannot be clipped is refused by name."""

import copy

import pytest
import torch
from helpers_bookkeeping import KINDS, TINY_NOISE, gradients_by_loop, make, norms_of, rows
from torch import nn
from torch.utils.checkpoint import checkpoint

from mico_competition.models.architectures import MLP
from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.dpsgd import DPSGD

# -- steps ------------------------------------------------------------------------------------


def trainer_of(model, *, lr=0.5, sigma=TINY_NOISE, norm=1.0, size=100, mode="bookkeeping"):
    return DPSGD(
        model,
        torch.optim.SGD(model.parameters(), lr=lr),
        noise_multiplier=sigma,
        max_grad_norm=norm,
        expected_batch_size=4,
        max_physical_batch_size=size,
        grad_sample_mode=mode,
        noise_generator=torch.Generator().manual_seed(5),
    )


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stepped(model, inputs, labels, **options):
    """How far one step over all examples takes a copy of the model."""
    mine = copy.deepcopy(model)
    trainer = trainer_of(mine, **options)
    trainer.step(torch.arange(len(labels)), lambda index: rows(inputs, index), labels)
    return flat(mine) - flat(model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_opacus_hooks(kind, tmp_path):
    """From the same weights, over 7 examples in physical batches of 3; the noise is the same."""
    model, inputs, labels = make(kind, tmp_path, batch=7)
    norm = float(norms_of(gradients_by_loop(model, inputs, labels)).mean())
    for sigma in (TINY_NOISE, 0.1):
        mine = stepped(model, inputs, labels, norm=norm, sigma=sigma, size=3)
        theirs = stepped(model, inputs, labels, norm=norm, sigma=sigma, mode="hooks")
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_is_a_step_of_noise(kind, tmp_path):
    model, inputs, labels = make(kind, tmp_path, batch=2)
    before = flat(model)
    total = trainer_of(model, sigma=2.0, norm=3.0, lr=1.0).step(
        torch.arange(0), lambda index: rows(inputs, index), labels
    )
    assert total == 0
    moved = flat(model) - before
    # sigma C / L, within five standard errors of a normal sample's deviation.
    assert abs(float(moved.std()) / (2.0 * 3.0 / 4) - 1) < 5 / (2 * moved.numel()) ** 0.5


class Checkpointed(nn.Module):
    """A model whose middle layers may run again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(6, 8), False
        self.middle, self.last = nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), nn.Linear(8, 4)

    def forward(self, x):
        hidden = self.first(x)
        if self.again:
            return self.last(checkpoint(self.middle, hidden, use_reentrant=False))
        return self.last(self.middle(hidden))


def test_activation_checkpoints_change_nothing():
    torch.manual_seed(0)
    model, inputs, labels = Checkpointed(), torch.randn(7, 6), torch.arange(7) % 4
    plain = stepped(model, inputs, labels, norm=0.5)
    model.again = True
    torch.testing.assert_close(stepped(model, inputs, labels, norm=0.5), plain)


def test_a_frozen_parameter_with_a_gradient_of_before_stays_as_it_is():
    """Its gradient has no noise, and the optimizer would take a step with it."""
    torch.manual_seed(0)
    model = MLP(6, 8, 4)
    inputs, labels = torch.randn(7, 6), torch.arange(7) % 4
    nn.functional.cross_entropy(model(inputs), labels).backward()
    frozen = next(model.parameters()).requires_grad_(False)
    before = frozen.detach().clone()
    trainer_of(model).step(torch.arange(7), inputs.__getitem__, labels)
    assert torch.equal(frozen, before) and frozen.grad is None


# -- refusals ---------------------------------------------------------------------------------


def shared_parameter():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (shared_parameter(), r"2\.weight is shared with 0\.weight"),
        (nn.Sequential(nn.Embedding(4, 4, max_norm=1.0)), r"Layer 0 \(Embedding\).*max_norm"),
        (nn.Sequential(nn.Embedding(4, 4, sparse=True)), r"Layer 0 \(Embedding\).*sparse"),
        (nn.Sequential(nn.Embedding(4, 4, scale_grad_by_freq=True)), r"Layer 0 \(Embedding\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_models_that_cannot_be_clipped_are_refused_at_once(model, message):
    with pytest.raises(ValueError, match=message):
        BookKeeper(model)
    with pytest.raises(ValueError, match="cannot be trained privately|" + message):
        trainer_of(model)  # Opacus has its say first


class Switched(nn.Module):
    """Three layers, used in an order that `way` names."""

    def __init__(self, way="plain"):
        super().__init__()
        self.way = way
        self.one, self.two, self.three = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return getattr(self, self.way)(x)

    def plain(self, x):
        return self.three(self.two(self.one(x).tanh()).tanh())

    def left_out(self, x):
        return self.three(self.one(x))

    def unused(self, x):
        self.two(x)
        return self.three(self.one(x))

    def without_gradient(self, x):
        with torch.no_grad():
            below = self.one(x)
        return self.three(self.two(below))

    def nothing(self, x):
        with torch.no_grad():
            return self.plain(x)

    def by_weight(self, x):
        return self.three(nn.functional.linear(self.one(x), self.two.weight, self.two.bias))

    def flattened(self, x):
        places = self.two(torch.stack([x, x + 1], 1).view(-1, 6))
        return self.three(self.one(x) + places.view(-1, 2, 6).sum(1))

    def pooled(self, x):
        return self.three(self.one(x) + self.two(x.mean(0, keepdim=True)))

    def in_place(self, x):
        below = self.one(x) * 1
        above = self.two(below)
        below.mul_(0.5)
        return self.three(above + below)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("left_out", "Layer two takes no part in the loss"),
        ("unused", "Layer two takes no part in the loss"),
        ("without_gradient", "Layer one takes no part in the loss"),
        ("nothing", "Layer one takes no part in the loss"),
        ("by_weight", "Layer two takes no part in the loss"),
        ("flattened", "Layer two sees 6 rows in a batch of 3 examples"),
        ("pooled", "Layer two sees 1 rows in a batch of 3 examples"),
        ("in_place", "Layer two had its input changed in place"),
    ],
)
def test_what_cannot_be_clipped_is_refused_in_mid_step(way, message):
    """In the second of three physical batches; nothing is trained, and a mended model goes on."""
    torch.manual_seed(0)
    model, inputs, labels = Switched(), torch.randn(7, 6), torch.randint(4, (7,))
    expected = stepped(model, inputs, labels, size=3, norm=0.5, sigma=0.1)
    before = flat(model)
    trainer = trainer_of(model, size=3, norm=0.5, sigma=0.1)
    calls = []

    def spoilt_later(index):
        calls.append(index)
        model.way = way if len(calls) == 2 else "plain"
        return inputs[index]

    with pytest.raises(ValueError, match=message):
        trainer.step(torch.arange(7), spoilt_later, labels)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(flat(model), before)
    model.way = "plain"
    trainer.step(torch.arange(7), inputs.__getitem__, labels)
    torch.testing.assert_close(flat(model) - before, expected)


def test_an_error_of_the_models_own_leaves_parameters_trainable():
    model = MLP(6, 8, 4)
    trainer = trainer_of(model)
    with pytest.raises(ValueError, match=r"MLP does not take records of shape \[5\]"):
        trainer.step(torch.arange(2), lambda index: torch.zeros(2, 5), torch.zeros(2).long())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_outside_of_a_step_the_model_is_as_any_other():
    model = MLP(6, 8, 4)
    trainer_of(model)
    model(torch.randn(3, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
