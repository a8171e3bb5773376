"""Update directions of records in one layer of any model: traces and kernels.

Whitening the inputs of a layer reduces the weight of directions that many records share. It is a
change of coordinates on the input side, by the covariance of the inputs in the model itself, and
needs no label. See docs/METHODS.md, section 6.8 (formula 49).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.layers.layers import Seen
from mico_competition.attacks.whitebox.mlp.trace import whitener


def input_covariance(inputs: Iterable[Tensor]) -> Tensor:
    """float64[D, D], covariance over records and positions, of float[b, T, D] in batches."""
    total, squares, shift, count = None, None, None, 0
    for batch in inputs:
        rows = batch.flatten(0, 1)
        # Inputs that hardly vary would lose their digits to the square of their mean.
        shift = rows.mean(0) if shift is None else shift
        rows = rows - shift
        gram, sums = (rows.T @ rows).double(), rows.double().sum(0)
        total = sums if total is None else total + sums
        squares = gram if squares is None else squares + gram
        count += len(rows)
    if total is None or squares is None:
        raise ValueError("Expected one batch of inputs or more, got none.")
    centred = squares / count - torch.outer(total, total) / count**2
    return (centred + centred.T) / 2


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """float32[D, D], L with L L^T = (M / (tr M / D) + ridge I)^-1.

    Raises:
        ValueError: if the inputs do not vary at all.
    """
    if not float(covariance.diagonal().sum()) > 0:
        raise ValueError("Expected inputs of a layer that vary between records, got constant ones.")
    return whitener(covariance, ridge)


def traces(seen: Seen, change: Tensor) -> Tensor:
    """float32[b], sum_t d_t^T change a_t for change float[H, D], without computing any D_i."""
    return ((seen.inputs @ change.T) * seen.gradients).sum((1, 2))


def squared_lengths(seen: Seen) -> Tensor:
    """float32[b], |D_i|^2 by the inner products of positions, without computing any D_i."""
    pairs = [torch.bmm(own, own.transpose(1, 2)) for own in (seen.inputs, seen.gradients)]
    return (pairs[0] * pairs[1]).sum((1, 2))


def directions(seen: Seen) -> Tensor:
    """float32[b, H, D], the D_i."""
    return torch.bmm(seen.gradients.transpose(1, 2), seen.inputs)


def kernel_work(records: int, change: Tensor) -> int:
    """The number of multiplications for a layer's kernel: N^2 H D."""
    return records**2 * change.numel()
