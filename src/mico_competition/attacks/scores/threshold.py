"""The loss threshold attack: models fit their training records well (Yeom et al., CSF 2018)."""

from __future__ import annotations

import numpy as np


def loss_threshold(losses: np.ndarray) -> np.ndarray:
    """Scores in [0, 1]: exp(-loss), the probability that the model gives the true label.

    One monotone map serves all models, so that scores are comparable between models. (2022's kit
    scaled each model's scores to [0, 1] separately.)

    Args:
        losses: float[...], cross-entropy of each point, >= 0, in nats.

    Raises:
        ValueError: if a loss is NaN or below zero by more than rounding.

    >>> loss_threshold(np.array([0.0, np.log(2.0)]))
    array([1. , 0.5])
    """
    losses = np.asarray(losses, dtype=np.float64)
    if np.isnan(losses).any() or (losses < -1e-6).any():
        raise ValueError("Expected losses >= 0, got NaN or negative ones: is a model broken?")
    probabilities: np.ndarray = np.exp(-np.maximum(losses, 0.0))
    return probabilities
