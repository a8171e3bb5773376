"""Trains a stack of MLPs of one scenario together, by batched matrix products.

The step of a small model is mostly overhead, which a stack pays only once.  Each model has its own
split, Poisson batches, clipping and noise, drawn as if it were trained alone, so the weights are
those of separate training up to rounding.  The physical batch counts records of each model, so
a step of S models takes as many passes as that of one, and S times its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mico_competition.models.architectures import MLP
from mico_competition.models.precision import (
    FLOAT32,
    backward_pass,
    check_available,
    forward_pass,
    full_float32,
)
from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.check_batches import Batch
from mico_competition.training.dpsgd import check_private, clip_factors
from mico_competition.training.ghost_norms import RULES
from mico_competition.training.gradient_checks import Delivered
from mico_competition.training.layer_rule import Rule
from mico_competition.training.private_checks import PrivacyChecks, check_trainable
from mico_competition.training.private_optimizer import (
    gaussian_like,
    logical_step,
    summed_optimizer,
    take_sum,
)
from mico_competition.training.secure_random import Generator
from mico_competition.training.settings import check_precision


class StackedLinear(nn.Module):
    """S linear layers side by side: [S, b, in] -> [S, b, out]."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer s to row s of x."""
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class StackedLinearRule(Rule):
    """The rule of a linear layer for each model of the stack; a and g are [S, b, ...]."""

    rounds_input = True

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        """float[S, b]: the squared norms of the gradients."""
        squares: Tensor = torch.linalg.vecdot(g, g) * (torch.linalg.vecdot(a, a) + 1)
        return squares

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        """Put the weighted sum of the gradients into `grad`."""
        scaled = g * weights.unsqueeze(-1)
        self.module.weight.grad = torch.bmm(scaled.transpose(1, 2), a)
        self.module.bias.grad = scaled.sum(1)


RULES[StackedLinear] = StackedLinearRule


