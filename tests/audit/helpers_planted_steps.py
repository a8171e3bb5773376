"""Faults of what a step does beside clipping and noise."""

from __future__ import annotations

import math

import torch

from mico_competition.training import dpsgd, private_optimizer, train, train_stack
from mico_competition.training import stacked_step as stack


def _after_noise(patch, change):
    """`change(optimizer, before)` once the gradient is noisy; `before` is the sum without noise."""
    for kind in (private_optimizer.summed_optimizer(), stack.stacked_optimizer()):

        def faulty(self, real=kind.add_noise):
            sums = [p.summed_grad.clone() for p in self.params]
            real(self)
            change(self, sums)

        patch.setattr(kind, "add_noise", faulty)


def moved_by_the_sum(patch):
    """The weights are also moved by the sum without noise."""

    def change(optimizer, sums):
        with torch.no_grad():
            for p, clean in zip(optimizer.params, sums):
                p.sub_(1e-3 * clean / optimizer.expected_batch_size)

    _after_noise(patch, change)


def rate_by_the_norm(patch):
    """The learning rate follows the norm of the sum without noise."""

    def change(optimizer, sums):
        norm = math.sqrt(sum(float(clean.square().sum()) for clean in sums))
        for group in optimizer.original_optimizer.param_groups:
            group["lr"] = 0.002 / (1 + norm)

    _after_noise(patch, change)


def decay_by_the_norm(patch):
    """Weights decay by an amount that depends on the sum without noise."""

    def change(optimizer, sums):
        norm = math.sqrt(sum(float(clean.square().sum()) for clean in sums))
        with torch.no_grad():
            for p in optimizer.params:
                p.mul_(1 - 1e-5 * min(1.0, norm))

    _after_noise(patch, change)


def raw_momentum(patch):
    """A momentum of sums without noise is added to what the optimiser is given."""
    kept = {}

    def change(optimizer, sums):
        for i, (p, clean) in enumerate(zip(optimizer.params, sums)):
            kept[i] = 0.9 * kept.get(i, torch.zeros_like(clean)) + clean
            p.grad += 0.1 * kept[i]

    _after_noise(patch, change)


def raw_moments(patch):
    """Adam's second moment is of the sum without noise."""

    def change(optimizer, sums):
        for p, clean in zip(optimizer.params, sums):
            state = optimizer.original_optimizer.state.get(p, {})
            if "exp_avg_sq" in state:
                state["exp_avg_sq"].copy_(clean.square() / 900 + 1e-6)

    _after_noise(patch, change)


def weight_decay(patch):
    """The optimiser decays weights, which the settings do not say."""
    real = train.optimizer_of

    def faulty(settings, model):
        optimizer = real(settings, model)
        for group in optimizer.param_groups:
            group["weight_decay"] = 1e-3
        return optimizer

    patch.setattr(train, "optimizer_of", faulty)
    patch.setattr(train_stack, "optimizer_of", faulty)


def _step(patch, change):
    """`change(trainer, batches) -> batches`, at the door of a step."""
    for kind in (dpsgd.DPSGD, stack.StackedDPSGD):

        def faulty(self, batch, inputs, labels, real=kind.step):
            single = isinstance(batch, torch.Tensor)
            batches = change(self, [batch] if single else list(batch))
            return real(self, batches[0] if single else batches, inputs, labels)

        patch.setattr(kind, "step", faulty)


def divided_by_length(patch):
    """The noisy sum is divided by the batch's own length."""

    def change(trainer, batches):
        mean = sum(map(len, batches)) / len(batches)
        trainer.optimizer.expected_batch_size = max(1, round(mean))
        return batches

    _step(patch, change)


def skips_empty(patch):
    """Steps on empty batches are left out by the trainer."""
    for kind in (dpsgd.DPSGD, stack.StackedDPSGD):

        def faulty(self, batch, inputs, labels, real=kind.step):
            batches = [batch] if isinstance(batch, torch.Tensor) else list(batch)
            if not any(map(len, batches)):
                return torch.zeros(() if len(batches) == 1 else len(batches))
            return real(self, batch, inputs, labels)

        patch.setattr(kind, "step", faulty)


WEIGHTS = {
    "weights also moved by the sum": moved_by_the_sum,
    "learning rate by the norm": rate_by_the_norm,
    "decay by the norm": decay_by_the_norm,
    "momentum of the sum": raw_momentum,
    "moments of the sum": raw_moments,
    "weight decay": weight_decay,
    "divided by the batch's length": divided_by_length,
    "empty batches skipped": skips_empty,
    "first record twice": lambda patch: _step(
        patch, lambda trainer, batches: [torch.cat([b[:1], b]) for b in batches]
    ),
    "records of the last step again": lambda patch: _remembered(patch),
}


def _remembered(patch):
    last = {}

    def change(trainer, batches):
        now = [
            torch.cat([b, last[i][:1]]).unique() if i in last else b for i, b in enumerate(batches)
        ]
        last.update(enumerate(batches))
        return now

    _step(patch, change)
