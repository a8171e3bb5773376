"""Models with one additional weight for each Dirac canary.

A Dirac canary's logits do not depend on the real model. Canary i has push_i * w_i for class 0 and 0
for all others; while w_i is 0 and its label is not 0, the gradient of its loss is push_i / K at w_i
and zero in every other coordinate of the model: the worst case that the accountant assumes. A null
record has logits of 0 and no gradient; it takes the place of a canary that is left out.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from mico_competition.models.architectures import logits
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
        # The factor of a canary's weight in the logit of class 0; 0 for a null record.
        self.push = torch.cat([lengths * classes * max_grad_norm, lengths.new_zeros(1)])
        self.clipped = lengths.double() / lengths.double().clamp(min=1.0)
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
