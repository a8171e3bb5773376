"""Quantile regression attack: one regression on non-members instead of shadow models.

A regression predicts the quantiles of the signal of non-members from features of a record; a signal
above the high quantile is evidence for a member. The score is in docs/METHODS.md, section 4.8
(formula 23). Sources: Bertran, Tang, Kearns, Morgenstern, Roth and Wu, "Scalable membership
inference attacks via quantile regression", NeurIPS 2023 (arXiv 2307.03694); the linear fit: Hunter
and Lange, "Quantile regression via an MM algorithm", 2000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mico_competition.attacks.scores.common import check_finite, check_inputs, moments_of

if TYPE_CHECKING:
    from mico_competition.attacks.problem import Problem

PAIRS = 4000  # (shadow, point) pairs to learn from
STEPS = 200  # maximal steps of the MM algorithm


def quantile_regression(
    target: np.ndarray,
    features: np.ndarray,
    outside: np.ndarray,
    outside_features: np.ndarray,
    *,
    high: float = 0.9,
) -> np.ndarray:
    """How far the signal lies above that of similar points outside training.

    Args:
        target: float[points], the target's signal; larger = more likely a member.
        features: float[points, features]: features of each point (pixels, embeddings, the mean
            signal of reference models).
        outside: float[others]: the target's signal on points that it did not train on.
        outside_features: float[others, features].
        high: the quantile to predict beside the median, between 0.5 and 1.

    Returns:
        float[points]: (s - median) / (high quantile - median), both predicted for the point.
        Above 1 is the paper's test at a false positive rate of 1 - high; other thresholds take a
        location-scale family of quantiles.  Where the two quantiles (nearly) cross, the distance
        counts as a tenth of the usual one.

    Raises:
        ValueError: on shapes that do not match, on fewer than 10 others, on signals that are not
            finite or are constant.

    >>> brightness = np.linspace(0.0, 1.0, 50)[:, None]
    >>> outside = brightness[:, 0] + np.tile([-0.1, 0.1], 25)
    >>> target = np.array([2.0, 0.5])
    >>> quantile_regression(target, np.array([[0.5], [0.5]]), outside, brightness) > 1
    array([ True, False])
    """
    if not 0.5 < high < 1:
        raise ValueError(f"Expected high between 0.5 and 1, got {high}.")
    x, y = _pair("target", target, "features", features)
    x_out, y_out = _pair("outside", outside, "outside_features", outside_features)
    if x.shape[1] != x_out.shape[1]:
        raise ValueError(
            f"Expected the same features for both, got {x.shape[1]} and {x_out.shape[1]} columns."
        )
    if len(y_out) < 10:
        raise ValueError(f"Expected at least 10 points outside training, got {len(y_out)}.")
    if np.ptp(y_out) == 0:
        raise ValueError("Expected signals that vary, got constant ones outside training.")
    centre, upper = (_linear(x_out, y_out, level, x) for level in (0.5, high))
    distance = upper - centre
    positive = distance[distance > 0]
    usual = np.median(positive) if len(positive) else np.std(y_out)
    standardised: np.ndarray = (y - centre) / np.maximum(distance, 0.1 * usual)
    return standardised


def _pair(
    name: str, signal: np.ndarray, features_name: str, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features and signals as checked float64."""
    signal, features = np.asarray(signal), np.asarray(features)
    check_finite(name, signal)
    check_finite(features_name, features)
    if signal.ndim != 1 or features.ndim != 2 or len(features) != len(signal):
        raise ValueError(
            f"Expected {name} [points] and {features_name} [points, features], got shapes "
            f"{signal.shape} and {features.shape}."
        )
    return features.astype(np.float64), signal.astype(np.float64)


def _linear(x: np.ndarray, y: np.ndarray, level: float, at: np.ndarray) -> np.ndarray:
    """Linear quantile regression with intercept, predicted at `at`."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)

    def design(points: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(points)), (points - mean) / scale])

    a = design(x)
    spread = y.std()
    ridge = (
        1e-9 * len(y) * np.eye(a.shape[1])
    )  # keeps systems with equal or constant columns solvable
    ridge[0, 0] = 0.0
    beta = np.linalg.lstsq(a, y, rcond=None)[0]
    pull = (2 * level - 1) * a.sum(axis=0)
    for step in range(STEPS):
        # The kink of |r| is smoothed less and less, as steps would otherwise stop at early zeros.
        rounding = spread * max(1e-6, 0.1 * 0.8**step)
        weight = 1 / (rounding + np.abs(y - a @ beta))
        weighted = a * weight[:, None]
        new = np.linalg.solve(weighted.T @ a + ridge / spread, weighted.T @ y + pull)
        done = np.abs(new - beta).max() <= 1e-9 * spread and rounding <= 1e-6 * spread
        beta = new
        if done:
            break
    line: np.ndarray = design(at) @ beta
    return line


def quantile_attack(problem: Problem) -> np.ndarray:
    """Quantile regression of OUT signals on the other shadows' signals at a point.

    Bertran et al. learn from points outside the target's training set. MICO discloses none, so OUT
    shadows replace them: random (shadow, point) pairs, with the shadow left out of the mean and
    spread that describe the point.
    """
    signal, shadows = problem.source.get("logit"), problem.shadows
    outside = np.flatnonzero(~problem.is_member)
    if len(outside) < 10:
        raise ValueError("Expected at least 10 (shadow, point) pairs OUT, got fewer: take `lira`.")
    pairs = outside[np.random.default_rng(0).permutation(len(outside))[:PAIRS]]
    rows, columns = np.divmod(pairs, signal.shape[1])
    target = signal[shadows[rows], columns]
    learnt = moments_of(
        check_inputs(target, signal[np.ix_(shadows, columns)], problem.is_member[:, columns], rows)
    )
    spread = np.sqrt(learnt.ss_all / np.maximum(learnt.n - 1, 1))
    asked = problem.columns.ravel()
    points, place = np.unique(asked, return_inverse=True)  # many targets share the same shadows
    around = signal[np.ix_(shadows, points)]
    known = np.stack([around.mean(axis=0), around.std(axis=0, ddof=1)], axis=1)
    score = quantile_regression(
        signal[np.repeat(problem.targets, problem.columns.shape[1]), asked],
        known[place],
        target,
        np.stack([learnt.mean_all, spread], axis=1),
    )
    return score.reshape(problem.columns.shape)
