"""What the rules of all kinds of layers share: the record of a layer's calls, and when to doubt it.

A squared norm that is a sum over pairs of positions loses its digits if the positions cancel: that
of a gradient of length 1,000 may come out as 0, and clipping would leave the gradient as it is.  So
a rule also says what its squared norm must exceed (`Rule.doubt`).  `BookKeeper` computes the
gradient of an example below that by itself, and clips and adds this very gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.training.example_gradients import example_gradients, without

KEPT = 2.0  # per-example gradients are kept up to this many times the numbers they follow from
CERTAIN = 1000.0  # a squared norm must exceed its rounding error this many times


@dataclass
class Call:
    """One call of a layer: its input, that input's version counter, and the output's gradient.

    Under autocast both may be bfloat16, which halves what they take.
    """

    inputs: Tensor
    version: int
    gradient: Tensor | None = None

    @property
    def values(self) -> tuple[Tensor, Tensor]:
        """Input and gradient, of which norms and sums are computed: in float32 at least."""
        assert self.gradient is not None
        return at_least_float32(self.inputs), at_least_float32(self.gradient)


class Rule:
    """The rule of one layer, with what it recorded of one batch; subclasses have the formulas.

    Where per-example gradients are small, as the layer has few weights for its positions, the rule
    computes them instead of the norm and the sum over all examples: one product instead of two, of
    as many operations as plain training has.  What is clipped is then what is added, so no norm is
    in doubt.

    Attributes:
        rounds_input: whether autocast rounds the layer's input to the type of its output.
        may_keep: whether small per-example gradients may take the place of what was recorded.
    """

    rounds_input = False
    may_keep = True

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module
        self.trained = frozenset(
            own for own, p in module.named_parameters(recurse=False) if p.requires_grad
        )
        self._all_share = False
        self.check()
        self.forget()

    def check(self) -> None:
        """Raise ValueError if the layer has options that the rule does not support."""

    def forget(self) -> None:
        """Drop what was recorded of a batch."""
        self._calls: list[Call] = []
        self._rows: dict[str, Tensor] = {}
        self._apart: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def shared_by_examples(self, inputs: Tensor, count: int | None) -> Tensor | None:
        """An input that all `count` examples share, as one row; None if each has its own."""
        return None

    def see_input(self, inputs: Tensor, computed: torch.dtype | None = None) -> int:
        """Record the input of a call whose output has type `computed`; return the call's number."""
        seen = inputs.detach()
        if self.rounds_input and computed and computed.itemsize < seen.dtype.itemsize:
            seen = seen.to(computed)
        self._calls.append(Call(seen, seen._version))
        return len(self._calls) - 1

    def see_output_gradient(self, gradient: Tensor, call: int = -1) -> None:
        """Record the gradient of the output of a call."""
        self._calls[call].gradient = gradient.detach()

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """The squared norms of this layer's per-example gradients, float[batch]."""
        calls = list(self.recorded(batch))
        keeps = len(calls) == 1 and self.may_keep and self.keeps(*calls[0])
        if len(calls) == 1 and not keeps:
            squares = self.norms_from(*calls[0])
            one_position = calls[0][1].ndim == 2  # then it is no sum over pairs of positions
            return squares if one_position else not_negative(squares)
        for a, g in calls:
            for name, rows in self.gradients(a, g).items():
                self._rows[name] = self._rows[name] + rows if name in self._rows else rows
        self._calls = []
        return torch.stack([square(rows) for rows in self._rows.values()]).sum(0)

    def recorded(self, batch: torch.Size) -> Iterator[tuple[Tensor, Tensor]]:
        """The input and output gradient of each call that the losses depend on."""
        calls = [call for call in self._calls if call.gradient is not None]
        if not calls:
            raise ValueError(
                f"Layer {self.name} takes no part in the loss, so its gradient is not known: "
                "remove it from the model, or freeze it by requires_grad_(False)."
            )
        for call in calls:
            assert call.gradient is not None
            if call.inputs.shape[:1] != batch or call.gradient.shape[:1] != batch:
                raise ValueError(
                    f"Layer {self.name} sees {len(call.inputs)} rows in a batch of {batch[0]} "
                    "examples: the loss does not separate by example."
                )
            if call.inputs._version != call.version:
                # Autograd checks this only for parameters that require a gradient; here none does.
                raise ValueError(
                    f"Layer {self.name} had its input changed in place after it was called: leave "
                    "inplace=True and the like out of the model."
                )
            yield call.values

    def doubt(self, batch: torch.Size) -> Tensor | None:
        """Rounding may hide squared norms below this, float[batch]; None if it cannot."""
        if self._rows:
            return None
        ((a, g),) = self.recorded(batch)
        return self.doubt_from(a, g)

    def shape_of(self, name: str) -> torch.Size:
        """The shape of an example's gradient by a parameter of the layer."""
        shape: torch.Size = getattr(self.module, name).shape
        return shape

    def weighted(self, weights: Tensor, rows: Tensor) -> Tensor:
        """The sum of weights_i * rows_i, where row i is the gradient of example i."""
        total: Tensor = torch.tensordot(weights, rows, dims=1)
        return total

    def keeps(self, a: Tensor, g: Tensor) -> bool:
        """Whether per-example gradients are small enough to be computed and kept."""
        return False

    def doubt_from(self, a: Tensor, g: Tensor) -> Tensor | None:
        """`doubt` of one call."""
        return None

    def size(self, batch: torch.Size) -> Tensor:
        """The squared norms if no two positions cancelled, or more, float[batch]."""
        sizes = [self.size_from(a, g) for a, g in self.recorded(batch)]
        return len(sizes) * torch.stack(sizes).sum(0)

    def size_from(self, a: Tensor, g: Tensor) -> Tensor:
        """`size` of one call."""
        raise NotImplementedError

    def set_apart(self, at: Tensor) -> None:
        """Take the examples at int64[k] out of the weighted sum; `alone` has their gradients."""
        calls = [call.values for call in self._calls if call.gradient is not None]
        taken = {i: [(a[i : i + 1], g[i : i + 1]) for a, g in calls] for i in at.tolist()}
        chosen = torch.zeros(len(calls[0][0]), dtype=torch.bool, device=at.device)
        self.drop(chosen.index_fill(0, at, True))
        self._apart = taken

    def alone(self, example: int) -> dict[nn.Parameter, Tensor]:
        """The gradient of an example that was set apart, by parameter."""
        parameters = [self.module.get_parameter(own) for own in self.trained]
        before, total = [p.grad for p in parameters], dict[nn.Parameter, Tensor]()
        for a, g in self._apart[example]:
            self.sums_into_grad(a, g, g.new_ones(1))
            for parameter in parameters:
                add_to(total, parameter, parameter.grad)
        for parameter, grad in zip(parameters, before):
            parameter.grad = grad
        return total

    def drop(self, dropped: Tensor) -> None:
        """Make the gradients of the examples that `dropped`, bool[batch], marks zero."""
        self._rows = {name: without(rows, dropped) for name, rows in self._rows.items()}
        for call in self._calls:
            if call.gradient is not None:
                call.inputs = without(call.inputs, dropped)
                call.gradient = without(call.gradient, dropped)

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into the `grad` of the layer's parameters."""
        if self._rows:
            for name, rows in self._rows.items():
                getattr(self.module, name).grad = self.weighted(weights, rows)
            return
        (call,) = [call for call in self._calls if call.gradient is not None]
        self.sums_into_grad(*call.values, weights)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        """The squared norms of per-example gradients, float[batch]."""
        raise NotImplementedError

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        """Write the weighted sum of per-example gradients into the parameters' `grad`."""
        raise NotImplementedError

    def gradients(self, a: Tensor, g: Tensor) -> dict[str, Tensor]:
        """The gradient of each example by each trained parameter, by its name in the layer."""
        return example_gradients(self.name, self.module, self.trained, (a,), {}, [g])


