"""Checks that a forward pass neither changes the model nor mixes the examples of a batch.

The proof of DP-SGD assumes that an example's gradient depends on the weights and on that example
alone.  A forward pass that changes a buffer or a weight carries data past the noise; if an
example's loss depends on the other examples of its batch, one record changes the gradients of
others, and clipping does not bound that.  The checks run the model on a few batches, whatever its
layers are called.  docs/PRIVACY.md says what such checks cannot detect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.precision import FLOAT32
from mico_competition.training.check_batches import Batch, blank, companions, halves, widths
from mico_competition.training.model_state import Attributes, State, plain_name, rounded
from mico_competition.training.random_numbers import SEED, Constant, restart, torch_states

# Losses may differ by this many times the change that a rounding error of all weights and inputs
# causes.  Over correct models at most 4 was measured (docs/PRIVACY.md).
ROUNDINGS = 32.0

Losses = Callable[[Batch], Tensor]
"""float[rows], the loss of each example, by a plain forward pass."""

_FEW = 3  # examples whose loss in a batch is compared with their loss alone


class NotFinite(ValueError):
    """A loss is infinite or not a number."""


class ForwardChecks:
    """Compares forward passes of a model over batches that are derived from its first batch.

    Args:
        model: in the mode in which it is trained.
        losses: computes the losses of a batch by a plain forward pass.
        batch: the first physical batch that is not empty.
        largest: the most examples (of each model) that a physical batch may have.
        precision: of the passes.  In less than float32, batches of different lengths may round
            differently, and are not compared: the same model has been checked in float32.  An
            example in batches of one length must have the same loss in any precision.

    Attributes:
        random: whether two random states give different losses.
        comparable: whether all randomness can be held constant, so that batches of different
            lengths can be compared.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        batch: Batch,
        largest: int,
        precision: str = FLOAT32,
    ) -> None:
        self.model, self._losses, self.batch, self.largest = model, losses, batch, largest
        self.precision = precision
        self.state = State(model)
        self.before = Attributes(model)
        self._from_start = False  # whether to restore `before` ahead of each pass
        self.rounding = 16 * torch.finfo(_type_of(model)).eps  # until measured

    @torch.no_grad()
    def run(self) -> None:
        """Run all checks of the forward pass; ValueError at the first that fails."""
        batch = self.batch.of_width(self.largest)
        # The first pass is over blank examples, so that a model which keeps something of its
        # first batch, in a way that these checks cannot detect, keeps no data.
        with suppress(RuntimeError, ValueError, IndexError):  # the model may refuse blank examples
            self.losses(blank(self.batch.of_width(2)))
        self.before.restore()
        first = self.losses(batch)
        self.state.check()
        if not first.isfinite().all():
            raise NotFinite(
                "The loss of an example in the first batch is not finite: look for values that "
                "are not finite in the data, or scale the inputs down."
            )
        held = Attributes(self.model)
        self._check_again(batch, first, held)
        # If the first pass created attributes, every pass creates them again from here on.
        self._from_start = held.digests != self.before.digests
        self._find_rounding()
        self._find_randomness()
        self._check_apart()
        self._check_alone()
        if self._from_start:
            self.losses(batch)
            self._from_start = False
            for other in (companions(batch), self.batch.of_width(1)):
                self.losses(other)
        self._check_again(batch, first, held)

    def _check_again(self, batch: Batch, first: Tensor, held: Attributes) -> None:
        """Check that the same batch again gives the same losses and the same state."""
        again = self.losses(batch)
        self.state.check()
        held.grown()
        if self._apart(first, again).any():
            raise ValueError(
                "The losses of a batch change from one forward pass to the next, with the same "
                "weights and the same random state: private training needs a model without state "
                "from earlier batches, which draws from torch's global generator only."
            )

    def losses(self, batch: Batch, seed: int = SEED) -> Tensor:
        """The losses of a batch, float[rows], always from the same random state."""
        restart(seed)
        if self._from_start:
            self.before.restore()
        return self._losses(batch.fresh()).detach()

    def constant(self, version: int = 0) -> AbstractContextManager[Any]:
        """The context in which batches of different lengths are compared."""
        return Constant(version) if self.random else nullcontext()

    def _find_randomness(self) -> None:
        """Find out whether the model draws random numbers, and whether they can be constant."""
        few = self.batch.of_width(min(8, self.largest))
        one = self.losses(few)
        with Constant() as constant:
            two, three = self.losses(few, SEED + 1), self.losses(few, SEED + 2)
        self.random = constant.used or not torch.equal(one, two)
        self.comparable = torch.equal(two, three)

    def _find_rounding(self) -> None:
        """Measure how far rounding errors of weights and inputs change a loss, per 1 + |loss|.

        In passes of low precision, batches of one length round alike, so nothing is measured.
        """
        few = self.batch.of_width(min(8, self.largest))
        generator = torch.Generator().manual_seed(SEED)
        with Constant():
            base = self.losses(few)
            self.rounding = 4 * torch.finfo(base.dtype).eps
            if self.precision != FLOAT32:
                return
            for _ in range(2):
                with self.state.all_rounded(generator):
                    about = few.changed(lambda values: rounded(values, generator))
                    moved = (self.losses(about) - base).abs() / (1 + base.abs())
                if moved.isfinite().all():
                    self.rounding = max(self.rounding, float(moved.max()))

    def _apart(self, one: Tensor, other: Tensor) -> Tensor:
        """bool[rows], whether two losses differ by more than rounding."""
        near = (one - other).abs() <= ROUNDINGS * self.rounding * (1 + one.abs())
        return ~(near | (one == other) | (one.isnan() & other.isnan()))

    def _check_apart(self) -> None:
        """Check that exchanging half of the examples leaves the losses of the others."""
        batches = [self.batch.of_width(width) for width in widths(self.largest)]
        agreed = [self._halves_agree(batch) for batch in batches]
        if all(agreed):
            return
        # The number of draws depends on the data, so equal random states give different passes.
        if not self.comparable:
            raise ValueError(
                "The model draws random numbers that depend on its inputs, so it cannot be checked "
                "whether it keeps the examples of a batch apart: leave such draws out of it."
            )
        for version in (0, 1):
            with self.constant(version):
                for batch in batches:
                    self._halves_agree(batch)

    def _halves_agree(self, batch: Batch) -> bool:
        """Compare losses while half of the examples are exchanged.

        Returns False if the passes drew different random numbers, so that nothing can be said.
        """
        base, others = self.losses(batch), companions(batch)
        drawn = torch_states()
        alike = True
        for half in halves(len(batch), batch.labels.device, SEED + len(batch)):
            try:
                moved = self.losses(batch.exchanged(half, others))
            except (RuntimeError, ValueError, IndexError):  # the model refuses made-up examples
                others = batch.changed(lambda values: values.roll(1, 0))
                moved = self.losses(batch.exchanged(half, others))
            if not all(map(torch.equal, drawn, torch_states())):
                alike = False
            elif (self._apart(base, moved) & ~half).any():
                where = self._where(batch, batch.exchanged(half, others), half)
                raise ValueError(
                    f"The loss of an example changes with the others of its batch{where}: private "
                    "training needs independent examples. Replace batch normalisation, "
                    "attention over the batch and the like."
                )
        return alike

    def _check_alone(self) -> None:
        """Check that an example has the same loss alone as in batches of every length."""
        if not self.comparable or self.precision != FLOAT32:
            return
        width = min(_FEW, self.batch.width)
        device = self.batch.labels.device
        with self.constant():
            columns = torch.arange(width, device=device).split(1)
            alone = torch.stack([self._single(self.batch.columns(one)) for one in columns], 1)
            for other in sorted({*widths(self.largest), *range(2, min(9, self.largest + 1))}):
                together = self.losses(self.batch.of_width(other)).view(self.batch.models, -1)
                count = min(width, other)
                if self._apart(alone[:, :count], together[:, :count]).any():
                    raise ValueError(
                        f"An example has another loss in a batch of {other} than alone: private "
                        "training needs a loss that does not depend on the length of the batch."
                    )

    def _single(self, batch: Batch) -> Tensor:
        try:
            losses = self.losses(batch)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"The model cannot take a batch of one example ({error}): a Poisson batch may be "
                "that short. Leave out what needs several examples."
            ) from error
        self.state.check()
        return losses

    def _where(self, one: Batch, other: Batch, half: Tensor) -> str:
        """The layer in which the rows that were kept first differ, as words; empty if unknown."""
        seen: list[dict[tuple[str, str], Tensor]] = [{}, {}]
        for record, batch in zip(seen, (one, other)):
            hooks = [
                module.register_forward_hook(_recorder(record, name, len(batch)))
                for name, module in self.model.named_modules()
            ]
            try:
                self.losses(batch)
            finally:
                for hook in hooks:
                    hook.remove()
        modules = dict(self.model.named_modules())
        for (name, side), value in seen[0].items():
            kept = [rows[~half].flatten(1) for rows in (value, seen[1].get((name, side), value))]
            alike = kept[0].shape == kept[1].shape and torch.allclose(
                kept[0], kept[1], rtol=1e-4, atol=1e-6, equal_nan=True
            )
            if not alike:
                layer = f"layer {plain_name(name)} ({type(modules[name]).__name__})"
                return f", {'in' if side == 'output' else 'before'} {layer}" if name else ""
        return ""


def _type_of(model: nn.Module) -> torch.dtype:
    """The type of the first trained weight."""
    return next(p.dtype for p in model.parameters() if p.requires_grad)


def _recorder(record: dict[tuple[str, str], Tensor], name: str, rows: int) -> Callable[..., None]:
    """A forward hook that records a module's input and output."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        for side, value in (("input", inputs[0] if inputs else None), ("output", output)):
            if isinstance(value, Tensor) and value.ndim and len(value) == rows:
                record[name, side] = value.detach().float()

    return hook
