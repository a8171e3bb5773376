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


def gradient_kernel(layers: Layers, inputs: Tensor, seen: Tensor, residual: Tensor) -> Kernel:
    """K_ij, the inner products of the records' whole gradients, each scaled to length 1.

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
    return Kernel(seen, first / length, Kernel(hidden, second / length))


def gradient_trace(kernel: Kernel, layers: Layers) -> Tensor:
    """float32[N], the inner products of these gradients with a model's weights, without K 1.

    An equal share of every record would give a multiple of K 1, so that is projected out.

    Args:
        kernel: `gradient_kernel`.
        layers: whose weights count, usually those of the same model.
    """
    assert kernel.beside is not None
    trace = _inner(kernel, layers.w1, layers.b1) + _inner(kernel.beside, layers.w2, layers.b2)
    usual = kernel(torch.ones_like(trace))
    return trace - (trace @ usual) / (usual @ usual).clamp_min(TINY) * usual


def _inner(kernel: Kernel, weights: Tensor, bias: Tensor) -> Tensor:
    """float32[N], a layer's part of the inner products."""
    both = torch.cat([weights, bias[:, None]], 1)
    return ((kernel.white @ both.T) * kernel.directions).sum(1)


def with_one(inputs: Tensor) -> Tensor:
    """float32[N, D + 1], inputs of a layer and that of its bias."""
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
