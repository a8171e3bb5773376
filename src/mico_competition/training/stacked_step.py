"""Trains a stack of models of one scenario together (`stacked_model`).

The step of a small model is mostly overhead, which a stack pays only once.  Each model has its own
split, Poisson batches, clipping and noise, drawn as if it were trained alone, so the weights are
those of separate training up to rounding.  The physical batch counts records of each model, so
a step of S models takes as many passes as that of one, and S times its memory (`stack_memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.inputs import sent
from mico_competition.models.precision import backward_pass, forward_pass, full_float32
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.fixed_shapes import fixed_length
from mico_competition.training.losses import per_example_losses
from mico_competition.training.plain_trainer import PlainTrainer
from mico_competition.training.private_optimizer import (
    fill_gaussian,
    logical_step,
    one_draw,
    summed_optimizer,
)
from mico_competition.training.secure_random import Generator
from mico_competition.training.stacked_batches import as_stack

Inputs = Callable[[Tensor], Any]
"""Maps positions [S, b] to the model's inputs, one row an example: [S * b, ...], model by model."""


@cache
def stacked_optimizer() -> Any:
    """The class StackedOptimizer, created at the first call as `summed_optimizer` is."""
    base: Any = summed_optimizer()

    class StackedOptimizer(base):  # type: ignore[misc] # no types
        """Opacus' contract for a stack: row s of all noise comes from generator s."""

        generators: Sequence[Generator]
        noise: Sequence[Tensor] = ()
        rows: Sequence[Sequence[Tensor]] = ()

        def add_noise(self) -> None:
            """Add noise of deviation sigma * C, drawn for each model as if it were alone."""
            std = self.noise_multiplier * self.max_grad_norm
            if not self.noise:
                self.noise, self.rows = _noise_of(self.params, self.generators)
            for rows, generator in zip(self.rows, self.generators, strict=True):
                fill_gaussian(rows, std, generator)
            for parameter, noise in zip(self.params, self.noise):
                parameter.grad = parameter.summed_grad.add_(noise)

    return StackedOptimizer


def _noise_of(
    parameters: Sequence[Tensor], generators: Sequence[Generator]
) -> tuple[Sequence[Tensor], Sequence[Sequence[Tensor]]]:
    """Memory for a stack's noise: like each parameter, and the tensors that each model draws."""
    if one_draw(parameters, generators[0]):
        sizes = [parameter[0].numel() for parameter in parameters]
        first = parameters[0]
        flat = torch.empty(len(first), sum(sizes), dtype=first.dtype, device=first.device)
        parts = zip(flat.split(sizes, 1), parameters)
        return [part.view(parameter.shape) for part, parameter in parts], [[row] for row in flat]
    noise = [torch.empty_like(parameter, requires_grad=False) for parameter in parameters]
    return noise, list(zip(*(each.unbind() for each in noise), strict=True))


class StackedDPSGD(DPSGD):
    """`DPSGD` for a stack, by book-keeping; see there for the other arguments.

    Args:
        model: the models as one module, as `stacked_model.stacked` makes it.
        optimizer: over all of its parameters.
        noise_generators: one for each model, in their order.
        options: the arguments of `DPSGD`; max_physical_batch_size counts examples of each model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise_generators: Sequence[Generator],
        **options: Any,
    ) -> None:
        self._models = len(noise_generators)
        super().__init__(model, optimizer, **options)
        self.optimizer.generators = noise_generators

    def _optimizer_class(self) -> Any:
        return stacked_optimizer()

    def _length(self, most: int) -> int:
        """The most examples of each model in one pass, which bounds the memory of the checks."""
        return fixed_length(self.expected_batch_size, min(self.max_physical_batch_size, most))

    def _total(self, losses: Tensor) -> Tensor:
        """float[S], the sum of each model's losses."""
        return losses.view(self._models, -1).sum(1)

    def step(  # type: ignore[override]
        self, batches: Sequence[Tensor], inputs: Inputs, labels: Tensor
    ) -> Tensor:
        """Take one step with every model.

        Args:
            batches: S index tensors, positions among each model's training records, on the device
                of the labels or on the host.
            inputs: maps positions [S, b] to inputs with rows [S * b, ...].
            labels: int64[S, n], labels by position.

        Returns:
            float[S], the sum of each model's losses before the step.

        Raises:
            ValueError: naming the fault, if the models cannot be trained privately.
        """
        totals = torch.zeros(len(labels), device=labels.device)
        length = self._length(labels.shape[1])
        chunks = as_stack(batches).chunks(length, padded=self.fixed_shapes)
        for positions, counts in logical_step(self.optimizer, chunks):
            if positions.numel():
                wanted = labels.gather(1, sent(positions, labels.device)).flatten()
                rows = Batch(inputs(positions), wanted, len(labels))
                with full_float32(labels.device):  # so that norms are those of the sum
                    self.checks.before(rows, length)
                    own = sent(counts.flatten(), labels.device)
                    totals += self._passes(rows.inputs, rows.labels, own)
                    self.checks.after()
            else:
                self._backward_nothing()
        return totals


class StackedPlainTrainer(PlainTrainer):
    """`PlainTrainer` for a stack: minimises the sum over models of their mean losses."""

    def step(  # type: ignore[override]
        self, batches: Sequence[Tensor], inputs: Inputs, labels: Tensor
    ) -> Tensor:
        """Take one step with every model; see `StackedDPSGD.step`."""
        batch = as_stack(batches)
        totals = torch.zeros(len(labels), device=labels.device)
        self.optimizer.zero_grad(set_to_none=True)
        lengths = sent(batch.lengths, labels.device)
        for positions, counts in batch.chunks(self.max_physical_batch_size):
            wanted = labels.gather(1, sent(positions, labels.device)).flatten()
            own = sent(counts, labels.device)
            totals += self._passes(inputs(positions), wanted, own, lengths)
        self.optimizer.step()
        return totals

    def _backward(  # type: ignore[override]
        self, inputs: Any, labels: Tensor, counts: Tensor, lengths: Tensor
    ) -> Tensor:
        """Add a physical batch's part of the mean losses to the gradients.

        Args:
            inputs, labels: of the rows [S * b, ...], model by model.
            counts: bool[S, b], False for padding.
            lengths: int64[S], the length of each model's logical batch.

        Returns:
            float[S], the sum of each model's losses.
        """
        with forward_pass(self.precision, labels.device):
            losses = per_example_losses(self.model, inputs, labels).view_as(counts)
            sums = torch.where(counts, losses, 0.0).sum(1)
        with backward_pass(self.precision, labels.device):
            (sums / lengths).sum().backward()
        return sums.detach()
