"""Layers of S models side by side, and their rules for per-example gradient norms.

A stack runs S models of one architecture as one module: the rows [S * b, ...] that pass through it
are S batches of b examples, model by model, and whatever has no parameters treats them as one
batch.  Only layers with parameters know of the models: layer s of a `StackedLayer` maps the rows of
model s.  The norm of an example's gradient needs no weights, so the rules of `ghost_norms` and
`convolution_norms` give it as it is; the sums over examples are formed for each model by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from mico_competition.training.convolution_norms import Conv2dRule
from mico_competition.training.ghost_norms import (
    RULES,
    EmbeddingRule,
    GroupNormRule,
    LayerNormRule,
    LinearRule,
)
from mico_competition.training.layer_rule import Rule, scaled

# A convolution of S models runs as one with S groups if each model's takes at most this many
# multiply-adds, and else model by model, each as it is faster on a CPU (benchmarks/stack_steps.py).
SMALL_CONVOLUTION = 2_000_000


class StackedLayer(nn.Module):
    """S layers of one kind and shape; subclasses say what they compute.

    Args:
        layers: S layers with the same options, whose parameters are copied.

    Attributes:
        models: S.
    """

    OPTIONS: tuple[str, ...] = ()

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = len(layers)
        for option in self.OPTIONS:
            setattr(self, option, getattr(layers[0], option))
        for name, first in layers[0]._parameters.items():
            if first is None:
                self.register_parameter(name, None)
                continue
            values = torch.stack([layer.get_parameter(name).detach() for layer in layers])
            self.register_parameter(name, nn.Parameter(values, first.requires_grad))

    @classmethod
    def fault(cls, layer: nn.Module) -> str:
        """Why a layer of this kind does not stack, with its options; empty if it does."""
        return ""

    def by_model(self, rows: Tensor) -> Tensor:
        """Rows [S * b, ...] as [S, b, ...]."""
        if len(rows) % self.models:
            raise ValueError(
                f"A layer of {self.models} stacked models got {len(rows)} rows, which is no "
                "multiple: the model's code must give each layer one row an example."
            )
        return rows.reshape(self.models, len(rows) // self.models, *rows.shape[1:])


class StackedLinear(StackedLayer):
    """Linear layers: rows [S * b, ..., in] -> [S * b, ..., out]."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer s to the rows of model s."""
        rows = self.by_model(x).flatten(1, -2)
        turned = self.weight.transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(rows, turned)
        else:
            out = torch.baddbmm(self.bias.unsqueeze(1), rows, turned)
        return _shaped(out, (*x.shape[:-1], out.shape[-1]))


class StackedConv2d(StackedLayer):
    """Convolutions: images [S * b, in, height, width] -> [S * b, out, ...]."""

    OPTIONS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    weight: Tensor
    bias: Tensor | None
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def fault(cls, layer: nn.Module) -> str:
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return "its padding is not by a number of zeros"
        return ""

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution s to the images of model s."""
        options = self.stride, self.padding, self.dilation
        if not self.together(x):
            biases = [None] * self.models if self.bias is None else self.bias.unbind()
            parts = zip(self.by_model(x).unbind(), self.weight.unbind(), biases)
            return torch.cat(
                [functional.conv2d(*part, *options, groups=self.groups) for part in parts]
            )
        bias = None if self.bias is None else self.bias.flatten()
        out = functional.conv2d(
            self.as_groups(x),
            self.weight.flatten(0, 1),
            bias,
            *options,
            groups=self.models * self.groups,
        )
        parted = out.view(len(out), self.models, -1, *out.shape[2:]).transpose(0, 1)
        copied = parted.clone(memory_format=torch.contiguous_format)
        return _shaped(copied, (len(x), *copied.shape[2:]))

    def together(self, x: Tensor) -> bool:
        """Whether the convolutions of all models run as one, as groups of it."""
        filters, pixels = self.weight[0].numel(), math.prod(x.shape[2:]) / math.prod(self.stride)
        return len(x) / self.models * filters * pixels <= SMALL_CONVOLUTION

    def as_groups(self, x: Tensor) -> Tensor:
        """Images [S * b, c, ...] with the models' channels side by side, [b, S * c, ...]."""
        return self.by_model(x).transpose(0, 1).flatten(1, 2)


