"""Rules that give each kind of layer's per-example gradient norms, and their weighted sum.

A rule works on the layer's input a and the gradient g of the summed losses with respect to its
output.  Row i of both belongs to example i alone, since layers do not mix examples.  In a sequence
or an image with T positions, the squared norm of an example's gradient is a sum over pairs of
positions (the ghost norm): docs/METHODS.md, section 11.4 (formulas 90 and 91, where g is called d).
If that costs more than the gradient itself, the rule computes the gradient (Bu, Mao and Xu, NeurIPS
2022, arXiv 2205.10683, section 4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight


class Rule:
    """The rule of one layer, with what it recorded of one batch; subclasses have the formulas."""

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module
        self.check()
        self.forget()

    def check(self) -> None:
        """Raise ValueError if the layer has options that the rule does not support."""

    def forget(self) -> None:
        """Drop what was recorded of a batch."""
        self._input: Tensor | None = None
        self._gradient: Tensor | None = None

    def see_input(self, inputs: Tensor) -> None:
        """Record the layer's input; ValueError for a second call in one forward pass."""
        if self._input is not None:
            raise ValueError(
                f"Layer {self.name} is called twice in one forward pass: private training needs "
                "a separate layer for each call."
            )
        self._input = inputs.detach()
        self._version = inputs._version

    def see_output_gradient(self, gradient: Tensor) -> None:
        """Record the gradient of the layer's output."""
        self._gradient = gradient.detach()

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """The squared norms of this layer's per-example gradients, float[batch]."""
        count = len(batch)
        if self._input is None or self._gradient is None:
            raise ValueError(
                f"Layer {self.name} takes no part in the loss, so its gradient is not known: "
                "remove it from the model."
            )
        if self._input.shape[:count] != batch or self._gradient.shape[:count] != batch:
            raise ValueError(
                f"Layer {self.name} sees {len(self._input)} rows in a batch of {batch[-1]} "
                "examples: the loss does not separate by example."
            )
        if self._input._version != self._version:
            # Autograd checks this only for parameters that require a gradient; here none does.
            raise ValueError(
                f"Layer {self.name} had its input changed in place after it was called: leave "
                "inplace=True and the like out of the model."
            )
        # Rounding may make a sum over pairs of positions negative.
        return self.norms_from(self._input, self._gradient).clamp_(min=0)

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into the `grad` of the layer's parameters."""
        assert self._input is not None and self._gradient is not None
        self.sums_into_grad(self._input, self._gradient, weights)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        """The squared norms of per-example gradients, float[batch]."""
        raise NotImplementedError

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        """Write the weighted sum of per-example gradients into the parameters' `grad`."""
        raise NotImplementedError


def _square(x: Tensor) -> Tensor:
    """The squared norm of each row of x [b, ...]."""
    flat = x.flatten(1)
    square: Tensor = torch.linalg.vecdot(flat, flat)
    return square


def _scaled(g: Tensor, weights: Tensor) -> Tensor:
    return g * weights.view(-1, *([1] * (g.ndim - 1)))


def _pairs(x: Tensor) -> Tensor:
    """The inner products [b, T, T] of all positions of each example of x [b, T, d]."""
    return torch.bmm(x, x.transpose(1, 2))


class LinearRule(Rule):
    """y = W x + b, for one position (a [b, d]) or many (a [b, T, d])."""

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        if a.ndim == 2:
            # The gradient is the outer product of g and a, so its norm is |g| |a|.
            lengths = _square(a)
            return _square(g) * (lengths + 1 if self.module.bias is not None else lengths)
        a, g = a.flatten(1, -2), g.flatten(1, -2)
        positions, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]
        if positions * positions * (inputs + outputs) <= positions * inputs * outputs:
            squares: Tensor = torch.linalg.vecdot(_pairs(a).flatten(1), _pairs(g).flatten(1))
        else:
            squares = _square(torch.bmm(g.transpose(1, 2), a))
        if self.module.bias is not None:
            squares = squares + _square(g.sum(1))
        return squares

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        scaled = _scaled(g, weights).flatten(0, -2)
        self.module.weight.grad = scaled.T @ a.flatten(0, -2)
        if self.module.bias is not None:
            self.module.bias.grad = scaled.sum(0)


class EmbeddingRule(Rule):
    """y_t is the row of W for token t; the row of `padding_idx` has no gradient."""

    def check(self) -> None:
        if self.module.max_norm is not None or self.module.scale_grad_by_freq or self.module.sparse:
            raise ValueError(
                f"Layer {self.name} (Embedding) is not supported in book-keeping mode with "
                "max_norm, scale_grad_by_freq or sparse: leave them off."
            )

    def _counted(self, tokens: Tensor, g: Tensor) -> Tensor:
        padding = self.module.padding_idx
        return g if padding is None else g * (tokens != padding).unsqueeze(-1)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        tokens = a.reshape(len(a), -1)  # an example has one token or many
        g = g.reshape(*tokens.shape, -1)
        same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
        return (_pairs(self._counted(tokens, g)) * same).flatten(1).sum(1)

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        scaled = self._counted(a, _scaled(g, weights)).flatten(0, -2)
        total = torch.zeros_like(self.module.weight)
        self.module.weight.grad = total.index_add_(0, a.flatten(), scaled)


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
            parameter = getattr(self.module, name, None)
            if parameter is not None:
                self._written.append((parameter, row.sum(dims) if dims else row))
        return torch.stack([_square(row) for _, row in self._written]).sum(0)

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


