"""Rules that give each kind of layer's per-example gradient norms, and their weighted sum.

A rule works on the layer's input a and the gradient g of the summed losses with respect to its
output.  Row i of both belongs to example i alone, since layers do not mix examples.  In a sequence
or an image with T positions, the squared norm of an example's gradient is a sum over pairs of
positions (the ghost norm): docs/METHODS.md, section 11.4 (formulas 90 and 91, where g is called d).
If that costs more than the gradient itself, the rule computes the gradient (Bu, Mao and Xu, NeurIPS
2022, arXiv 2205.10683, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mico_competition.training.example_gradients import example_gradients, without


@dataclass
class Call:
    """One call of a layer: its input, that input's version counter, and the output's gradient."""

    inputs: Tensor
    version: int
    gradient: Tensor | None = None


class Rule:
    """The rule of one layer, with what it recorded of one batch; subclasses have the formulas."""

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

    def shared_by_examples(self, inputs: Tensor, count: int | None) -> Tensor | None:
        """An input that all `count` examples share, as one row; None if each has its own."""
        return None

    def see_input(self, inputs: Tensor) -> int:
        """Record the input of a call, and return the number of the call."""
        self._calls.append(Call(inputs.detach(), inputs._version))
        return len(self._calls) - 1

    def see_output_gradient(self, gradient: Tensor, call: int = -1) -> None:
        """Record the gradient of the output of a call."""
        self._calls[call].gradient = gradient.detach()

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """The squared norms of this layer's per-example gradients, float[batch]."""
        calls = list(self.recorded(batch))
        if len(calls) == 1:
            return not_negative(self.norms_from(*calls[0]))
        if len(batch) > 1:
            raise ValueError(
                f"Layer {self.name} is called twice in one forward pass: training models in a "
                "stack needs a separate layer for each call."
            )
        for a, g in calls:
            for name, rows in self.gradients(a, g).items():
                self._rows[name] = self._rows[name] + rows if name in self._rows else rows
        return torch.stack([square(rows) for rows in self._rows.values()]).sum(0)

    def recorded(self, batch: torch.Size) -> Iterator[tuple[Tensor, Tensor]]:
        """The input and output gradient of each call that the losses depend on."""
        count = len(batch)
        calls = [call for call in self._calls if call.gradient is not None]
        if not calls:
            raise ValueError(
                f"Layer {self.name} takes no part in the loss, so its gradient is not known: "
                "remove it from the model, or freeze it by requires_grad_(False)."
            )
        for call in calls:
            assert call.gradient is not None
            if call.inputs.shape[:count] != batch or call.gradient.shape[:count] != batch:
                raise ValueError(
                    f"Layer {self.name} sees {len(call.inputs)} rows in a batch of {batch[-1]} "
                    "examples: the loss does not separate by example."
                )
            if call.inputs._version != call.version:
                # Autograd checks this only for parameters that require a gradient; here none does.
                raise ValueError(
                    f"Layer {self.name} had its input changed in place after it was called: leave "
                    "inplace=True and the like out of the model."
                )
            yield call.inputs, call.gradient

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
                getattr(self.module, name).grad = torch.tensordot(weights, rows, dims=1)
            return
        (call,) = [call for call in self._calls if call.gradient is not None]
        assert call.gradient is not None
        self.sums_into_grad(call.inputs, call.gradient, weights)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        """The squared norms of per-example gradients, float[batch]."""
        raise NotImplementedError

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        """Write the weighted sum of per-example gradients into the parameters' `grad`."""
        raise NotImplementedError

    def gradients(self, a: Tensor, g: Tensor) -> dict[str, Tensor]:
        """The gradient of each example by each trained parameter, by its name in the layer."""
        return example_gradients(self.name, self.module, self.trained, (a,), {}, [g])


def not_negative(squares: Tensor) -> Tensor:
    """Squared norms, changed in place: no less than 0, and infinite if they are not finite.

    Rounding may make a sum over pairs of positions negative, and an overflow -inf or NaN.
    """
    inf = torch.inf
    return squares.nan_to_num_(nan=inf, posinf=inf, neginf=inf).clamp_(min=0)


def square(x: Tensor) -> Tensor:
    """The squared norm of each row of x [b, ...]."""
    flat = x.flatten(1)
    square: Tensor = torch.linalg.vecdot(flat, flat)
    return square


def scaled(g: Tensor, weights: Tensor) -> Tensor:
    """Each row of g times its weight."""
    return g * weights.view(-1, *([1] * (g.ndim - 1)))


def pairs(x: Tensor) -> Tensor:
    """The inner products [b, T, T] of all positions of each example of x [b, T, d]."""
    return torch.bmm(x, x.transpose(1, 2))


