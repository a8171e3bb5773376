"""Signals from logits: the logit of the true class's probability, the probability, the loss.

All are larger for likelier members. LiRA needs a signal that is nearly normal over models, such as
the logit. The formulas are in docs/METHODS.md, section 3.1 (formulas 7 and 8).
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.scores.common import check_finite


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits as float64, labels as int[..., 1] of matching shape."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    check_finite("logits", logits)
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise ValueError(f"Expected logits [..., points, classes], got shape {logits.shape}.")
    if labels.shape != logits.shape[-2:-1] and labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"Expected one label for each of {logits.shape[-2]} points, got shape {labels.shape}."
        )
    if labels.dtype.kind not in "iu" or (labels < 0).any() or (labels >= logits.shape[-1]).any():
        raise ValueError(f"Expected labels to be ints in 0..{logits.shape[-1] - 1}.")
    labels = np.broadcast_to(labels, logits.shape[:-1])[..., None]
    return logits.astype(np.float64), labels


def stable_logit(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """z_y - log sum of exp of the other logits: the logit of p_y, in full precision.

    Args:
        logits: float[..., points, classes].
        labels: int[points], or of the logits' shape without classes.

    Returns:
        float[..., points], any real number; log p_y / (1 - p_y), also where p_y rounds to 1.

    Source: Carlini et al. 2022, section IV-C and its appendix on stable computation.

    >>> stable_logit(np.array([[800.0, 0.0, 0.0]]), np.array([0])).round(3)
    array([799.307])
    """
    logits, labels = _checked(logits, labels)
    true = np.take_along_axis(logits, labels, axis=-1)
    others = logits - true
    np.put_along_axis(others, labels, -np.inf, axis=-1)
    top = others.max(axis=-1, keepdims=True)
    log_sum: np.ndarray = top + np.log(np.exp(others - top).sum(axis=-1, keepdims=True))
    logit: np.ndarray = -log_sum[..., 0]
    return logit


def confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probability of the true class: float[..., points] in [0, 1].  Arguments as above."""
    return sigmoid(stable_logit(logits, labels))


def negative_loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the cross-entropy, log p_y: float[..., points], <= 0.  Arguments as above."""
    log_probability: np.ndarray = -np.logaddexp(0.0, -stable_logit(logits, labels))
    return log_probability


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    probability: np.ndarray = np.exp(-np.logaddexp(0.0, -np.asarray(x, dtype=np.float64)))
    return probability


def logit_scaled(probabilities: np.ndarray, floor: float = 1e-29) -> np.ndarray:
    """log(p / (1 - p)) from confidences alone, as by the Purchase-100 runner-up of 2023.

    Where p rounds to 1 the logit is lost: it saturates at -log(floor) (66.8), and where p rounds to
    0 at log(floor). If you have logits, use `stable_logit`.

    Args:
        probabilities: float[...], in [0, 1].
        floor: added to 1 - p; his value.

    Raises:
        ValueError: outside [0, 1], or not finite.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    check_finite("probabilities", p)
    if (p < 0).any() or (p > 1).any():
        raise ValueError(f"Expected probabilities in [0, 1], got {p.min()}..{p.max()}.")
    logit: np.ndarray = np.log(np.maximum(p, floor)) - np.log(1.0 - p + floor)
    return logit
