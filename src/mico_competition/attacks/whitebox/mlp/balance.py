"""The balance of gradients at the end of training: which records hold the weights where they are.

Where training has nearly converged, the members' gradients at the final weights add up to nearly
nothing; with the non-members they do not. That is one linear equation in the memberships for every
weight, in gradients that are known exactly, since the final weights are. Ours: docs/METHODS.md,
section 6.12 (formulas 55 and 56).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.joint import Kernel, compact
from mico_competition.attacks.whitebox.mlp.mlp_layers import TINY, Layers
from mico_competition.attacks.whitebox.mlp.trace import whitener

RIDGE = 0.1  # of the whitening of inputs, in units of the mean second moment


def white_inputs(layers: Sequence[Layers], inputs: Tensor, labels: Tensor) -> Tensor:
    """float[N, D + 1], inputs and the bias's 1, whitened, `compact`.

    M of the whitening is the second moment over models of the sum of all records' gradients, which
    uses no membership.

    Args:
        layers: of all models.
        inputs: float32[N, D].
        labels: int64[N].
    """
    width = inputs.shape[1] + 1
    moments = torch.zeros(width, width, dtype=torch.float64, device=inputs.device)
    units = len(layers[0].w1)
    seen = compact(inputs, units)
    for own in layers:
        gradients = final_gradients(own, inputs, labels)
        total = (seen.T @ gradients.to(seen.dtype)).float()
        total = torch.cat([total, gradients.sum(0, keepdim=True)])
        moments += total @ total.T
    root = whitener(moments, RIDGE)
    return compact(torch.addmm(root[-1], inputs, root[:-1]), units)


def final_gradients(layers: Layers, inputs: Tensor, labels: Tensor) -> Tensor:
    """float32[N, H], minus the gradients of the losses by the hidden units' inputs.

    Args:
        layers: of the model, whose own outputs give the residual.
        inputs: float32[N, D].
        labels: int64[N].
    """
    hidden = layers.hidden(inputs)
    residual = -torch.softmax(torch.addmm(layers.b2, hidden, layers.w2.T), 1)
    rows = torch.arange(len(labels), device=labels.device)
    residual[rows, labels] = 0
    residual[rows, labels] = -residual.sum(1)  # 1 - p_y, with its digits where p_y is nearly 1
    return (1 - hidden * hidden) * (residual @ layers.w2)


def balance_kernel(white: Tensor, layers: Layers, inputs: Tensor, labels: Tensor) -> Kernel:
    """Inner products of the records' gradients of the first layer, at the model's final weights.

    Args:
        white: float[N, D + 1], `white_inputs`.
        layers: of the model.
        inputs: float32[N, D].
        labels: int64[N].
    """
    return Kernel(white, final_gradients(layers, inputs, labels)).standardised()


def imbalance(kernel: Kernel, member: Tensor) -> float:
    """The length of the members' summed gradients over that of the non-members'.

    Each is divided by the root of their number, so that gradients by chance give 1.

    Args:
        kernel: `balance_kernel`.
        member: float32[N], 1 or 0.
    """
    inside, outside = (
        float(own @ kernel(own)) / max(float(own.sum()), 1.0) for own in (member, 1 - member)
    )
    return float((max(inside, 0.0) / max(outside, TINY)) ** 0.5)