def at_least_float32(x: Tensor) -> Tensor:
    """Real numbers of half precision as float32, which is exact; anything else as it is."""
    return x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x


def not_negative(squares: Tensor) -> Tensor:
    """Squared norms, changed in place: no less than 0, and infinite if they are not finite.

    Rounding may make a sum over pairs of positions negative, and an overflow -inf or NaN.
    """
    inf = torch.inf
    return squares.nan_to_num_(nan=inf, posinf=inf, neginf=inf).clamp_(min=0)


def square(x: Tensor) -> Tensor:
    """The squared norm of each row of x [b, ...], in two stages, which lose fewer digits."""
    norms = torch.linalg.vector_norm(x, dim=-1).flatten(1) if x.ndim > 2 else x
    lengths: Tensor = torch.linalg.vector_norm(norms, dim=1)
    return lengths.square_()


def add_to(total: dict[nn.Parameter, Tensor], parameter: nn.Parameter, row: Any) -> None:
    """Add a parameter's part of a gradient to the others."""
    total[parameter] = total[parameter] + row if parameter in total else row


def squared_length(parts: Iterable[Tensor]) -> Tensor:
    """The squared norm of one gradient, float[], from its parts."""
    return torch.stack([square(part.unsqueeze(0)).squeeze() for part in parts]).sum()


def rough_square(x: Tensor) -> Tensor:
    """`square`, faster and rounded otherwise, and infinite where it is very large.

    The square of another factor may then be too small for a float, and count as 0.
    """
    squares: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1).square_()
    return squares.masked_fill_(squares > torch.finfo(squares.dtype).max ** 0.8, torch.inf)


def not_small(x: Tensor) -> Tensor:
    """The norm of each row of x [b, d], and where it is very small a bound of it.

    A square that is too small for a float would count as 0 in a product with a large one.
    """
    norms: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norms.clamp_(min=torch.finfo(norms.dtype).tiny ** 0.4)


def doubt_of(size: Tensor, *, of_pairs: bool) -> Tensor:
    """What a squared norm must exceed, for a sum over positions of this `size`, float[b].

    Rounding changes a sum over pairs by about eps * size, and a sum over positions by about
    eps * sqrt(size).
    """
    least = CERTAIN * torch.finfo(size.dtype).eps
    return size * (least if of_pairs else least * least)


def scaled(g: Tensor, weights: Tensor) -> Tensor:
    """Each row of g times its weight."""
    return g * weights.view(-1, *([1] * (g.ndim - 1)))


def pairs(x: Tensor) -> Tensor:
    """The inner products [b, T, T] of all positions of each example of x [b, T, d]."""
    return torch.bmm(x, x.transpose(1, 2))
