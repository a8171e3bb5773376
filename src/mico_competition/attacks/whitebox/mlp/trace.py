"""Traces: the part of a record's own update direction in a model's weights.

The trace is a matched filter for the update of the record in the first layer, against differences
between models. It uses no membership labels, so all models with known weights contribute. Ours:
docs/METHODS.md, sections 6.2 and 6.3 (formulas 40 and 41).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.mlp_layers import Layers

NOISE_RECORDS = 5000  # records for the estimate of the filter's noise, about as many of each class
ROUNDING = 1e-14  # share of the squares below which a variance is rounding


def mean_probabilities(logits: Iterable[np.ndarray]) -> np.ndarray:
    """float64[points, classes], the mean softmax of several models' logits.

    Args:
        logits: one float[points, classes] for each model, read once.

    Raises:
        ValueError: if a logit is NaN or infinite, or there are no models.
    """
    total, count = None, 0
    for count, own in enumerate(logits, 1):
        if not np.isfinite(own).all():
            raise ValueError(
                f"Expected finite logits, but those of the {count}th model have NaN or infinite "
                "ones: drop it."
            )
        shares = np.exp(own - own.max(axis=1, keepdims=True), dtype=np.float32)
        shares /= shares.sum(axis=1, keepdims=True)
        total = shares.astype(np.float64) if total is None else total + shares
    if total is None:
        raise ValueError("Expected the logits of one model or more, got none.")
    mean: np.ndarray = total / count
    return mean


def residual_directions(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float32[points, classes], unit rows e_y - p: the direction that training moves logits in.

    Args:
        probabilities: float[points, classes], usual ones (`mean_probabilities`).
        labels: int[points].
    """
    residual = -np.asarray(probabilities, np.float64)
    rows = np.arange(len(labels))
    # 1 - p_y as the sum of the others: where p_y is nearly 1, the difference has no digits.
    residual[rows, labels] = 0
    residual[rows, labels] = -residual.sum(axis=1)
    residual /= np.maximum(np.linalg.norm(residual, axis=1, keepdims=True), 1e-300)
    return residual.astype(np.float32)


def some_of_each(labels: np.ndarray, wanted: int, seed: int = 0) -> np.ndarray:
    """int64[<= wanted + classes], places of about as many records of each class, by chance."""
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    share = -(-wanted // len(classes))
    return np.sort(
        np.concatenate(
            [generator.permutation(np.flatnonzero(labels == c))[:share] for c in classes]
        )
    )


def residual_lengths(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float32[points], the lengths of e_y - p: how far training moves a record's logits.

    The arguments are those of `residual_directions`.
    """
    others = np.array(probabilities, np.float64)
    others[np.arange(len(labels)), labels] = 0
    length: np.ndarray = np.sqrt(others.sum(axis=1) ** 2 + (others**2).sum(axis=1))
    return length.astype(np.float32)


def input_noise(layers: Sequence[Layers], inputs: Tensor, residual: Tensor) -> Tensor:
    """float64[D, D], covariance over models of W1^T a, pooled over records.

    Args:
        layers: of two models or more.
        inputs: float32[points, D], some records.
        residual: float32[points, C], their residual directions.

    Raises:
        ValueError: as `noise_of`.
    """
    directions = (own.directions(own.hidden(inputs), residual) for own in layers)
    return noise_of((own.w1, a) for own, a in zip(layers, directions))


def noise_of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """float64[D, D], covariance over models of W^T a, pooled over records.

    Args:
        pairs: of each model, W float32[H, D] and a float32[points, H], at the same records.

    Raises:
        ValueError: with fewer than two models, if they are one model many times, or if no hidden
            unit reacts.
    """
    count, total, squares = 0, torch.zeros(0), torch.zeros(0)
    for count, (weights, directions) in enumerate(pairs, 1):
        w, a = weights.double(), directions.double()  # the difference below keeps its digits
        if count == 1:
            total, squares = w.new_zeros(w.shape[1], len(a)), w.new_zeros(w.shape[1], w.shape[1])
        total.addmm_(w.T, a.T)
        squares += w.T @ (a.T @ a) @ w
    if count < 2:
        raise ValueError(
            f"Expected at least 2 models to tell chance from training, got {count}: the "
            "white-box decoder needs shadow models."
        )
    noise = squares - total @ total.T / count
    if not bool(squares.any()):
        raise ValueError(
            "Expected models whose hidden units react to their inputs, but all are saturated or "
            "lead to no output: standardise the inputs."
        )
    if not float(torch.trace(noise)) > ROUNDING * float(torch.trace(squares)):
        raise ValueError("Expected models that differ, got the same weights many times.")
    noise /= (count - 1) * total.shape[1]
    return (noise + noise.T) / 2


def whitener(noise: Tensor, ridge: float) -> Tensor:
    """float32[D, D], L with L L^T = (noise / (tr noise / D) + ridge I)^-1.

    Filtering with M^-1 is the product of two records' whitened inputs: x^T L L^T x'.

    Args:
        noise: float[D, D], a covariance.
        ridge: > 0, in units of the mean variance: how much is noise that no model showed.
    """
    width = len(noise)
    scaled = noise.double() / (torch.trace(noise.double()) / width)
    scaled += ridge * torch.eye(width, dtype=torch.float64, device=noise.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(scaled))
    factor: Tensor = torch.linalg.cholesky((inverse + inverse.T) / 2).float()
    return factor


def second_layer_traces(
    hidden: Tensor, residual: Tensor, layers: Layers, ridges: Sequence[float]
) -> list[Tensor]:
    """float32[points] for each ridge: (M^-1 (h - mean h))^T W2^T g.

    M is the covariance of the model's own hidden units over the records, scaled to a mean
    variance of 1, plus the ridge (docs/METHODS.md, section 6.3).

    Args:
        hidden: float32[points, H].
        residual: float32[points, C], residual directions g.
        layers: of the model.
        ridges: > 0.
    """
    centred = hidden - hidden.mean(0)
    covariance = centred.T @ centred
    covariance = covariance * (len(covariance) / torch.trace(covariance).clamp_min(1e-30))
    identity = torch.eye(len(covariance), device=hidden.device)
    # M^-1 is applied to the few rows of W2 instead of to the hidden units of all records.
    back = [torch.linalg.solve(covariance + ridge * identity, layers.w2.T) for ridge in ridges]
    return [((centred @ own) * residual).sum(1) for own in back]
