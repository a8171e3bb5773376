"""The free decode of a layer: vectors of all records that explain its weights.

Weights are modelled as a sum over all records of the dataset; the part of a record outside the
training set should be near zero. The estimate is a ridge regression: docs/METHODS.md, section 6.8
(formula 51). Ridges are in units of the mean squared length of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def free_decode(inputs: Tensor, weights: Tensor, ridges: Sequence[float]) -> list[Tensor]:
    """Coefficients C of W = sum_j C_j (outer) a_j + noise, with a free direction of each C_j.

    For a layer with one position for each record (above all the head), every step of gradient
    descent adds a multiple of d (outer) a; d changes while a model learns, so nothing is assumed
    about it. As long as a layer has more inputs than there are records, the records' a are linearly
    independent, and the coefficient of a non-member is nearly 0; with D inputs for N > D records
    each coefficient contains about N / D of the others' (the ridge balances this).

    Args:
        inputs: float[N, D], a.
        weights: float[H, D], W minus the initial weights, if they are known.
        ridges: lambda > 0, each.

    Returns:
        For each lambda float64[N, H], (A A^T / kd + lambda I)^-1 A W^T / kd, kd the mean of
        |a_j|^2; the smaller of the two Gram matrices is factored.

    Raises:
        ValueError: if a ridge is not > 0, or all inputs are zero.
    """
    a, w = inputs.double(), weights.double()
    scale = _scale((a**2).sum(1), ridges)
    small = a.shape[1] <= a.shape[0]
    gram = (a.T @ a if small else a @ a.T) / scale
    found = []
    for ridge in ridges:
        factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram)).to(gram))
        if small:  # (A A^T + l)^-1 A = A (A^T A + l)^-1
            found.append(a @ torch.cholesky_solve(w.T / scale, factor))
        else:
            found.append(torch.cholesky_solve(a @ w.T / scale, factor))
    return found


def _scale(diagonal: Tensor, ridges: Sequence[float]) -> Tensor:
    if not all(ridge > 0 for ridge in ridges):
        raise ValueError(f"Expected ridges > 0, got {list(ridges)}.")
    scale = diagonal.mean()
    if not float(scale) > 0:
        raise ValueError("Expected inputs that are not all zero: leave the layer out.")
    return scale