class StackedEmbedding(StackedLayer):
    """Embeddings: tokens [S * b, ...] -> [S * b, ..., size]."""

    OPTIONS = ("padding_idx", "max_norm", "scale_grad_by_freq", "sparse")
    weight: Tensor
    padding_idx: int | None

    @classmethod
    def fault(cls, layer: nn.Module) -> str:
        if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
            return "it has max_norm, scale_grad_by_freq or sparse"
        return ""

    def forward(self, tokens: Tensor) -> Tensor:
        """Look the tokens of model s up in table s."""
        out = functional.embedding(self.numbered(tokens), self.weight.flatten(0, 1))
        if self.padding_idx is None or not self.weight.requires_grad:
            return out
        return torch.where((tokens == self.padding_idx).unsqueeze(-1), out.detach(), out)

    def numbered(self, tokens: Tensor) -> Tensor:
        """Tokens numbered through the tables of all models, which lie one after another."""
        first = torch.arange(self.models, device=tokens.device) * self.weight.shape[1]
        rows = self.by_model(tokens)
        return (rows + first.view(-1, *[1] * (rows.ndim - 1))).flatten(0, 1)


class StackedLayerNorm(StackedLayer):
    """Layer normalisations, with a scale and a shift for each model."""

    OPTIONS = ("normalized_shape", "eps")
    weight: Tensor | None
    bias: Tensor | None
    normalized_shape: tuple[int, ...]
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, then scale and shift the rows of model s by its own parameters."""
        return self.scaled(functional.layer_norm(x, self.normalized_shape, eps=self.eps))

    def scaled(self, x: Tensor) -> Tensor:
        """Normalised rows times the weight, plus the bias."""
        rows = self.by_model(x)
        for parameter, apply in ((self.weight, torch.mul), (self.bias, torch.add)):
            if parameter is not None:
                rows = apply(rows, self.spread(parameter, rows))
        return _shaped(rows, x.shape)

    def spread(self, parameter: Tensor, rows: Tensor) -> Tensor:
        """A parameter [S, ...] in the shape in which it applies to rows [S, b, ...]."""
        between = [1] * (rows.ndim - 1 - len(self.normalized_shape))
        return parameter.view(self.models, *between, *self.normalized_shape)


class StackedGroupNorm(StackedLayerNorm):
    """Group normalisations, with a scale and a shift of each channel for each model."""

    OPTIONS = ("num_groups", "eps")
    num_groups: int

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, then scale and shift the rows of model s by its own parameters."""
        return self.scaled(functional.group_norm(x, self.num_groups, eps=self.eps))

    def spread(self, parameter: Tensor, rows: Tensor) -> Tensor:
        return parameter.view(self.models, 1, -1, *[1] * (rows.ndim - 3))


