"""Traces of records in all weights of a model at once, for private training.

DP-SGD clips the gradients of all layers as one vector, and adds noise of the same size to every
weight. So the matched filter of a record is its whole clipped gradient, without any whitening; the
joint decode subtracts the other records. Ours: docs/METHODS.md, section 6.13 (formula 57).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import Kernel
from mico_competition.attacks.whitebox.mlp.mlp_layers import TINY, Layers


def both_layers(
    layers: Layers, inputs: Tensor, seen: Tensor, residual: Tensor
) -> tuple[Kernel, Tensor]:
    """K of a model, whose diagonal is 1, and the trace float32[N] in its scale.

    Args:
        layers: of the model.
        inputs: float32[N, D].
        seen: float32[N, D + 1], what the first layer multiplies: `with_one(gain * inputs)`.
        residual: float32[N, C], of any scale.
    """
    hidden = layers.hidden(inputs)
    first, second = (1 - hidden * hidden) * (residual @ layers.w2), residual
    hidden = with_one(hidden)
    length = Kernel(seen, first, Kernel(hidden, second)).diagonal.clamp_min(TINY).sqrt()[:, None]
    first, second = first / length, second / length
    kernel = Kernel(seen, first, Kernel(hidden, second))
    weights = torch.cat([layers.w1, layers.b1[:, None]], 1)
    trace = ((seen @ weights.T) * first).sum(1)
    weights = torch.cat([layers.w2, layers.b2[:, None]], 1)
    trace += ((hidden @ weights.T) * second).sum(1)
    usual = kernel(torch.ones_like(trace))  # what an equal share of every record would give
    return kernel, trace - (trace @ usual) / (usual @ usual).clamp_min(TINY) * usual


def with_one(inputs: Tensor) -> Tensor:
    """float32[N, D + 1], inputs of a layer and that of its bias."""
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