class StackedMLP(nn.Module):
    """S MLPs of one shape as one module; the weights are copied from S models, and back."""

    def __init__(self, models: Sequence[MLP]) -> None:
        super().__init__()
        self.gain = models[0].gain
        self.layers = nn.Sequential(
            StackedLinear([model.mlp[0] for model in models]),  # type: ignore[misc]
            nn.Tanh(),
            StackedLinear([model.mlp[2] for model in models]),  # type: ignore[misc]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [S, b, classes] of records [S, b, features]."""
        logits: Tensor = self.layers(x if self.gain == 1 else x * self.gain)
        return logits

    @torch.no_grad()
    def copy_to(self, models: Sequence[MLP]) -> None:
        """Copy the weights into `models`, in the order of construction."""
        for index in (0, 2):
            for row, model in enumerate(models):
                layer: nn.Linear = model.mlp[index]  # type: ignore[assignment]
                layer.weight.copy_(self.layers[index].weight[row])  # type: ignore[index]
                layer.bias.copy_(self.layers[index].bias[row])  # type: ignore[index]


Inputs = Callable[[Tensor], Tensor]
"""Maps positions [S, b] to records [S, b, features]."""


class StackedBatch:
    """The S logical batches of one step, padded to the longest; `counts` is False for padding.

    Args:
        batches: S index tensors, positions among each model's training records.
    """

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self.lengths = torch.tensor([len(batch) for batch in batches], device=batches[0].device)
        self.positions = nn.utils.rnn.pad_sequence(list(batches), batch_first=True)
        columns = torch.arange(self.positions.shape[1], device=self.positions.device)
        self.counts = columns < self.lengths.unsqueeze(1)


def stacked_losses(model: nn.Module, x: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """float[S, b], the cross-entropy of each example, zero for padding."""
    losses = cross_entropy(model(x).flatten(0, 1), labels.flatten(), reduction="none")
    return torch.where(counts, losses.view_as(labels), 0.0)  # padding may be not a number


@cache
def stacked_optimizer() -> Any:
    """The class StackedOptimizer, created at the first call as `summed_optimizer` is."""
    base: Any = summed_optimizer()

    class StackedOptimizer(base):  # type: ignore[misc] # no types
        """Opacus' contract for a stack: row s of all noise comes from generator s."""

        generators: Sequence[Generator]

        def add_noise(self) -> None:
            """Add noise of deviation sigma * C, drawn for each model as if it were alone."""
            std = self.noise_multiplier * self.max_grad_norm
            parameters = self.params
            models = [
                gaussian_like([p.detach()[row] for p in parameters], std, generator)
                for row, generator in enumerate(self.generators)
            ]
            for parameter, rows in zip(parameters, zip(*models)):
                parameter.grad = torch.stack(rows).add_(parameter.summed_grad)

    return StackedOptimizer


class StackedDPSGD:
    """`DPSGD` for a stack; see there for the other arguments.

    Args:
        max_physical_batch_size: the most examples of each model in one forward pass.
        noise_generators: one for each model, in their order.
        precision: as in `DPSGD`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        max_physical_batch_size: int,
        noise_generators: Sequence[Generator],
        precision: str = FLOAT32,
    ) -> None:
        check_private(noise_multiplier, max_grad_norm)
        check_precision(precision)
        check_trainable(model, optimizer)
        self.device = next(model.parameters()).device
        check_available(precision, self.device)
        self.model, self.precision = model, precision
        self.keeper = BookKeeper(model)
        self.max_physical_batch_size = max_physical_batch_size
        self.optimizer = stacked_optimizer()(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction="mean",
        )
        self.optimizer.generators = noise_generators
        self.checks = PrivacyChecks(
            model,
            lambda batch: self._losses(*self._as_stack(batch)).flatten(),
            nullcontext,
            self._clipped_sum,
            max_grad_norm=max_grad_norm,
            mode="bookkeeping",
            precision=precision,
            at_precision=self._at_precision,
        )

    def _losses(self, x: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """`stacked_losses` in the trainer's precision."""
        with forward_pass(self.precision, self.device):
            return stacked_losses(self.model, x, labels, counts)

    @contextmanager
    def _at_precision(self, precision: str) -> Iterator[None]:
        """Run passes in another precision, inside this block."""
        own, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = own

    def step(self, batches: Sequence[Tensor], inputs: Inputs, labels: Tensor) -> Tensor:
        """Take one step with every model.

        Args:
            batches: S index tensors, positions among each model's training records.
            inputs: maps positions [S, b] to records [S, b, features].
            labels: int64[S, n], labels by position.

        Returns:
            float[S], the sum of each model's losses before the step.

        Raises:
            ValueError: naming the fault, if the models cannot be trained privately.
        """
        batch = StackedBatch(batches)
        totals = torch.zeros(len(labels), device=labels.device)
        width = self.max_physical_batch_size
        chunks = list(zip(batch.positions.split(width, 1), batch.counts.split(width, 1)))
        for positions, counts in logical_step(self.optimizer, chunks):
            if positions.numel():
                x, wanted = inputs(positions), labels.gather(1, positions)
                largest = min(width, max(labels.shape[1], positions.shape[1]))
                rows = Batch(x.flatten(0, 1), wanted.flatten(), len(labels))
                with full_float32(labels.device):
                    self.checks.before(rows, largest)
                    totals += self._backward(x, wanted, counts)
                    self.checks.after()
            else:
                for parameter in self.model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
        return totals

    @staticmethod
    def _as_stack(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Records [S, b, features], labels [S, b] and counts [S, b] of a batch without padding."""
        labels = batch.labels.view(batch.models, -1)
        x = batch.inputs.view(*labels.shape, *batch.inputs.shape[1:])
        return x, labels, torch.ones_like(labels, dtype=torch.bool)

    def _clipped_sum(self, batch: Batch, max_grad_norm: float) -> Delivered:
        """The clipped sums of a physical batch; the optimiser's state does not change."""
        self.optimizer.max_grad_norm = max_grad_norm
        try:
            self._backward(*self._as_stack(batch))
            return take_sum(self.optimizer, list(self.model.parameters()))
        finally:
            self.optimizer.max_grad_norm = self.checks.max_grad_norm

    def _backward(self, x: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        with self.keeper.recording():
            losses = self._losses(x, labels, counts)
            norms = self.keeper.norms(losses, passes=backward_pass(self.precision, self.device))
        self.keeper.write_weighted_sum(clip_factors(norms, self.optimizer.max_grad_norm))
        return losses.detach().sum(1)


@dataclass
class StackedPlainTrainer:
    """`PlainTrainer` for a stack: minimises the sum over models of their mean losses."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    max_physical_batch_size: int
    precision: str = FLOAT32

    def step(self, batches: Sequence[Tensor], inputs: Inputs, labels: Tensor) -> Tensor:
        """Take one step with every model; see `StackedDPSGD.step`."""
        batch = StackedBatch(batches)
        totals = torch.zeros(len(labels), device=labels.device)
        width = self.max_physical_batch_size
        self.optimizer.zero_grad(set_to_none=True)
        for positions, counts in zip(batch.positions.split(width, 1), batch.counts.split(width, 1)):
            with forward_pass(self.precision, labels.device):
                losses = stacked_losses(
                    self.model, inputs(positions), labels.gather(1, positions), counts
                ).sum(1)
            with backward_pass(self.precision, labels.device):
                (losses / batch.lengths).sum().backward()
            totals += losses.detach()
        self.optimizer.step()
        return totals
