"""Ridge logistic regression by Newton's method, which combines several scores into one.

It minimises formula 34 of docs/METHODS.md, section 5.2, and equals scikit-learn's
`LogisticRegression(C=C, class_weight="balanced")` on standardised features, as the tests check.
Newton's steps for it are iteratively re-weighted least squares (Hastie, Tibshirani and Friedman,
"The Elements of Statistical Learning", 2nd edition, section 4.4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.scores.transforms import sigmoid

INVERSE_PENALTY = 0.003  # C of our stacks
STEPS = 100
TOLERANCE = 1e-10  # tolerance of the Newton decrement, per unit of the objective
BLOCK = 1 << 16  # rows in one block


@dataclass(frozen=True)
class Logistic:
    """A fitted regression.

    Attributes:
        weights: float64[k], of the standardised features.
        mean: float64[k], of the features it was fitted on.
        scale: float64[k], their standard deviations; 1 where a feature is constant.
        intercept: for classes of equal total weight.
    """

    weights: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    intercept: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """float64[...], the log odds of features float[..., k]; any real number.

        Raises:
            ValueError: if there are not k features, or some are not finite.
        """
        features = np.asarray(features)
        if features.shape[-1:] != self.weights.shape:
            raise ValueError(
                f"Expected {len(self.weights)} features on the last axis, as the stack was "
                f"fitted on, got shape {features.shape}."
            )
        check_finite("features", features)
        slopes = self.weights / self.scale
        scores: np.ndarray = features.astype(np.float64) @ slopes + (
            self.intercept - self.mean @ slopes
        )
        return scores


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, inverse_penalty: float = INVERSE_PENALTY
) -> Logistic:
    """Fit labels on features.

    Args:
        features: float[rows, k].
        labels: bool[rows] (or 0 and 1), True for members.
        inverse_penalty: C > 0, the inverse of the ridge penalty's weight.

    Returns:
        The unique minimum of the objective; a constant feature gets weight 0.

    Raises:
        ValueError: on shapes that do not match; on NaN; if all labels are equal.

    >>> rng = np.random.default_rng(0)
    >>> seen = rng.random(4000) < 0.3
    >>> noisy = rng.normal(size=(4000, 2)) + np.outer(seen, [1.0, 0.0])
    >>> fitted = fit_logistic(noisy, seen, inverse_penalty=1.0)
    >>> bool(abs(fitted.weights[0] - 1) < 0.2), bool(abs(fitted.weights[1]) < 0.1)
    (True, True)
    """
    features, labels = _checked(features, labels, inverse_penalty)
    mean = features.mean(axis=0)
    deviation = features.std(axis=0)
    constant = deviation <= 1e-12 * np.abs(features).max(axis=0)
    scale = np.where(constant, 1.0, deviation)
    z = np.where(constant, 0.0, (features - mean) / scale)
    share = float(labels.mean())
    weight = inverse_penalty * np.where(labels, 0.5 / share, 0.5 / (1 - share))
    beta: np.ndarray = np.zeros(z.shape[1] + 1)  # the intercept last
    value, gradient, hessian = _objective(beta, z, labels, weight)
    for _ in range(STEPS):
        step = np.linalg.solve(hessian, gradient)
        decrement = gradient @ step
        size = 1.0  # halved until the objective falls enough, as Newton steps may overshoot
        while True:
            tried = _objective(beta - size * step, z, labels, weight)
            if tried[0] <= value - 0.25 * size * decrement or size < 1e-8:
                break
            size /= 2
        beta = beta - size * step
        if decrement <= TOLERANCE * max(1.0, value):
            break
        value, gradient, hessian = tried
    return Logistic(beta[:-1], mean, scale, float(beta[-1]))


def _checked(
    features: np.ndarray, labels: np.ndarray, inverse_penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or features.shape[1] == 0 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"Expected features [rows, k] and one label a row, got {features.shape} and "
            f"{labels.shape}."
        )
    check_finite("features", features)
    if labels.dtype != bool:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("Expected labels to hold True and False (or 1 and 0) only.")
        labels = labels.astype(bool)
    if labels.all() or not labels.any():
        raise ValueError("Expected labels of members and non-members, got one kind only.")
    if not 0 < inverse_penalty < np.inf:
        raise ValueError(f"Expected inverse_penalty > 0, got {inverse_penalty}.")
    return features.astype(np.float64), labels


def _objective(
    beta: np.ndarray, z: np.ndarray, labels: np.ndarray, weight: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Value, gradient [k + 1] and Hessian [k + 1, k + 1]."""
    value = 0.5 * beta[:-1] @ beta[:-1]
    gradient = np.append(beta[:-1], 0.0)
    hessian = np.diag(np.append(np.ones(len(beta) - 1), 0.0))
    for start in range(0, len(z), BLOCK):
        rows = slice(start, start + BLOCK)
        x = np.column_stack([z[rows], np.ones(len(z[rows]))])
        log_odds = x @ beta
        signed = np.where(labels[rows], log_odds, -log_odds)
        value += weight[rows] @ np.logaddexp(0.0, -signed)
        p = sigmoid(log_odds)
        gradient += x.T @ (weight[rows] * (p - labels[rows]))
        hessian += x.T @ (x * (weight[rows] * p * (1 - p))[:, None])
    return float(value), gradient, hessian
