"""Faults of the norms and of the factors that clip."""

from __future__ import annotations

import torch

from mico_competition.training import bookkeeping, dpsgd, ghost_norms, layer_rule


def without_biases(patch):
    """The clipping norm leaves biases out."""

    def faulty(self, a, g):
        return layer_rule.square(g) * layer_rule.square(a)

    patch.setattr(ghost_norms.LinearRule, "norms_from", faulty)  # of stacks as well


def _keeper_norms(patch, change):
    real = bookkeeping.BookKeeper.norms

    def faulty(self, losses):
        kept = list(self._rules.values())
        real(self, losses)
        squares = [rule.squared_norms(losses.shape) for rule in kept]
        return change(squares).sqrt()

    patch.setattr(bookkeeping.BookKeeper, "norms", faulty)


def without_a_layer(patch):
    """The clipping norm leaves the output layer out."""
    _keeper_norms(patch, lambda squares: squares[0] + squares[2])


def _factors(patch, change):
    real = dpsgd.clip_factors

    def faulty(norms, max_grad_norm):
        return change(norms, max_grad_norm, real)

    patch.setattr(dpsgd, "clip_factors", faulty)


def factors(change):
    return lambda patch: _factors(patch, change)


def without_clipping_of_overflows(patch):
    """Records whose norm overflows are neither left out nor clipped."""
    patch.setattr(layer_rule.Rule, "drop", lambda self, dropped: None)
    _factors(
        patch,
        lambda norms, c, real: torch.where(
            norms.isfinite(), real(norms, c), torch.ones_like(norms)
        ),
    )


def by_layer(patch):
    """Each layer is clipped to C by itself, which is called flat."""

    def faulty(self, weights):
        for rule in self._rules.values():
            norms = rule.squared_norms(weights.shape).sqrt()
            rule.write_weighted_sum((1.0 / (norms + 1e-6)).clamp(max=1.0))
            rule.forget()

    patch.setattr(bookkeeping.BookKeeper, "write_weighted_sum", faulty)


CLIPPING = {
    "norms without biases": without_biases,
    "norms without a layer": without_a_layer,
    "clipping by layer": by_layer,
    "clipping to the batch's norm": factors(
        lambda norms, c, real: real(norms.mean(-1, keepdim=True), c).expand_as(norms)
    ),
    "factors without a cap": factors(lambda norms, c, real: c / (norms + 1e-6)),
    "factors 10 % too large": factors(lambda norms, c, real: 1.1 * real(norms, c)),
    "factors 2 % too large": factors(lambda norms, c, real: 1.02 * real(norms, c)),
    "no clipping where norms overflow": without_clipping_of_overflows,
    "no clipping": factors(lambda norms, c, real: torch.ones_like(norms)),
    "half of all records are not clipped": factors(
        lambda norms, c, real: torch.where(
            torch.arange(norms.shape[-1]) % 2 == 0, real(norms, c), torch.ones_like(norms)
        )
    ),
}