class LinearRule(Rule):
    """y = W x + b, for one position (a [b, d]) or many (a [b, T, d])."""

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        if "weight" not in self.trained:
            return square(g if g.ndim == 2 else g.flatten(1, -2).sum(1))
        if a.ndim == 2:
            # The gradient is the outer product of g and a, so its norm is |g| |a|.
            lengths = square(a)
            return square(g) * (lengths + 1 if "bias" in self.trained else lengths)
        a, g = a.flatten(1, -2), g.flatten(1, -2)
        positions, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]
        if positions * positions * (inputs + outputs) <= positions * inputs * outputs:
            squares: Tensor = torch.linalg.vecdot(pairs(a).flatten(1), pairs(g).flatten(1))
        else:
            squares = square(torch.bmm(g.transpose(1, 2), a))
        if "bias" in self.trained:
            squares = squares + square(g.sum(1))
        return squares

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        weighted = scaled(g, weights).flatten(0, -2)
        if "weight" in self.trained:
            self.module.weight.grad = self.product(weighted, a.flatten(0, -2))
        if "bias" in self.trained:
            self.module.bias.grad = weighted.sum(0)

    def product(self, g: Tensor, a: Tensor) -> Tensor:
        """The sum over rows of the gradients by the weight."""
        return g.T @ a


class TransposedLinearRule(LinearRule):
    """y = W^T x + b, as in GPT-2's layer Conv1D of the package transformers."""

    def product(self, g: Tensor, a: Tensor) -> Tensor:
        return a.T @ g


class EmbeddingRule(Rule):
    """y_t is the row of W for token t; the row of `padding_idx` has no gradient."""

    def check(self) -> None:
        if self.module.max_norm is not None or self.module.scale_grad_by_freq or self.module.sparse:
            raise ValueError(
                f"Layer {self.name} (Embedding) is not supported in book-keeping mode with "
                "max_norm, scale_grad_by_freq or sparse: leave them off."
            )

    def shared_by_examples(self, inputs: Tensor, count: int | None) -> Tensor | None:
        """One vector or row of tokens, such as the positions 0..T-1 of all sequences."""
        if count is None:
            return None
        if inputs.ndim == 1 and (self._all_share or len(inputs) != count):
            self._all_share = True  # the number of positions may be that of the examples later
            return inputs.unsqueeze(0)
        return inputs if inputs.ndim > 1 and len(inputs) == 1 < count else None

    def counted(self, tokens: Tensor, g: Tensor) -> Tensor:
        """The gradients g without those of the padding."""
        padding = self.module.padding_idx
        return g if padding is None else g * (tokens != padding).unsqueeze(-1)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        tokens = a.reshape(len(a), -1)  # an example has one token or many
        g = g.reshape(*tokens.shape, -1)
        same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
        return (pairs(self.counted(tokens, g)) * same).flatten(1).sum(1)

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        weighted = self.counted(a, scaled(g, weights)).flatten(0, -2)
        total = torch.zeros_like(self.module.weight)
        self.module.weight.grad = total.index_add_(0, a.flatten(), weighted)


class ScaleRule(Rule):
    """y = w * x^ + b with x^ the normalised input; per-example gradients are small enough."""

    def normalised(self, a: Tensor) -> Tensor:
        """x^, the layer's output for w = 1 and b = 0."""
        raise NotImplementedError

    def shared_dims(self, a: Tensor) -> tuple[int, ...]:
        """The dimensions of the input that share one element of w."""
        raise NotImplementedError

    def forget(self) -> None:
        super().forget()
        self._written: list[tuple[Tensor, Tensor]] = []

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        dims = self.shared_dims(a)
        rows = {"weight": self.normalised(a).mul_(g), "bias": g}
        for name, row in rows.items():
            if name in self.trained:
                parameter = getattr(self.module, name)
                self._written.append((parameter, row.sum(dims) if dims else row))
        return torch.stack([square(row) for _, row in self._written]).sum(0)

    def drop(self, dropped: Tensor) -> None:
        super().drop(dropped)
        self._written = [(parameter, without(rows, dropped)) for parameter, rows in self._written]

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        for parameter, rows in self._written:
            parameter.grad = torch.tensordot(weights, rows, dims=1)


class LayerNormRule(ScaleRule):
    """w has an element for each index of the last dimensions, `normalized_shape`."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.layer_norm(a, self.module.normalized_shape, eps=self.module.eps)

    def shared_dims(self, a: Tensor) -> tuple[int, ...]:
        return tuple(range(1, a.ndim - len(self.module.normalized_shape)))


class RMSNormRule(LayerNormRule):
    """Like LayerNorm, without the mean and without b."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.rms_norm(a, self.module.normalized_shape, eps=self.module.eps)


class GroupNormRule(ScaleRule):
    """w has an element for each channel, the second dimension."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.group_norm(a, self.module.num_groups, eps=self.module.eps)

    def shared_dims(self, a: Tensor) -> tuple[int, ...]:
        return tuple(range(2, a.ndim))


class InstanceNormRule(GroupNormRule):
    """Like GroupNorm with one channel a group; `private_checks` refuses running statistics."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.instance_norm(a, eps=self.module.eps)


RULES: dict[type[nn.Module], type[Rule]] = {
    nn.Linear: LinearRule,
    nn.Embedding: EmbeddingRule,
    nn.LayerNorm: LayerNormRule,
    nn.RMSNorm: RMSNormRule,
    nn.GroupNorm: GroupNormRule,
    nn.InstanceNorm1d: InstanceNormRule,
    nn.InstanceNorm2d: InstanceNormRule,
    nn.InstanceNorm3d: InstanceNormRule,
}
