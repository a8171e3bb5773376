"""Models with one additional weight for each Dirac canary, single and in a stack.

A Dirac canary's logits do not depend on the real model. Canary i has push_i * w_i for class 0 and 0
for all others; while w_i is 0 and its label is not 0, the gradient of its loss is push_i / K at w_i
and zero in every other coordinate of the model: the worst case that the accountant assumes. A null
record has logits of 0 and no gradient; it takes the place of a canary that is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from mico_competition.models.architectures import MLP, logits
from mico_competition.training.batched_mlp import StackedLinear, StackedMLP
from mico_competition.training.dpsgd import Inputs

ORDINARY = -1
"""The number of a record that is no canary and passes through the real model."""


class CanaryModel(nn.Module):
    """A model with one additional weight for each Dirac canary.

    Args:
        model: maps records to logits, as `models.logits` calls it.
        lengths: float[m], m >= 1, the norm of each canary's gradient before clipping, in units of
            the clipping norm.
        classes: K >= 2.
        max_grad_norm: C.

    Attributes:
        clipped: float64[m], each canary's gradient at its own weight after clipping, over C.
    """

    def __init__(
        self, model: nn.Module, lengths: Tensor, classes: int, max_grad_norm: float
    ) -> None:
        super().__init__()
        self.model = model
        self.dirac = len(lengths)
        self.push = _pushes(lengths, classes, max_grad_norm)
        self.clipped = _clipped(lengths, 0.0)
        # A linear layer on one-hot inputs; number m means no canary, and has no gradient.
        self.weights = nn.Embedding(self.dirac + 1, 1, padding_idx=self.dirac)
        self.reset()

    def reset(self) -> None:
        """Set the canaries' weights back to 0, where their gradients have the intended norms.

        The attacker may choose each step's loss given all earlier steps (adaptive composition), so
        this does not weaken the claim.
        """
        with torch.no_grad():
            self.weights.weight.zero_()

    def forward(self, records: Inputs, canary: Tensor) -> SimpleNamespace:
        """`.logits` [B, K] of records [B, ...] with canary's numbers int64[B], or ORDINARY."""
        of_model = logits(self.model, records)
        ordinary = canary == ORDINARY
        number = canary.masked_fill(ordinary, self.dirac)
        own = torch.zeros_like(of_model)
        own[:, :1] = self.push.to(own.device)[number].unsqueeze(1) * self.weights(number)
        return SimpleNamespace(logits=torch.where(ordinary.unsqueeze(1), of_model, own))


class StackedCanaryModel(nn.Module):
    """`CanaryModel` for a stack: the fleet's own stack of MLPs, and a stacked layer of canaries.

    The layer is linear on one-hot inputs, the only kind that stacks have. Canaries move its bias by
    1 / push of what they move their weight, so the bias is set back to 0 as well.

    Args:
        models: S MLPs, copied into the stack.
        lengths, classes, max_grad_norm: as in `CanaryModel`, the same for each model.
    """

    def __init__(
        self, models: Sequence[MLP], lengths: Tensor, classes: int, max_grad_norm: float
    ) -> None:
        super().__init__()
        self.model = StackedMLP(models)
        self.dirac = len(lengths)
        self.push = _pushes(lengths, classes, max_grad_norm)
        self.clipped = _clipped(lengths, 1 / (classes * max_grad_norm))
        self.weights = StackedLinear([nn.Linear(self.dirac, 1) for _ in models])
        self.reset()

    def reset(self) -> None:
        """As `CanaryModel.reset`."""
        with torch.no_grad():
            self.weights.weight.zero_()
            self.weights.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [S, B, K] for `with_numbers`; numbers beyond the last are null records."""
        of_model, number = self.model(x[..., :-1]), x[..., -1].round().long()
        ordinary = (number < 0).unsqueeze(2)
        number = number.masked_fill(number < 0, self.dirac).clamp(max=self.dirac)
        one_hot = nn.functional.one_hot(number, self.dirac + 1)[..., :-1].to(of_model.dtype)
        push = self.push.to(of_model.device)[number].unsqueeze(2)
        # Padding multiplies weights by zero; zero times infinity would be NaN.
        scaled = torch.where(one_hot > 0, push, torch.zeros_like(one_hot))
        own = torch.zeros_like(of_model)
        is_dirac = (number < self.dirac).unsqueeze(2)
        own[..., :1] = torch.where(is_dirac, self.weights(scaled), torch.zeros_like(own[..., :1]))
        return torch.where(ordinary, of_model, own)


def with_numbers(records: Tensor, canary: Tensor) -> Tensor:
    """Records [S, B, F] and canary's numbers int64[S, B] in one tensor, as stacks need."""
    return torch.cat([records, canary.unsqueeze(2).to(records.dtype)], dim=2)


def _pushes(lengths: Tensor, classes: int, max_grad_norm: float) -> Tensor:
    """The factor of a canary's weight in the logit of class 0; 0 for a null record."""
    return torch.cat([lengths * classes * max_grad_norm, lengths.new_zeros(1)])


def _clipped(lengths: Tensor, beside: float) -> Tensor:
    """The clipped norms of gradients of norm `lengths`, of which `beside` is the part elsewhere."""
    own = lengths.double()
    return own / torch.hypot(own, torch.full_like(own, beside)).clamp(min=1.0)
