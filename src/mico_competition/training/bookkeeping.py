"""Computes per-example gradient norms and the clipped sum without per-example gradients.

One forward and one backward pass record, for each layer, its input and the gradient of its output.
From these follow the norm of each example's gradient and then the sum of clipped gradients, as one
product: docs/METHODS.md, section 11.3 (formula 93).  The backward pass skips the gradients of
parameters, so the total cost is that of a plain step and the norms.  Source: Bu, Wang, Zha and
Karypis, "Differentially private optimization on large model at small cost", ICML 2023 (arXiv
2210.00038).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.recorder import CallRecorder, Recorder
from mico_competition.training.layer_rule import squared_length
from mico_competition.training.layer_rules import DoubtfulPart, layers_of


class BookKeeper:
    """Computes the clipped sum of per-example gradients of a model's losses.

    Args:
        model: its parameters that require a gradient now are clipped; the others are frozen.
            `layer_rules` says how each layer is handled.

    Raises:
        ValueError: naming the layer or parameter that cannot be clipped.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers = layers_of(model)
        self._recorder = Recorder(model, self.layers.rules, self._see)
        whole = self.layers.whole
        self._whole = CallRecorder(model, whole, self._see_call) if whole else None
        # isinstance of a Protocol takes as long as a small operation of torch.
        self._doubtful = [isinstance(part, DoubtfulPart) for part in self.layers.parts]
        self._count: int | None = None

    @contextmanager
    def recording(self, count: int | None = None) -> Iterator[None]:
        """Record the forward passes of this block for `norms`; parameters get no gradient.

        Args:
            count: the number of examples.  If it is given, a layer may also be called on what all
                examples share, such as the positions of a sequence.
        """
        self._count = count
        self._forget()
        whole = self._whole.recording() if self._whole else nullcontext()
        with self._recorder.recording(), whole, self._rows(count):
            yield

    @contextmanager
    def _rows(self, count: int | None) -> Iterator[None]:
        """Give each example a row of its own of the parameters that blocks use themselves."""
        if self.layers.rows and count is None:
            raise ValueError(
                f"Parameter {self.layers.rows[0].name} is used by a block of layers, whose rule "
                "needs the number of examples: call recording with it."
            )
        try:
            for row in self.layers.rows:
                row.start(count or 0)
            yield
        finally:
            for row in self.layers.rows:
                row.stop()

    def _forget(self) -> None:
        self._apart: dict[DoubtfulPart, list[int]] = {}
        for part in self.layers.parts:
            part.forget()

    def _see(self, module: nn.Module, layer_input: Tensor, output: Tensor) -> Tensor | None:
        """Record a layer's input, and hook the gradient of its output."""
        if not torch.is_grad_enabled():
            return None
        rule = self.layers.rules[module]
        given, shared = layer_input, rule.shared_by_examples(layer_input, self._count)
        if shared is not None:
            assert self._count is not None
            layer_input = shared.expand(self._count, *shared.shape[1:])
            output = output.expand(self._count, *output.shape[given.ndim - shared.ndim + 1 :])
        call = rule.see_input(layer_input, output.dtype)
        output.register_hook(partial(rule.see_output_gradient, call=call))
        return None if shared is None else output

    def _see_call(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        """Record a call of a layer without a formula."""
        if torch.is_grad_enabled():
            self.layers.whole[module].see(arguments, named, output)

    def norms(
        self,
        losses: Tensor,
        *,
        ask: bool = True,
        passes: AbstractContextManager[Any] | None = None,
    ) -> Tensor:
        """Run the backward pass, and compute the norm of each example's gradient.

        Args:
            losses: float[b], one loss for each example, computed inside `recording`.
            ask: whether the host may wait for the device to learn if rounding hides a norm, which
                is then computed anew.  Otherwise such an example gets the bound below which the
                norm lies, so it is clipped more than it need be if that bound exceeds C.
            passes: the context of the backward pass; by default none.

        Returns:
            float[b] >= 0, infinite for an example whose norm overflows or is not a number.  Such
            an example contributes nothing to the weighted sum.

        Raises:
            ValueError: naming a layer that does not contribute to the losses, whose input does
                not have one row for each example, or whose input was changed in place.
        """
        if losses.requires_grad:  # otherwise no layer contributes, and the first rule says so
            with passes or nullcontext():
                losses.backward(torch.ones_like(losses))
        # A frozen part may run in half precision, and the losses with it; the norms never do.
        precision = torch.promote_types(losses.dtype, torch.float32)
        with self._recorder.paused(), self._whole.paused() if self._whole else nullcontext():
            of_parts = [part.squared_norms(losses.shape) for part in self.layers.parts]
        squares = _sum(of_parts, precision)
        doubts = [self._doubt(at, losses.shape) for at in range(len(of_parts))]
        found = [doubt for doubt in doubts if doubt is not None]
        least = _sum(found, precision) if found else None
        if not ask:
            if least is not None:
                squares = torch.where(squares < least, least, squares)
            self._drop_not_finite(squares)
            return squares.sqrt()
        certain = squares if least is None else torch.where(squares >= least, squares, torch.inf)
        if not math.isfinite(certain.sum().item()):
            # The sum may overflow where all are finite; then nothing is settled.
            hidden = (
                torch.zeros_like(squares, dtype=torch.bool) if least is None else squares < least
            )
            self._settle(hidden, squares, of_parts, doubts)
        return squares.sqrt()

    def _doubt(self, at: int, batch: torch.Size) -> Tensor | None:
        part: Any = self.layers.parts[at]
        doubt: Tensor | None = part.doubt(batch) if self._doubtful[at] else None
        return doubt

    def _settle(
        self,
        hidden: Tensor,
        squares: Tensor,
        of_parts: Sequence[Tensor],
        doubts: Sequence[Tensor | None],
    ) -> None:
        """Compute squared norms that rounding hides anew, and drop those that are not finite.

        Args:
            hidden: bool[b], where rounding may hide the squared norm.
            squares: float[b], changed in place.
            of_parts, doubts: each part's squared norms, and what they must exceed.
        """
        at = hidden.nonzero().flatten()
        if len(at):
            squares[at] = 0
            for part, each, doubt in zip(self.layers.parts, of_parts, doubts):
                if doubt is None:
                    squares[at] += each[at].to(squares)
                    continue
                assert isinstance(part, DoubtfulPart)
                part.set_apart(at)
                self._apart[part] = at.tolist()
                rows = (squared_length(part.alone(i).values()) for i in at.tolist())
                squares[at] += torch.stack(list(rows)).to(squares)
        dropped = self._drop_not_finite(squares)
        for part, examples in self._apart.items():
            self._apart[part] = [i for i in examples if not dropped[i]]

    def _drop_not_finite(self, squares: Tensor) -> Tensor:
        """Make squared norms that are not finite infinite, and the gradients of these zero.

        Returns bool[b], which they are.
        """
        squares.nan_to_num_(nan=torch.inf, posinf=torch.inf)
        dropped = squares.isinf()
        for part in self.layers.parts:
            part.drop(dropped)
        return dropped

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into each parameter's `grad`; forget the batch."""
        for part in self.layers.parts:
            part.write_weighted_sum(weights)
        for part, examples in self._apart.items():
            for example in examples:
                for parameter, row in part.alone(example).items():
                    assert parameter.grad is not None
                    parameter.grad += row * weights[example]
        self._forget()


def _sum(rows: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The sum of tensors of one shape in a precision; at least one."""
    if len(rows) == 2:
        return rows[0].to(dtype) + rows[1].to(dtype)
    total: Tensor = torch.stack(list(rows)).sum(0, dtype=dtype)
    return total
