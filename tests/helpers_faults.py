"""Private trainers with one fault each, to be caught by an audit.  Never to train with.

Each is the real trainer with a few lines changed, as a slip of the pen would change them.
"""

from __future__ import annotations

import math

import torch

from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import DPSGD, clip_factors
from mico_competition.training.losses import per_example_losses
from mico_competition.training.private_optimizer import gaussian_like, summed_optimizer
from mico_competition.training.train import mechanism_of, shuffled_batches


class Unchecked:
    """Checks that look away, for trainers whose fault the first batch would show."""

    def before(self, batch, largest):
        pass

    def after(self):
        pass


class HalvedNoise(DPSGD):
    """Noise of half the deviation that the accountant was told."""

    def __init__(self, model, optimizer, *, noise_multiplier, **others):
        super().__init__(model, optimizer, noise_multiplier=noise_multiplier / 2, **others)


class NoNoiseIn(DPSGD):
    """One layer's parameters get no noise."""

    def __init__(self, *args, layer, **others):
        super().__init__(*args, **others)
        kept = [p for name, p in self.model.named_parameters() if name.rpartition(".")[0] == layer]
        assert kept, f"no layer {layer}"
        real = self.optimizer.add_noise

        def add_noise():
            real()
            for parameter in kept:
                parameter.grad = parameter.summed_grad.clone()

        self.optimizer.add_noise = add_noise


class UnclippedLayer(DPSGD):
    """One layer's gradient neither counts in the norm nor is scaled."""

    def __init__(self, *args, layer, **others):
        super().__init__(*args, **others)
        self.unclipped = dict(self.model.named_modules())[layer]
        self.checks = Unchecked()

    def _backward(self, inputs, labels, counts=None):
        with self.keeper.recording():
            losses = per_example_losses(self.model, inputs, labels)
            self.keeper.norms(losses)
        parts = self.keeper.layers.parts
        unclipped = [part for part in parts if getattr(part, "module", None) is self.unclipped]
        assert len(unclipped) == 1
        squares = torch.zeros_like(losses)
        for part in parts:
            if part not in unclipped:
                squares += part.squared_norms(losses.shape)
        factors = clip_factors(squares.sqrt(), self.max_grad_norm)
        for part in parts:
            part.write_weighted_sum(torch.ones_like(factors) if part in unclipped else factors)
            part.forget()
        return losses.detach().sum()


class DividedBeforeClipping(DPSGD):
    """The batch's mean gradient is clipped as if it were one example's, with noise sigma C / L."""

    def __init__(self, *args, **others):
        super().__init__(*args, **others)
        self.checks = Unchecked()

    def _backward(self, inputs, labels, counts=None):
        with self.keeper.recording():
            losses = per_example_losses(self.model, inputs, labels)
            self.keeper.norms(losses)
        self.keeper.write_weighted_sum(torch.full_like(losses.detach(), 1 / len(losses)))
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in self.model.parameters()))
        factor = min(1.0, self.max_grad_norm / norm)
        for parameter in self.model.parameters():
            # The optimiser divides by the expected length, noise and all: this takes it back.
            parameter.grad *= factor * self.optimizer.expected_batch_size
        return losses.detach().sum()


class _NoiseEachTime(summed_optimizer()):
    def accumulate(self):
        super().accumulate()
        std = self.noise_multiplier * self.max_grad_norm
        for parameter, noise in zip(self.params, gaussian_like(self.params, std, self.generator)):
            parameter.summed_grad = parameter.summed_grad + noise

    def add_noise(self):
        for parameter in self.params:
            parameter.grad = parameter.summed_grad


class NoisePerPhysicalBatch(DPSGD):
    """Full noise for every physical batch of a logical one: more of it than is accounted for."""

    def __init__(self, *args, **others):
        super().__init__(*args, **others)
        self.optimizer.__class__ = _NoiseEachTime
        self.checks = Unchecked()


class TwoStepsABatch(DPSGD):
    """Two noisy gradients of each batch, of which the accountant knows one."""

    def step(self, batch, inputs, labels, *, num_records=None):
        super().step(batch, inputs, labels, num_records=num_records)
        return super().step(batch, inputs, labels, num_records=num_records)


def shuffled(settings, sampling):
    """An epoch that covers every record once, where Poisson batches are accounted for."""
    size = -(-settings.len_training // settings.steps_per_epoch)
    return shuffled_batches(settings.len_training, batch_size=size, generator=sampling)


def oversampled(settings, sampling):
    """Poisson batches in which records are a tenth more often than accounted for."""
    for _ in range(settings.steps_per_epoch):
        coins = torch.rand(settings.len_training, generator=sampling)
        yield (coins < 1.1 * settings.sample_rate).nonzero().squeeze(1)


def fixed_length(settings, sampling):
    """Batches of one length, drawn anew for each step without replacement."""
    size = round(settings.len_training * settings.sample_rate)
    for _ in range(settings.steps_per_epoch):
        yield torch.randperm(settings.len_training, generator=sampling)[:size]


def mechanism_for_delta(settings, delta):
    """The noise that keeps to the target epsilon at another delta."""
    run = mechanism_of(settings)
    return Mechanism.for_target(
        target_epsilon=settings.target_epsilon,
        target_delta=delta,
        sample_rate=run.sample_rate,
        num_steps=run.num_steps,
    )
