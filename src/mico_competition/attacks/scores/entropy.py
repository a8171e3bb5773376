"""Entropy attacks: the outputs of members are more certain.  They need one model and no shadows.

The formulas are in docs/METHODS.md, section 3.2 (formulas 9 and 10).  Sources: entropy, Shokri et
al., S&P 2017; modified entropy, Song and Mittal, "Systematic evaluation of privacy risks of machine
learning models", USENIX Security 2021 (arXiv 2003.10595), equation 7.  Their thresholds for each
class are not here: subtract the mean of a class, or calibrate a record by shadow models.
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.scores.transforms import log_sum_exp


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log softmax over the last axis."""
    logits = np.asarray(logits)
    check_finite("logits", logits)
    if logits.ndim < 2 or logits.shape[-1] < 2:
        raise ValueError(f"Expected logits [..., points, classes], got shape {logits.shape}.")
    logits = logits.astype(np.float64)
    return logits - log_sum_exp(logits)[..., None]


def negative_entropy(logits: np.ndarray) -> np.ndarray:
    """Minus the entropy of the model's output.

    Args:
        logits: float[..., points, classes].

    Returns:
        float[..., points] in [-log(classes), 0]; larger = more certain = more likely a member.

    >>> negative_entropy(np.array([[0.0, 0.0]])).round(6)
    array([-0.693147])
    """
    log_p = _log_probabilities(logits)
    return (np.exp(log_p) * log_p).sum(axis=-1)


def negative_modified_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(1 - p_y) log p_y + sum over other classes of p_i log(1 - p_i).

    Args:
        logits: float[..., points, classes].
        labels: int[points]: the true classes.

    Returns:
        float[..., points], <= 0; 0 where the true class is certain, very negative where a wrong
        one is.  Exact also where probabilities round to 0 or 1.

    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0]])
    >>> negative_modified_entropy(logits, np.array([0, 1])).round(2).tolist()  # right, wrong
    [-0.0, -7.89]
    """
    log_p = _log_probabilities(logits)
    labels = np.asarray(labels)
    classes = log_p.shape[-1]
    if labels.shape != log_p.shape[-2:-1] or labels.dtype.kind not in "iu":
        raise ValueError(f"Expected one int label for each of {log_p.shape[-2]} points.")
    if (labels < 0).any() or (labels >= classes).any():
        raise ValueError(f"Expected labels in 0..{classes - 1}.")
    where = np.broadcast_to(labels, log_p.shape[:-1])[..., None]
    # log(1 - p) is lost where p rounds to 1: only the largest can, so add up the others there.
    top = log_p.argmax(axis=-1)[..., None]
    others = log_p.copy()
    np.put_along_axis(others, top, -np.inf, axis=-1)
    log_rest = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    largest = log_sum_exp(others)[..., None]
    high = np.take_along_axis(log_p, top, axis=-1) > np.log(0.5)
    kept = np.take_along_axis(log_rest, top, axis=-1)
    np.put_along_axis(log_rest, top, np.where(high, largest, kept), axis=-1)
    terms = np.exp(log_p) * log_rest
    true_rest = np.take_along_axis(log_rest, where, axis=-1)
    true_term = np.exp(true_rest) * np.take_along_axis(log_p, where, axis=-1)
    np.put_along_axis(terms, where, true_term, axis=-1)
    return terms.sum(axis=-1)