def _shaped(out: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor that nothing else uses, in another shape.

    It is no view in autograd's books: a view that the model then changes in place, as
    ReLU(inplace=True) does, loses the place in the graph at which book-keeping sees its gradient.
    """
    shaped: Tensor = torch.ops.aten._unsafe_view(out, shape)
    return shaped


class StackedRule(Rule):
    """What the rules of stacked layers share; a and g have the rows of all models."""

    module: Any

    def shape_of(self, name: str) -> torch.Size:
        return super().shape_of(name)[1:]

    def weighted(self, weights: Tensor, rows: Tensor) -> Tensor:
        models = self.module.models
        factors = _by_model(weights, models).unsqueeze(1)
        sums = torch.bmm(factors, _by_model(rows.flatten(1), models))
        return sums.view(models, *rows.shape[1:])

    def squared_norms(self, batch: torch.Size) -> Tensor:
        if sum(call.gradient is not None for call in self._calls) > 1:
            raise ValueError(
                f"Layer {self.name} is called twice in one forward pass: training models in a "
                "stack needs a separate layer for each call."
            )
        return super().squared_norms(batch)

    def shared_by_examples(self, inputs: Tensor, count: int | None) -> Tensor | None:
        return None  # which model's row would it be?


def _by_model(values: Tensor, models: int) -> Tensor:
    return values.reshape(models, len(values) // models, *values.shape[1:])


class SummingRule(StackedRule):
    """A rule that sums over examples without their gradients, for each model (`sums`)."""

    def sums(self, a: Tensor, g: Tensor, weights: Tensor, models: int) -> dict[str, Tensor]:
        """The sum of weights_i * gradient_i over the rows of each model, [models, ...], by name.

        Args:
            a, g: the layer's input and its output's gradient, [models * b, ...].
            weights: float[models * b].
            models: S, or 1 for rows of one model.
        """
        raise NotImplementedError

    def sums_into_grad(self, a: Tensor, g: Tensor, weights: Tensor) -> None:
        for name, sums in self.sums(a, g, weights, self.module.models).items():
            if name in self.trained:
                getattr(self.module, name).grad = sums

    def set_apart(self, at: Tensor) -> None:
        self._width = len(self._calls[0].inputs) // self.module.models
        super().set_apart(at)

    def alone(self, example: int) -> dict[nn.Parameter, Tensor]:
        found: dict[nn.Parameter, Tensor] = {}
        ((a, g),) = self._apart[example]
        for name, sums in self.sums(a, g, g.new_ones(1), 1).items():
            if name in self.trained:
                parameter = getattr(self.module, name)
                found[parameter] = torch.zeros_like(parameter)
                found[parameter][example // self._width] = sums[0]
        return found


class StackedLinearRule(SummingRule, LinearRule):
    """The rule of linear layers."""

    def sums(self, a: Tensor, g: Tensor, weights: Tensor, models: int) -> dict[str, Tensor]:
        rows = _by_model(scaled(g, weights), models).flatten(1, -2)
        inputs = _by_model(a, models).flatten(1, -2)
        return {"weight": torch.bmm(rows.transpose(1, 2), inputs), "bias": rows.sum(1)}


class StackedConv2dRule(SummingRule, Conv2dRule):
    """The rule of convolutions; large ones go model by model, as their patches are large too."""

    def norms_from(self, a: Tensor, g: Tensor) -> Tensor:
        if self.module.together(a):
            return super().norms_from(a, g)
        parts = zip(_by_model(a, self.module.models), _by_model(g, self.module.models))
        return torch.cat([super(StackedConv2dRule, self).norms_from(*part) for part in parts])

    def gradients(self, a: Tensor, g: Tensor) -> dict[str, Tensor]:
        if self.module.together(a):
            return super().gradients(a, g)
        by_model = zip(_by_model(a, self.module.models), _by_model(g, self.module.models))
        parts = [super(StackedConv2dRule, self).gradients(*part) for part in by_model]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def sums(self, a: Tensor, g: Tensor, weights: Tensor, models: int) -> dict[str, Tensor]:
        weighted = scaled(g, weights)
        of_bias = _by_model(weighted, models).sum((1, 3, 4))
        return {"weight": self._of_weight(a, weighted, models), "bias": of_bias}

    def _of_weight(self, a: Tensor, g: Tensor, models: int) -> Tensor:
        layer: StackedConv2d = self.module
        shape = layer.weight.shape[1:]
        options = self.stride, self.padding, self.dilation
        if models > 1 and layer.together(a):
            as_groups = layer.as_groups(a), layer.as_groups(g)
            all_shape = (models * shape[0], *shape[1:])
            groups = models * layer.groups
            grad = conv2d_weight(as_groups[0], all_shape, as_groups[1], *options, groups)
            by_model: Tensor = grad.view(models, *shape)
            return by_model
        parts = zip(_by_model(a, models), _by_model(g, models))
        return torch.stack([conv2d_weight(x, shape, y, *options, layer.groups) for x, y in parts])


class StackedEmbeddingRule(SummingRule, EmbeddingRule):
    """The rule of embeddings."""

    def sums(self, a: Tensor, g: Tensor, weights: Tensor, models: int) -> dict[str, Tensor]:
        size = self.module.weight.shape[1:]
        rows = self.counted(a, scaled(g, weights)).reshape(-1, size[1])
        tokens = self.module.numbered(a) if models > 1 else a
        total = rows.new_zeros((models * size[0], size[1]))
        return {"weight": total.index_add_(0, tokens.flatten(), rows).view(models, *size)}


class StackedLayerNormRule(StackedRule, LayerNormRule):
    """The rule of layer normalisations."""


class StackedGroupNormRule(StackedRule, GroupNormRule):
    """The rule of group normalisations."""


STACKED: dict[type[nn.Module], type[StackedLayer]] = {
    nn.Linear: StackedLinear,
    nn.Conv2d: StackedConv2d,
    nn.Embedding: StackedEmbedding,
    nn.LayerNorm: StackedLayerNorm,
    nn.GroupNorm: StackedGroupNorm,
}
RULES[StackedLinear] = StackedLinearRule
RULES[StackedConv2d] = StackedConv2dRule
RULES[StackedEmbedding] = StackedEmbeddingRule
RULES[StackedLayerNorm] = StackedLayerNormRule
RULES[StackedGroupNorm] = StackedGroupNormRule
