"""The plain step, without privacy: the gradient of the mean loss of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.inputs import sent
from mico_competition.models.precision import FLOAT32, backward_pass, forward_pass
from mico_competition.training.fixed_shapes import physical_batches
from mico_competition.training.losses import per_example_losses
from mico_competition.training.step_graphs import graphs_of


class PlainTrainer:
    """A model and its optimiser, trained without privacy one logical batch at a time.

    Args:
        model: the module to train, in train mode, on its device.
        optimizer: a torch optimiser over its parameters.
        max_physical_batch_size: the most examples in one forward pass.
        precision: of the passes; in float32, products are those that torch is set to.
        cuda_graphs: whether a GPU repeats the passes from recorded graphs (`step_graphs`).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        max_physical_batch_size: int,
        precision: str = FLOAT32,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.max_physical_batch_size, self.precision = max_physical_batch_size, precision
        self.graphs = graphs_of(self._recorded, model) if cuda_graphs else None
        self._used: list[Any] = []

    def step(self, batch: Tensor, inputs: Callable[[Tensor], Any], labels: Tensor) -> Tensor:
        """Take a step on the mean loss of the batch; see `DPSGD.step`."""
        total = labels.new_zeros((), dtype=torch.float32)
        self.optimizer.zero_grad(set_to_none=True)
        for chunk in physical_batches(batch, self.max_physical_batch_size):
            wanted = labels[sent(chunk, labels.device)]
            total += self._passes(inputs(chunk), wanted, len(batch))
        self.optimizer.step()
        return total

    def _passes(self, *arguments: Any) -> Tensor:
        """`_backward`, by a graph if there are graphs."""
        if self.graphs is None:
            return self._backward(*arguments)
        before = {parameter: parameter.grad for parameter in self._trained()}
        total, *gradients = self.graphs(*arguments, made_for=self.model.training)
        for parameter, gradient in zip(self._used, gradients, strict=True):
            own = before[parameter]
            parameter.grad = gradient if own is None else own.add_(gradient)
        return total

    def _recorded(self, *arguments: Any) -> list[Tensor]:
        """The summed losses, and the gradients of the parameters that it uses, for a graph."""
        for parameter in self._trained():
            parameter.grad = None
        total = self._backward(*arguments)
        self._used = [parameter for parameter in self._trained() if parameter.grad is not None]
        return [total, *(parameter.grad for parameter in self._used)]

    def _trained(self) -> list[Any]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _backward(self, inputs: Any, labels: Tensor, count: int) -> Tensor:
        """Add a physical batch's part of the mean over `count` examples to the gradients.

        Returns:
            The sum of its losses.
        """
        with forward_pass(self.precision, labels.device):
            losses = per_example_losses(self.model, inputs, labels)
        with backward_pass(self.precision, labels.device):
            (losses.sum() / count).backward()
        return losses.detach().sum()
