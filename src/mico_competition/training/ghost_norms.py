"""Rules that give each kind of layer's per-example gradient norms, and their weighted sum.

A rule works on the layer's input a and the gradient g of the summed losses with respect to its
output.  Row i of both belongs to example i alone, since layers do not mix examples.  In a sequence
or an image with T positions, the squared norm of an example's gradient is a sum over pairs of
positions (the ghost norm): docs/METHODS.md, section 11.4 (formulas 94 and 95, where g is called d).
If that costs more than the gradient itself, the rule computes the gradient (Bu, Mao and Xu, NeurIPS
2022, arXiv 2205.10683, section 4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mico_competition.training import layer_rule
from mico_competition.training.example_gradients import without
from mico_competition.training.layer_rule import (
    Rule,
    doubt_of,
    not_small,
    pairs,
    rough_square,
    scaled,
    square,
)


class LinearRule(Rule):
    """y = W x + b, for one position (a [b, d]) or many (a [b, T, d])."""

    rounds_input = True

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        if "weight" not in self.trained:
            return square(g if g.ndim == 2 else g.flatten(1, -2).sum(1))
        if a.ndim == 2:
            # The gradient is the outer product of g and a, so its norm is |g| |a|.
            norms = not_small(g)
            if "bias" in self.trained:
                return norms.square() + norms.mul_(not_small(a)).square_()
            return norms.mul_(not_small(a)).square_()
        a, g = a.flatten(1, -2), g.flatten(1, -2)
        if self._pairs_cost_less(a, g):
            squares: Tensor = torch.linalg.vecdot(pairs(a).flatten(1), pairs(g).flatten(1))
        else:
            squares = square(torch.bmm(g.transpose(1, 2), a))
        if "bias" in self.trained:
            squares = squares + square(g.sum(1))
        return squares

    def keeps(self, a: Tensor, g: Tensor) -> bool:
        rows = a[0].numel() + g[0].numel()
        return g.ndim > 2 and self.shape_of("weight").numel() <= layer_rule.KEPT * rows

    def gradients(self, a: Tensor, g: Tensor) -> dict[str, Tensor]:
        a, g = (values.reshape(len(values), -1, values.shape[-1]) for values in (a, g))
        found = {}
        if "weight" in self.trained:
            found["weight"] = self.products(g, a)
        if "bias" in self.trained:
            found["bias"] = g.sum(1)
        return found

    def _pairs_cost_less(self, a: Tensor, g: Tensor) -> bool:
        """Whether pairs of positions cost no more than the product of g and a [b, T, d]."""
        positions, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]
        return positions * positions * (inputs + outputs) <= positions * inputs * outputs

    def size_from(self, a: Tensor, g: Tensor) -> Tensor:
        factor = rough_square(a) if "weight" in self.trained else 0.0
        if "bias" in self.trained:
            factor = factor + math.prod(g.shape[1:-1])
        return rough_square(g) * factor

    def doubt_from(self, a: Tensor, g: Tensor) -> Tensor | None:
        if g.ndim == 2:
            return None
        by_pairs = self._pairs_cost_less(a.flatten(1, -2), g.flatten(1, -2))
        return doubt_of(self.size_from(a, g), of_pairs=by_pairs)

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        weighted = scaled(g, weights).flatten(0, -2)
        if "weight" in self.trained:
            self.module.weight.grad = self.product(weighted, a.flatten(0, -2))
        if "bias" in self.trained:
            self.module.bias.grad = weighted.sum(0)

    def product(self, g: Tensor, a: Tensor) -> Tensor:
        """The sum over rows of the gradients by the weight."""
        return g.T @ a

    def products(self, g: Tensor, a: Tensor) -> Tensor:
        """`product` for each example."""
        return torch.bmm(g.transpose(1, 2), a)


class TransposedLinearRule(LinearRule):
    """y = W^T x + b, as in GPT-2's layer Conv1D of the package transformers."""

    def product(self, g: Tensor, a: Tensor) -> Tensor:
        return a.T @ g

    def products(self, g: Tensor, a: Tensor) -> Tensor:
        return torch.bmm(a.transpose(1, 2), g)


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

    def size_from(self, a: Tensor, g: Tensor) -> Tensor:
        return math.prod(a.shape[1:]) * rough_square(self.counted(a, g))

    def doubt_from(self, a: Tensor, g: Tensor) -> Tensor | None:
        return doubt_of(self.size_from(a, g), of_pairs=True) if a.ndim > 1 else None

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
        if not self._written:  # several calls, of which `Rule` has the gradients
            super().drop(dropped)
        self._written = [(parameter, without(rows, dropped)) for parameter, rows in self._written]

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        for parameter, rows in self._written:
            parameter.grad = self.weighted(weights, rows)


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
