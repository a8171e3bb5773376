"""The rule of a parameter [1, T, d] that a block uses itself, such as a class token or positions.

While a batch is recorded, the block has the parameter once for each example, [b, T, d].  That gives
the same outputs, since a dimension of length 1 is broadcast to the batch, and the gradient of row i
is that of example i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mico_competition.training.example_gradients import without


class OneRow:
    """The rule of one parameter.

    Args:
        name: the parameter's full name.
        module: the block that holds it.
        own: its name there.
    """

    def __init__(self, name: str, module: nn.Module, own: str) -> None:
        self.name, self.module, self.own = name, module, own
        self.parameter = module.get_parameter(own)
        self._rows: Tensor | None = None

    def start(self, count: int) -> None:
        """Put a row for each example into the block."""
        rows = self.parameter.detach().expand(count, *self.parameter.shape[1:])
        self._rows = rows.clone().requires_grad_()
        self.module._parameters[self.own] = self._rows  # type: ignore[assignment] # no Parameter

    def stop(self) -> None:
        """Put the parameter back."""
        self.module._parameters[self.own] = self.parameter

    def forget(self) -> None:
        """Drop what was recorded of a batch."""
        self._rows = None

    def _gradient(self) -> Tensor:
        if self._rows is None or self._rows.grad is None:
            raise ValueError(
                f"Parameter {self.name} takes no part in the loss, so its gradient is not known: "
                "remove it from the model, or freeze it by requires_grad_(False)."
            )
        return self._rows.grad

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """The squared norms of the per-example gradients, float[batch]."""
        norms: Tensor = self._gradient().flatten(1).square().sum(1)
        return norms

    def drop(self, dropped: Tensor) -> None:
        """Make the gradients of the examples that `dropped`, bool[batch], marks zero."""
        assert self._rows is not None
        self._rows.grad = without(self._gradient(), dropped)

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into the parameter's `grad`."""
        self.parameter.grad = torch.tensordot(weights, self._gradient(), dims=1).unsqueeze(0)
