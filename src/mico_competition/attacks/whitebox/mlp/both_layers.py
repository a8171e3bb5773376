"""Traces of records in all weights of a model at once, for private training.

DP-SGD clips the gradients of all layers as one vector, and adds noise of the same size to every
weight. So the matched filter of a record is the sum of its clipped gradients over training, without
any whitening; the joint decode subtracts the other records. Earlier weights are unknown, but their
logits are about parts of the final ones. Ours: docs/METHODS.md, section 6.13 (formula 57).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import Kernel
from mico_competition.attacks.whitebox.mlp.mlp_layers import TINY, Layers

PARTS = (0.5, 0.75, 1.0)  # of the final logits, which stand for those during training


def gradient_kernel(layers: Layers, inputs: Tensor, centred: Tensor, labels: Tensor) -> Kernel:
    """K_ij, the inner products of the records' gradients, with 1 as the mean of its diagonal.

    Gradients of all weights and biases together are clipped. Then their parts along the mean inputs
    of each layer, and those of the biases, are left out: all records share them, so they tell
    little, and with them a solve takes half as many products again.

    Args:
        layers: of the model.
        inputs: float32[N, D].
        centred: float[N, D], inputs less their mean.
        labels: int64[N], classes.
    """
    hidden = layers.hidden(inputs)
    residual = clipped_residual(layers, inputs, hidden, labels)
    beside = Kernel(hidden - hidden.mean(0), residual)
    return Kernel(centred, layers.gain * backward(layers, hidden, residual), beside).standardised()


def clipped_residual(layers: Layers, inputs: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
    """float32[N, C], the sum of e_y - p over `PARTS` of the logits, each times its clip factor.

    The bound of the gradients' lengths is their median, since the true one need not be known.

    Args:
        layers: of the model.
        inputs: float32[N, D].
        hidden: float32[N, H], its hidden units.
        labels: int64[N], classes.
    """
    logits = torch.addmm(layers.b2, hidden, layers.w2.T)
    residuals = [-torch.softmax(part * logits, 1) for part in PARTS]
    lengths = []
    for residual in residuals:
        # 1 - p_y as the sum of the others: where p_y is nearly 1, the difference has no digits.
        residual.scatter_(1, labels[:, None], 0.0)
        residual.scatter_(1, labels[:, None], -residual.sum(1, keepdim=True))
        first = backward(layers, hidden, residual)
        lengths.append(gradient_lengths(inputs, first, hidden, residual, layers.gain))
    bound = torch.stack(lengths).median()
    total = torch.zeros_like(logits)
    for residual, length in zip(residuals, lengths):
        total.addcmul_(residual, (bound / length).clamp_max_(1)[:, None])
    return total


def backward(layers: Layers, hidden: Tensor, residual: Tensor) -> Tensor:
    """float32[N, H], the descent directions of the first layer's outputs."""
    first: Tensor = (1 - hidden * hidden) * (residual @ layers.w2)
    return first


def gradient_lengths(
    inputs: Tensor, first: Tensor, hidden: Tensor, second: Tensor, gain: float = 1.0
) -> Tensor:
    """float32[N], the lengths of the gradients of all weights and biases.

    Args:
        inputs: float32[N, D].
        first: float32[N, H], the descent directions of its outputs.
        hidden: float32[N, H], what the second layer multiplies.
        second: float32[N, C], the descent directions of its outputs.
        gain: the first layer multiplies the inputs times this.
    """
    seen, back, inner, out = (
        torch.linalg.vector_norm(own, dim=1).square() for own in (inputs, first, hidden, second)
    )
    squares: Tensor = back * (1 + gain**2 * seen) + out * (1 + inner)
    return squares.clamp_min(TINY).sqrt()


def gradient_trace(kernel: Kernel, layers: Layers) -> Tensor:
    """float32[N], the inner products of these gradients with a model's weights, without K 1.

    An equal share of every record would give a multiple of K 1, so that is projected out.

    Args:
        kernel: `gradient_kernel`.
        layers: whose weights count, usually those of the same model.
    """
    assert kernel.beside is not None
    trace = kernel.inner(layers.w1) + kernel.beside.inner(layers.w2)
    usual = kernel(torch.ones_like(trace))
    return trace - (trace @ usual) / (usual @ usual).clamp_min(TINY) * usual