class Conv2dRule(Rule):
    """A convolution is a linear layer on patches; its positions are the pixels of the output."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def check(self) -> None:
        m = self.module
        if m.groups != 1 or m.padding_mode != "zeros" or isinstance(m.padding, str):
            raise ValueError(
                f"Layer {self.name} ({type(m).__name__}) is supported in book-keeping mode with "
                "groups=1, numbers as padding and padding_mode='zeros' only."
            )
        self.kernel_size, self.stride = m.kernel_size, m.stride
        self.padding, self.dilation = m.padding, m.dilation

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        positions, outputs = g.shape[2] * g.shape[3], g.shape[1]
        patch = a.shape[1] * math.prod(self.kernel_size)
        pixels = math.prod(self._padded_size(a))
        direct = positions * patch * outputs
        ghost = pixels * pixels * a.shape[1] + positions * positions * outputs
        if ghost < direct and self._dense():
            rows = g.flatten(2).transpose(1, 2)
            pairs = self._patch_pairs(a).flatten(1)
            squares: Tensor = torch.linalg.vecdot(pairs, _pairs(rows).flatten(1))
        else:
            squares = _square(torch.bmm(g.flatten(2), self._patches(a).transpose(1, 2)))
        if self.module.bias is not None:
            squares = squares + _square(g.sum((2, 3)))
        return squares

    def _dense(self) -> bool:
        """Whether the patches of neighbouring positions lie one pixel apart."""
        return self.stride == (1, 1) and self.dilation == (1, 1)

    def _padded_size(self, a: Tensor) -> tuple[int, int]:
        return a.shape[2] + 2 * self.padding[0], a.shape[3] + 2 * self.padding[1]

    def _patches(self, a: Tensor) -> Tensor:
        """The patch of each position, [b, patch, T]."""
        return functional.unfold(a, self.kernel_size, self.dilation, self.padding, self.stride)

    def _patch_pairs(self, a: Tensor) -> Tensor:
        """The inner products [b, T, T] of all patches, without building the patches.

        The inner product of two patches is a sum, over offsets inside a patch, of inner products
        of pixels; each of these serves all pairs of patches that contain the two pixels.
        """
        above, left = self.padding
        a = functional.pad(a, (left, left, above, above))
        b, _, height, width = a.shape
        pixels = _pairs(a.flatten(2).transpose(1, 2)).view(b, height, width, height, width)
        rows, columns = height - self.kernel_size[0] + 1, width - self.kernel_size[1] + 1
        # Sum along the diagonals of (row, row') first, then of (column, column').
        by_row = sum(
            pixels[:, i : i + rows, :, i : i + rows, :] for i in range(self.kernel_size[0])
        )
        assert isinstance(by_row, Tensor)
        both = sum(
            by_row[:, :, j : j + columns, :, j : j + columns] for j in range(self.kernel_size[1])
        )
        assert isinstance(both, Tensor)
        return both.reshape(b, rows * columns, rows * columns)

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        weight, bias = self.module.weight, self.module.bias
        scaled = _scaled(g, weights)
        shape = (*weight.shape[:2], *self.kernel_size)
        weight.grad = conv2d_weight(
            a, shape, scaled, self.stride, self.padding, self.dilation
        ).view_as(weight)
        if bias is not None:
            bias.grad = scaled.sum((0, 2, 3))


class Conv1dRule(Conv2dRule):
    """Treats a sequence as an image of height one."""

    def check(self) -> None:
        super().check()
        m = self.module
        self.kernel_size, self.stride = (1, *m.kernel_size), (1, *m.stride)
        self.padding, self.dilation = (0, *m.padding), (1, *m.dilation)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        return super().norms_from(a.unsqueeze(2), g.unsqueeze(2))

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        super().sums_into_grad(a.unsqueeze(2), g.unsqueeze(2), weights)


RULES: dict[type[nn.Module], type[Rule]] = {
    nn.Linear: LinearRule,
    nn.Conv1d: Conv1dRule,
    nn.Conv2d: Conv2dRule,
    nn.Embedding: EmbeddingRule,
    nn.LayerNorm: LayerNormRule,
    nn.RMSNorm: RMSNormRule,
    nn.GroupNorm: GroupNormRule,
    nn.InstanceNorm1d: InstanceNormRule,
    nn.InstanceNorm2d: InstanceNormRule,
    nn.InstanceNorm3d: InstanceNormRule,
}
