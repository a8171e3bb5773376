"""For each kind of layer: norms of per-example gradients, and their weighted sum, from a and g.

a is the layer's input and g the gradient of the summed losses by its output; row i of both belongs
to example i alone, since layers do not mix examples.  A sequence or an image has T places, and the
squared norm of an example's gradient is a sum over pairs of places (ghost norm), or comes from the
gradient itself where that is cheaper: docs/METHODS.md, section 11.4 (formulas 90 and 91, where g is
called d).  The choice is by cost, layer by layer (Bu, Mao and Xu, NeurIPS 2022, arXiv 2205.10683,
section 4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight


class Rule:
    """What is kept of one layer in one batch; subclasses know the layer's derivative."""

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module
        self.check()
        self.forget()

    def check(self) -> None:
        """ValueError if the layer is used in a way that the rule does not cover."""

    def forget(self) -> None:
        """Drop what was kept of a batch."""
        self._input: Tensor | None = None
        self._gradient: Tensor | None = None

    def see_input(self, inputs: Tensor) -> None:
        """Keep the layer's input; a second call in one forward pass is refused."""
        if self._input is not None:
            raise ValueError(
                f"Layer {self.name} is called twice in one forward pass: private training needs "
                "a layer of its own for each call."
            )
        self._input = inputs.detach()
        self._version = inputs._version

    def see_output_gradient(self, gradient: Tensor) -> None:
        """Keep the gradient of the layer's output."""
        self._gradient = gradient.detach()

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """float[batch], squared norms of this layer's per-example gradients."""
        count = len(batch)
        if self._input is None or self._gradient is None:
            raise ValueError(
                f"Layer {self.name} takes no part in the loss, so its gradient is not known: "
                "take it out of the model."
            )
        if self._input.shape[:count] != batch or self._gradient.shape[:count] != batch:
            raise ValueError(
                f"Layer {self.name} sees {len(self._input)} rows in a batch of {batch[-1]} "
                "examples: the loss does not separate by example."
            )
        if self._input._version != self._version:
            # Autograd looks after this for parameters that ask for a gradient; here none does.
            raise ValueError(
                f"Layer {self.name} had its input changed in place after it was called: leave "
                "inplace=True and the like out of the model."
            )
        # Rounding may take a sum over pairs of places below zero, of which there is no root.
        return self.norms_from(self._input, self._gradient).clamp_(min=0)

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Put sum_i weights_i * gradient_i into the layer's parameters' `grad`."""
        assert self._input is not None and self._gradient is not None
        self.sums_into_grad(self._input, self._gradient, weights)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        raise NotImplementedError

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        raise NotImplementedError


def _square(x: Tensor) -> Tensor:
    """Squared norm of each row of x [b, ...]."""
    flat = x.flatten(1)
    return torch.linalg.vecdot(flat, flat)


def _scaled(g: Tensor, weights: Tensor) -> Tensor:
    return g * weights.view(-1, *([1] * (g.ndim - 1)))


def _pairs(x: Tensor) -> Tensor:
    """[b, T, T], inner products of the places of each example of x [b, T, d]."""
    return torch.bmm(x, x.transpose(1, 2))


class LinearRule(Rule):
    """y = W x + b, for one place (a [b, d]) or many (a [b, T, d])."""

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        if a.ndim == 2:
            # The gradient is the outer product of g and a, and its norm that of their norms.
            lengths = _square(a)
            return _square(g) * (lengths + 1 if self.module.bias is not None else lengths)
        a, g = a.flatten(1, -2), g.flatten(1, -2)
        places, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]
        if places * places * (inputs + outputs) <= places * inputs * outputs:
            squares = torch.linalg.vecdot(_pairs(a).flatten(1), _pairs(g).flatten(1))
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
    """y_t = row of W named by token t; rows of `padding_idx` have no gradient."""

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
        tokens = a.reshape(len(a), -1)  # one token an example, or many
        g = g.reshape(*tokens.shape, -1)
        same = tokens.unsqueeze(1) == tokens.unsqueeze(2)
        return (_pairs(self._counted(tokens, g)) * same).flatten(1).sum(1)

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        scaled = self._counted(a, _scaled(g, weights)).flatten(0, -2)
        total = torch.zeros_like(self.module.weight)
        self.module.weight.grad = total.index_add_(0, a.flatten(), scaled)


class ScaleRule(Rule):
    """y = w * x^ + b with x^ the normalised input; its gradients are small enough to write out."""

    def normalised(self, a: Tensor) -> Tensor:
        """x^: the layer's output, were w 1 and b 0."""
        raise NotImplementedError

    def places(self, a: Tensor) -> tuple[int, ...]:
        """The dimensions of the input over which one number of w is shared."""
        raise NotImplementedError

    def forget(self) -> None:
        super().forget()
        self._written: list[tuple[Tensor, Tensor]] = []

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        places = self.places(a)
        rows = {"weight": self.normalised(a).mul_(g), "bias": g}
        for name, row in rows.items():
            parameter = getattr(self.module, name, None)
            if parameter is not None:
                self._written.append((parameter, row.sum(places) if places else row))
        return torch.stack([_square(row) for _, row in self._written]).sum(0)

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        for parameter, rows in self._written:
            parameter.grad = torch.tensordot(weights, rows, dims=1)


