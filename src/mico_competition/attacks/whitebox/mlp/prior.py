"""The prior of the second pass, from the beliefs about every record after the first.

After the first pass each record of each model has log odds of membership. They give its decoded
coefficient a prior mean and spread, so that records with a nearly certain membership no longer
disturb the others. See docs/METHODS.md, section 6.5 (formula 44).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import Moments, check_inputs, moments_of
from mico_competition.attacks.scores.empirical_bayes import NU0
from mico_competition.attacks.scores.groups import filled_means, shrunk
from mico_competition.attacks.scores.transforms import sigmoid
from mico_competition.attacks.whitebox.mlp.evidence import calibrator

FLOOR = 0.15  # least shift of a record, as a share of the mean shift
JITTER = 0.2  # spread of a record's coefficient between models, as a share of its shift


@dataclass(frozen=True)
class Coefficients:
    """Estimates of c from shadows: float32[r, N] each, every model left out of its own.

    Attributes:
        out: the mean of c in models without the record.
        shift: the increase of c in models with the record, shrunk towards the mean shift; above 0.
    """

    out: np.ndarray
    shift: np.ndarray

    def of(self, place: int, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread float32[N] of c in one model, with probabilities `share` [N]."""
        shift = self.shift[place]
        spread = shift * np.sqrt(share * (1 - share) + JITTER**2)
        return self.out[place] + share * shift, spread

    def usual_spread(self, place: int, share: float) -> float:
        """Root mean square of the spread if only the share of members is known."""
        return float(np.sqrt((self.shift[place] ** 2).mean() * (share * (1 - share) + JITTER**2)))


@dataclass(frozen=True)
class Deviations:
    """The prior of decodes whose c is by construction 0 for members and -1 for others."""

    def of(self, place: int, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread float32[N] of c in one model, with probabilities `share` [N]."""
        return share - 1, np.sqrt(share * (1 - share) + JITTER**2)

    def usual_spread(self, place: int, share: float) -> float:
        """The spread if only the share of members is known."""
        return float(np.sqrt(share * (1 - share) + JITTER**2))


def deviations(problem: Problem, signal: np.ndarray, rows: np.ndarray) -> Deviations:
    """As `coefficients`, where nothing needs to be estimated."""
    return Deviations()


def coefficients(problem: Problem, signal: np.ndarray, rows: np.ndarray) -> Coefficients:
    """Estimates from the first pass's c.

    Args:
        problem: whose shadows are the reference.
        signal: float[models, N], c.
        rows: int64[r], all of them shadows or none.
    """
    out, shift = [], []
    for arrays, own in calibrator(problem).blocks(signal, rows):
        moments = moments_of(check_inputs(*arrays, own))
        mean_out, own_shift = _shrunk_shift(moments)
        shape = arrays[0].shape
        out.append(np.broadcast_to(mean_out, shape).astype(np.float32))
        shift.append(np.broadcast_to(own_shift, shape).astype(np.float32))
    return Coefficients(np.concatenate(out), np.concatenate(shift))


def _shrunk_shift(m: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Mean of OUT models, and the shift shrunk towards its mean by its sampling variance."""
    mean_in, mean_out = filled_means(m)
    var = shrunk(m, prior_weight=NU0, variance="pooled").var_in
    both = (m.n_in > 0) & (m.n_out > 0)
    noise = var * (1 / np.maximum(m.n_in, 1) + 1 / np.maximum(m.n_out, 1))
    weight = np.where(both, 1 / noise, 0.0)
    total = weight.sum(axis=-1, keepdims=True)
    gap = mean_in - mean_out
    usual = (weight * gap).sum(axis=-1, keepdims=True) / total
    spread = (weight * ((gap - usual) ** 2 - noise)).sum(axis=-1, keepdims=True) / total
    spread = np.maximum(spread, 1e-4 * usual**2)
    trust = np.where(both, spread / (spread + noise), 0.0)
    shift = usual + trust * (gap - usual)
    return mean_out, np.maximum(shift, FLOOR * np.abs(usual))


def membership(log_odds: np.ndarray, share: float) -> np.ndarray:
    """float[...], probabilities from log odds at equal classes and the share of members."""
    return sigmoid(log_odds + np.log(share / (1 - share)))
