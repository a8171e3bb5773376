"""Rules of convolutions for per-example gradient norms: linear layers on patches of the input.

The positions of `ghost_norms` are the pixels of the output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from mico_competition.training import layer_rule
from mico_competition.training.ghost_norms import RULES
from mico_competition.training.layer_rule import Rule, doubt_of, rough_square, scaled, square


class Conv2dRule(Rule):
    """A convolution is a linear layer on patches; its positions are the pixels of the output."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    rounds_input = True

    def check(self) -> None:
        m = self.module
        self.kernel_size, self.stride, self.dilation = m.kernel_size, m.stride, m.dilation
        # Padding other than by the same number of zeros on both sides is done before the rule.
        self._pads_first = m.padding_mode != "zeros" or isinstance(m.padding, str)
        self.padding = (0, 0) if self._pads_first else m.padding

    def _padded(self, a: Tensor) -> Tensor:
        if not self._pads_first:
            return a
        mode = self.module.padding_mode
        around = self.module._reversed_padding_repeated_twice
        return functional.pad(a, around, mode="constant" if mode == "zeros" else mode)

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        squares = torch.zeros(len(g), dtype=g.dtype, device=g.device)
        if "weight" in self.trained:
            of_groups = self._weight_norms(*self._by_group(a, g))
            squares = of_groups.view(len(g), self.module.groups).sum(1)
        if "bias" in self.trained:
            squares = squares + square(g.sum((2, 3)))
        return squares

    def keeps(self, a: Tensor, g: Tensor) -> bool:
        rows = a[0].numel() + g[0].numel()
        return self.shape_of("weight").numel() <= layer_rule.KEPT * rows

    def gradients(self, a: Tensor, g: Tensor) -> dict[str, Tensor]:
        found = {}
        if "weight" in self.trained:
            by_group = self._by_group(a, g)
            products = torch.bmm(by_group[1].flatten(2), self._patches(by_group[0]).transpose(1, 2))
            found["weight"] = products.reshape(len(g), *self.shape_of("weight"))
        if "bias" in self.trained:
            found["bias"] = g.sum((2, 3))
        return found

    def _by_group(self, a: Tensor, g: Tensor) -> list[Tensor]:
        """The padded input, and g, with the groups of channels as examples of their own."""
        groups = self.module.groups
        return [
            values.reshape(len(g) * groups, -1, *values.shape[2:])
            for values in (self._padded(a), g)
        ]

    def _weight_norms(self, a: Tensor, g: Tensor) -> Tensor:
        """The squared norms of gradients by the weight of a convolution with one group."""
        if self._pairs_cost_less(a, g):
            rows = g.flatten(2).transpose(1, 2)
            pairs = self._patch_pairs(a).flatten(1)
            squares: Tensor = torch.linalg.vecdot(pairs, layer_rule.pairs(rows).flatten(1))
        else:
            squares = square(torch.bmm(g.flatten(2), self._patches(a).transpose(1, 2)))
        return squares

    def _pairs_cost_less(self, a: Tensor, g: Tensor) -> bool:
        """Whether pairs of pixels cost less than the gradient, for one group of channels."""
        positions, outputs = g.shape[2] * g.shape[3], g.shape[1]
        patch = a.shape[1] * math.prod(self.kernel_size)
        pixels = math.prod(self._padded_size(a))
        direct = positions * patch * outputs
        ghost = pixels * pixels * a.shape[1] + positions * positions * outputs
        return ghost < direct and self._dense()

    def size_from(self, a: Tensor, g: Tensor) -> Tensor:
        factor: Tensor | float = 0.0
        if "weight" in self.trained:  # a pixel is in as many patches as a kernel has pixels
            factor = math.prod(self.kernel_size) * rough_square(self._padded(a))
        if "bias" in self.trained:
            factor = factor + math.prod(g.shape[2:])
        return rough_square(g) * factor

    def doubt_from(self, a: Tensor, g: Tensor) -> Tensor | None:
        size = self.size_from(a, g)
        of_groups = (x[:, : x.shape[1] // self.module.groups] for x in (self._padded(a), g))
        return doubt_of(size, of_pairs=self._pairs_cost_less(*of_groups))

    def _dense(self) -> bool:
        """Whether the patches of neighbouring positions lie one pixel apart."""
        return self.stride == (1, 1) and self.dilation == (1, 1)

    def _padded_size(self, a: Tensor) -> tuple[int, int]:
        return a.shape[2] + 2 * self.padding[0], a.shape[3] + 2 * self.padding[1]

    def _patches(self, a: Tensor) -> Tensor:
        """The patch of each position, [b, patch, T], as `functional.unfold` returns it.

        One copy of a view of the whole batch; `unfold` copies example by example, and on a GPU
        starts a kernel for each.
        """
        above, left = self.padding
        a = functional.pad(a, (left, left, above, above))
        b, channels, height, width = a.shape
        by_example, by_channel, by_row, by_column = a.stride()
        down, right = self.stride
        rows = (height - self.dilation[0] * (self.kernel_size[0] - 1) - 1) // down + 1
        columns = (width - self.dilation[1] * (self.kernel_size[1] - 1) - 1) // right + 1
        within = self.dilation[0] * by_row, self.dilation[1] * by_column
        between = down * by_row, right * by_column
        view = a.as_strided(
            (b, channels, *self.kernel_size, rows, columns),
            (by_example, by_channel, *within, *between),
        )
        return view.reshape(b, channels * math.prod(self.kernel_size), rows * columns)

    def _patch_pairs(self, a: Tensor) -> Tensor:
        """The inner products [b, T, T] of all patches, without building the patches.

        The inner product of two patches is a sum, over offsets inside a patch, of inner products
        of pixels; each of these serves all pairs of patches that contain the two pixels.
        """
        above, left = self.padding
        a = functional.pad(a, (left, left, above, above))
        b, _, height, width = a.shape
        pixels = layer_rule.pairs(a.flatten(2).transpose(1, 2)).view(
            b, height, width, height, width
        )
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
        weighted = scaled(g, weights)
        if "weight" in self.trained:
            shape = (*weight.shape[:2], *self.kernel_size)
            weight.grad = conv2d_weight(
                self._padded(a),
                shape,
                weighted,
                self.stride,
                self.padding,
                self.dilation,
                self.module.groups,
            ).view_as(weight)
        if "bias" in self.trained:
            bias.grad = weighted.sum((0, 2, 3))


class Conv1dRule(Conv2dRule):
    """Treats a sequence as an image of height one."""

    def check(self) -> None:
        super().check()
        m = self.module
        self.kernel_size, self.stride = (1, *m.kernel_size), (1, *m.stride)
        self.dilation = (1, *m.dilation)
        self.padding = (0, 0) if self._pads_first else (0, *m.padding)

    def _padded(self, a: Tensor) -> Tensor:
        return super()._padded(a.squeeze(2)).unsqueeze(2) if self._pads_first else a

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        return super().norms_from(a.unsqueeze(2), g.unsqueeze(2))

    def gradients(self, a: Tensor, g: Tensor) -> dict[str, Tensor]:
        return super().gradients(a.unsqueeze(2), g.unsqueeze(2))

    def doubt_from(self, a: Tensor, g: Tensor) -> Tensor | None:
        return super().doubt_from(a.unsqueeze(2), g.unsqueeze(2))

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        super().sums_into_grad(a.unsqueeze(2), g.unsqueeze(2), weights)


RULES[nn.Conv1d] = Conv1dRule
RULES[nn.Conv2d] = Conv2dRule
