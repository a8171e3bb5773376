"""The joint decode of records' directions, in one layer or in all of them together.

A record that is in the training set adds a multiple of its direction in every layer, so all layers
have one coefficient of it in common, and their evidence adds up. Directions are whitened on both
sides of a layer and centred first. Ours: docs/METHODS.md, section 6.8 (formula 50).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.layers.directions import kernel_work, whitening
from mico_competition.attacks.whitebox.mlp.joint import solve_shifted
from mico_competition.support.cpus import multiplies_bfloat16

RIDGES = (0.1, 0.3, 1.0)
WORK = 2**40  # maximal multiplications for the kernels of all layers of a model
NUMBERS = 2**30  # maximal numbers in all kept directions, 4 bytes each
OUTPUTS = 0.3  # ridge of the whitening of outputs
OUTPUT_RECORDS = 1024  # records for the estimate of the outputs' covariance
TOLERANCE = 1e-3  # relative residual of the conjugate gradients
COLUMNS, ROWS = 8192, 512  # of one product of bfloat16 numbers


@dataclass(frozen=True)
class Projected:
    """One layer: `kernel` float32[N, N], mean diagonal 1, and `trace` float32[N] in its scale."""

    kernel: Tensor
    trace: Tensor


def affordable(
    sizes: Mapping[str, Tensor], records: int, work: int, numbers: int = NUMBERS
) -> set[str]:
    """Names of the layers to decode jointly: the smallest first, as far as the limits allow.

    Args:
        sizes: the weights float[H, D] of each layer.
        records: N.
        work: the maximal number of multiplications, N^2 H D over all chosen layers.
        numbers: the maximal number of kept numbers, N H D over all chosen layers.
    """
    chosen: set[str] = set()
    for name, weights in sorted(sizes.items(), key=lambda item: item[1].numel()):
        work -= kernel_work(records, weights)
        numbers -= records * weights.numel()
        if work < 0 or numbers < 0:
            break
        chosen.add(name)
    return chosen


def project(features: Tensor, change: Tensor) -> Projected | None:
    """The kernel and trace of one layer; None if its directions do not vary between records.

    Args:
        features: float32[N, H, D], directions whitened on the input side; they are overwritten.
        change: float32[H, D], the weights minus their start, whitened likewise.
    """
    every = -(-len(features) // OUTPUT_RECORDS)
    some = features[::every].transpose(0, 1).flatten(1)
    covariance = (some @ some.T).double()
    if not float(covariance.diagonal().sum()) > 0:
        return None
    root = whitening(covariance, OUTPUTS)
    for part in features.split(ROWS):
        part.copy_(root.T @ part)
    flat = features.flatten(1)
    flat -= flat.mean(0)
    kernel = gram(flat)
    scale = kernel.diagonal().mean()
    if not float(scale) > 0:
        return None
    return Projected(kernel / scale, flat @ (root.T @ change).flatten() / scale)


def gram(rows: Tensor) -> Tensor:
    """float32[N, N], all inner products of float32[N, k], from bfloat16 numbers.

    Relative errors are 2^-9 of each inner product, so the rows should be centred: otherwise what
    all have in common drowns the differences. Twice to three times as fast as float32; where the
    processor does not multiply bfloat16, which is slow there, products are of float32.
    """
    total = torch.zeros(len(rows), len(rows), device=rows.device)
    for part in rows.split(COLUMNS, dim=1):
        short = part.bfloat16() if multiplies_bfloat16(part.device) else part
        for start in range(0, len(rows), ROWS):
            total[start : start + ROWS, start:] += short[start : start + ROWS] @ short[start:].T
    return total.triu() + total.triu(1).T


def together(layers: Sequence[Projected]) -> Projected:
    """The mean of several layers, each of which then counts the same."""
    first, *others = layers
    kernel, trace = first.kernel.clone(), first.trace.clone()
    for own in others:
        kernel += own.kernel
        trace += own.trace
    return Projected(kernel / len(layers), trace / len(layers))


def decode(layer: Projected) -> dict[float, Tensor]:
    """Ridge -> float32[N], (K + ridge I)^-1 T."""
    solved = solve_shifted(lambda c: layer.kernel @ c, layer.trace, RIDGES, TOLERANCE)
    return dict(zip(RIDGES, solved))