class LayerNormRule(ScaleRule):
    """Numbers of w for each place of `normalized_shape`, the last dimensions."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.layer_norm(a, self.module.normalized_shape, eps=self.module.eps)

    def places(self, a: Tensor) -> tuple[int, ...]:
        return tuple(range(1, a.ndim - len(self.module.normalized_shape)))


class RMSNormRule(LayerNormRule):
    """As LayerNorm, without a mean and without b."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.rms_norm(a, self.module.normalized_shape, eps=self.module.eps)


class GroupNormRule(ScaleRule):
    """Numbers of w for each channel, the second dimension."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.group_norm(a, self.module.num_groups, eps=self.module.eps)

    def places(self, a: Tensor) -> tuple[int, ...]:
        return tuple(range(2, a.ndim))


class InstanceNormRule(GroupNormRule):
    """Each channel is a group; running statistics, which are not private, are refused elsewhere."""

    def normalised(self, a: Tensor) -> Tensor:
        return functional.instance_norm(a, eps=self.module.eps)


class Conv2dRule(Rule):
    """A convolution is a linear layer on patches; the places are the pixels of its output."""

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
        places, outputs = g.shape[2] * g.shape[3], g.shape[1]
        patch = a.shape[1] * math.prod(self.kernel_size)
        pixels = math.prod(self._padded_size(a))
        direct = places * patch * outputs
        if pixels * pixels * a.shape[1] + places * places * outputs < direct and self._dense():
            rows = g.flatten(2).transpose(1, 2)
            squares = torch.linalg.vecdot(self._patch_pairs(a).flatten(1), _pairs(rows).flatten(1))
        else:
            squares = _square(torch.bmm(g.flatten(2), self._patches(a).transpose(1, 2)))
        if self.module.bias is not None:
            squares = squares + _square(g.sum((2, 3)))
        return squares

    def _dense(self) -> bool:
        """Whether patches of neighbouring places lie one pixel apart."""
        return self.stride == (1, 1) and self.dilation == (1, 1)

    def _padded_size(self, a: Tensor) -> tuple[int, int]:
        return a.shape[2] + 2 * self.padding[0], a.shape[3] + 2 * self.padding[1]

    def _patches(self, a: Tensor) -> Tensor:
        """[b, patch, T], the input of each place."""
        return functional.unfold(a, self.kernel_size, self.dilation, self.padding, self.stride)

    def _patch_pairs(self, a: Tensor) -> Tensor:
        """[b, T, T], inner products of patches, without patches.

        Two patches' inner product is the sum, over the offsets inside a patch, of the inner
        products of the pixels there; pixel products are shared by all patches that hold them.
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
    """An image one pixel high."""

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
