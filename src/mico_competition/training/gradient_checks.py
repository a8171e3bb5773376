"""Checks the clipped sum of a grad_sample_mode against plain autograd, on a few examples.

Every mode derives per-example gradients from the inputs and outputs of layers.  The result is wrong
if a weight is used in another way: by a function outside its layer, in two layers, or in a layer
with options that the mode does not support.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.precision import BFLOAT16, FLOAT32, TF32
from mico_competition.training.check_batches import Batch, blank, enlarged, joined, varied
from mico_competition.training.forward_checks import ForwardChecks, NotFinite
from mico_competition.training.model_state import plain_name, rounded
from mico_competition.training.random_numbers import SEED, restart

EXAMPLES = 3  # of each model, besides a blank and a large one

# The tolerance, in square roots of the dtype's rounding error: relative to a parameter's part of
# the sum, and to the whole sum.  docs/PRIVACY.md has the measurements.
OF_PART, OF_WHOLE = 3.0, 0.3

# What takes the place of these square roots in passes of low precision, where plain autograd rounds
# the factors of its products, or the products, to 10 or 7 bits and book-keeping does not.
TOLERANCES = {TF32: 2**-8, BFLOAT16: 2**-7}

# Between passes of different lengths, the tolerance is at least this many times the change of an
# example's gradient by rounding errors of weights and inputs; saturated units make it large.
OF_ROUNDING = 8.0


@dataclass(frozen=True)
class Delivered:
    """What a mode computes for a batch.

    Attributes:
        sums: the sum of clipped gradients, one tensor like each parameter.
        norms: float[rows, parameters], norms of per-example gradients, if the mode has them.
    """

    sums: list[Tensor]
    norms: Tensor | None = None


class GradientChecks:
    """Compares the clipped sums of a mode with those of plain autograd.

    Args:
        forward: the forward checks of the same model, which have passed.
        losses: computes the losses of a batch, float[rows], with a graph.
        plain: the context in which the mode's hooks are off.
        deliver: runs the mode on a batch, clipped to a norm.
        max_grad_norm: C, the clipping norm.
        mode: the mode's name.
    """

    def __init__(
        self,
        forward: ForwardChecks,
        losses: Callable[[Batch], Tensor],
        plain: Callable[[], AbstractContextManager[Any]],
        deliver: Callable[[Batch, float], Delivered],
        *,
        max_grad_norm: float,
        mode: str,
    ) -> None:
        self.forward, self._losses, self._plain, self._deliver = forward, losses, plain, deliver
        self.max_grad_norm, self.mode = max_grad_norm, mode
        trained = ((name, p) for name, p in forward.model.named_parameters() if p.requires_grad)
        names, parameters = zip(*trained)
        self.names: Sequence[str] = [plain_name(name) for name in names]
        self.parameters: Sequence[nn.Parameter] = parameters
        rounding = torch.finfo(parameters[0].dtype).eps ** 0.5
        self.tolerance = TOLERANCES.get(forward.precision, rounding)

    def run(self) -> None:
        """Raise ValueError, naming a parameter, if the mode's sums differ from autograd's."""
        few = varied(self.forward.batch, EXAMPLES)
        one = few.of_width(1)
        try:
            self._check_used(few)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # the forward pass ran before, without a graph
            raise unfit(self.mode, error) from error
        if self.mode == "bookkeeping":
            # Alone first: what has another length than 1 is then known to be shared by examples.
            with suppress(ValueError):
                self._delivered(one, self.max_grad_norm)
        made = [example for example in (blank(one), enlarged(one)) if self._usable(example)]
        if self.forward.largest > 1:
            several = joined([few, *made])
            self._compare(several)
            if self.forward.comparable and self.forward.precision == FLOAT32:
                self._compare_alone(several)
        for example in (one, *made):
            self._compare(example)

    def _check_used(self, batch: Batch) -> None:
        """Raise ValueError, naming a parameter on which no loss depends."""
        restart()
        with torch.enable_grad(), self._plain():
            losses = self._losses(batch.fresh())
            if not losses.requires_grad:
                raise ValueError("No parameter takes part in the loss: look for no_grad, detach.")
            gradients = torch.autograd.grad(losses.sum(), self.parameters, allow_unused=True)
        for name, gradient in zip(self.names, gradients):
            if gradient is None:
                raise ValueError(
                    f"Parameter {name} takes no part in the loss of the first examples, so its "
                    "gradient is not known: remove it from the model."
                )

    def _usable(self, example: Batch) -> bool:
        """Whether the model accepts a made-up example, with finite gradients."""
        try:
            return bool(self._norms(example).isfinite().all())
        except (RuntimeError, ValueError, IndexError):
            return False

    def _gradients(self, batch: Batch) -> Iterator[list[Tensor]]:
        """For each column of the batch, the gradient of each parameter by autograd, [S, numbers].

        Each comes from a pass over the whole batch, which rounds as the mode's pass does.
        """
        for column in range(batch.width):
            restart()
            with torch.enable_grad(), self._plain():
                loss = self._losses(batch.fresh()).view(batch.models, -1)[:, column].sum()
                gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            yield [
                torch.zeros_like(p).reshape(batch.models, -1) if g is None else _rows(g, batch)
                for p, g in zip(self.parameters, gradients)
            ]

    def _norms(self, batch: Batch) -> Tensor:
        """The norms of gradients by autograd, float64[S, width, parameters]."""
        columns = self._gradients(batch)
        norms = [[torch.linalg.vector_norm(g, dim=1).double() for g in gs] for gs in columns]
        return torch.stack([torch.stack(column, 1) for column in norms], 1)

    def _compare(self, batch: Batch) -> None:
        """Compare the mode's sums of `batch` with none, some and all of the examples clipped."""
        by_parameter = self._norms(batch)
        norms = by_parameter.norm(dim=2)
        if not norms.isfinite().all():
            raise NotFinite(
                "The gradient of an example in the first batch is not finite: look for values "
                "that are not finite, or very large, in the data, or scale the inputs down."
            )
        longest, shortest = float(norms.max()), float(norms.min())
        # Without clipping first: there, only the parameter that is at fault differs.
        bounds = [2 * longest, self.max_grad_norm, max(shortest / 2, longest / 1000)]
        bounds = [bound for bound in bounds if bound > 0]
        delivered = [self._delivered(batch, bound) for bound in bounds]
        factors = [(bound / (norms + 1e-6)).clamp(max=1.0) for bound in bounds]
        rests = [[_rows(part, batch).clone() for part in made.sums] for made in delivered]
        for at, gradients in enumerate(self._gradients(batch)):
            for rest, factor in zip(rests, factors):
                for left, gradient in zip(rest, gradients):
                    left.sub_(gradient * factor[:, at, None].to(gradient))
        for made, rest, factor in zip(delivered, rests, factors):
            off = torch.stack([torch.linalg.vector_norm(left, dim=1).double() for left in rest], 1)
            excess = self._excess(off, factor.unsqueeze(2) * by_parameter)
            share = float(off.norm() / (factor * norms).sum().clamp(min=1e-300))
            what = "the clipped sum differs"
            # Ghost clipping leaves out examples whose norm overflows.
            if made.norms is not None and len(made.norms) == len(batch):
                each = by_parameter.flatten(0, 1)  # a sum over one example
                wrong = (made.norms.double() - each).abs()
                of_norms = self._excess(wrong, each.unsqueeze(1))
                if (of_norms > 1).any():
                    excess, what = of_norms, "the gradient's norm differs"
                    share = float((wrong.amax(1) / norms.flatten().clamp(min=1e-300)).max())
            if (excess > 1).any():
                raise ValueError(
                    f"Parameter {self.names[int(excess.argmax())]} cannot be clipped in "
                    f"grad_sample_mode {self.mode}: of {len(batch)} examples, {what} from plain "
                    f"autograd's by {share:.2g} of its length. Use each weight in one layer and "
                    "one call, and no layers that the mode does not know, or try another "
                    "--grad_sample_mode."
                )

    def _excess(self, off: Tensor, norms: Tensor) -> Tensor:
        """The error of each parameter, float64[parameters], in units of the tolerance.

        It is the largest over s of the errors `off` [s, parameters] of sums over gradients with
        norms [s, width, parameters]; NaN counts as infinite.
        """
        parts, whole = norms.sum(1), norms.norm(dim=2, keepdim=True).sum(1)
        allowed = self.tolerance * (OF_PART * parts + OF_WHOLE * whole)
        excess: Tensor = (off / allowed.clamp(min=1e-300)).nan_to_num(nan=torch.inf).amax(0)
        return excess

    def _delivered(self, batch: Batch, bound: float) -> Delivered:
        restart()
        try:
            made = self._deliver(batch.fresh(), bound)
        except (ValueError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # Opacus and autograd raise errors of many kinds
            raise unfit(self.mode, error) from error
        for name, part in zip(self.names, made.sums):
            if part is None:
                raise ValueError(
                    f"Parameter {name} gets no gradient in grad_sample_mode {self.mode}: use it as "
                    "a layer's own weight, or try another --grad_sample_mode."
                )
            if part.is_sparse:
                raise ValueError(
                    f"Parameter {name} has a sparse gradient in grad_sample_mode {self.mode}, to "
                    "which no noise can be added: leave sparse=True out of its layer."
                )
        return made

    def _compare_alone(self, batch: Batch) -> None:
        """Check, with constant randomness, that an example's gradient alone is that in a batch."""
        with self.forward.constant():
            columns = torch.arange(batch.width, device=batch.labels.device).split(1)
            for column, together in zip(columns, self._gradients(batch)):
                one = batch.columns(column)
                (alone,) = self._gradients(one)
                off = self._apart(alone, together)
                norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in alone], 1)
                excess = self._excess(off, norms.double().unsqueeze(1))
                if (excess > 1).any():
                    # With saturated units, rounding errors alone may change a gradient this much.
                    off = (off - OF_ROUNDING * self._moved_by_rounding(one, alone)).clamp(min=0)
                    excess = self._excess(off, norms.double().unsqueeze(1))
                if (excess > 1).any():
                    name = self.names[int(excess.argmax())]
                    raise ValueError(
                        f"The gradient of an example by parameter {name} differs between a batch "
                        f"of {batch.width} and the example alone: private training needs "
                        "independent examples."
                    )

    def _moved_by_rounding(self, one: Batch, before: list[Tensor]) -> Tensor:
        """How far rounding errors of weights and inputs move gradients, float64[S, parameters]."""
        generator = torch.Generator().manual_seed(SEED)
        with self.forward.state.all_rounded(generator):
            (after,) = self._gradients(one.changed(lambda values: rounded(values, generator)))
        return self._apart(before, after)

    @staticmethod
    def _apart(one: list[Tensor], other: list[Tensor]) -> Tensor:
        """The norms of the differences of gradients, float64[S, parameters]."""
        return torch.stack(
            [torch.linalg.vector_norm(a - b, dim=1).double() for a, b in zip(one, other)], 1
        )


def unfit(mode: str, error: Exception) -> ValueError:
    """The error for a mode that fails on a model on which plain autograd does not."""
    if "inplace operation" in str(error) or "modified inplace" in str(error):
        return ValueError(
            f"The model changes a tensor in place that grad_sample_mode {mode} needs: leave "
            "inplace=True and operations such as relu_() and += out of it, or try bookkeeping."
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return ValueError(
        f"grad_sample_mode {mode} cannot train this model ({reason}): choose another one."
    )


def _rows(values: Tensor, batch: Batch) -> Tensor:
    """A parameter, or a tensor like it, as [S, numbers]."""
    values = values.to_dense() if values.is_sparse else values
    return values.detach().reshape(batch.models, -1)
