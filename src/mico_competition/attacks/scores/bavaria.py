"""BaVarIA: LiRA with a prior on the variance, so that few shadow models suffice.

The formulas are in docs/METHODS.md, section 4.6 (formulas 19 and 20).  Source: Braennvall,
"Exponential-family membership inference: from LiRA and RMIA to BaVarIA", 2026 (arXiv 2603.11799).
The choice of the prior's parameters is ours.
"""

from __future__ import annotations

import math

import numpy as np

from mico_competition.attacks.scores.common import check_inputs, moments_of
from mico_competition.attacks.scores.groups import log_normal, usual, usual_shift

_lgamma = np.frompyfunc(math.lgamma, 1, 1)


def bavaria(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    nu0: float = 20.0,
    kappa0: float = 0.0,
    predictive: str = "t",
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The log ratio of the predictive densities of IN and OUT shadows.

    Args:
        target: float[points] or float[targets, points]; preferably the stable logit.
        shadow: float[models, points].
        is_member: bool[models, points].
        nu0: the weight of the prior variance, in observations, > 0.
        kappa0: the weight of the prior mean, in observations, >= 0; 0 is a flat prior, which costs
            one degree of freedom. An empty group takes its prior mean with weight 1.
        predictive: "t" or "normal".
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        float of the target's shape, any real number; defined for any number of shadows.

    Raises:
        ValueError: on bad input, constant signals, or nothing to fill a missing mean from.

    >>> shadow = np.array([[2.0, 0.0], [2.2, 0.1], [0.0, 1.9], [0.1, 2.1]])
    >>> is_member = shadow > 1
    >>> bavaria(np.array([2.1, 0.0]), shadow, is_member).round(1).tolist()
    [35.8, -22.5]
    """
    if not nu0 > 0 or not kappa0 >= 0:
        raise ValueError(f"Expected nu0 > 0 and kappa0 >= 0, got {nu0} and {kappa0}.")
    if predictive not in ("t", "normal"):
        raise ValueError(f'Expected predictive "t" or "normal", got {predictive!r}.')
    inputs = check_inputs(target, shadow, is_member, target_index)
    m = moments_of(inputs)
    common = usual(m)
    shift = usual_shift(m)
    prior = (nu0, kappa0, predictive)
    inside = _log_predictive(
        inputs.target,
        (m.n_in, m.mean_in, m.ss_in),
        m.mean_out + shift,
        m.n_out,
        common.var_in,
        prior,
    )
    outside = _log_predictive(
        inputs.target,
        (m.n_out, m.mean_out, m.ss_out),
        m.mean_in - shift,
        m.n_in,
        common.var_out,
        prior,
    )
    log_ratio: np.ndarray = inside - outside
    return log_ratio


def _log_predictive(
    s: np.ndarray,
    group: tuple[np.ndarray, np.ndarray, np.ndarray],
    prior_mean: np.ndarray,
    n_other: np.ndarray,
    prior_var: np.ndarray,
    prior: tuple[float, float, str],
) -> np.ndarray:
    """Log predictive density of `s` given a group's count, mean and sum of squares."""
    n, mean, ss = group
    nu0, kappa0, predictive = prior
    # The prior mean comes from the other group; if that is empty, there is none.
    kappa = np.where(n == 0, max(kappa0, 1.0), np.where(n_other == 0, 0.0, kappa0))
    weight = n + kappa
    centre = (n * mean + kappa * prior_mean) / weight
    pull = kappa * n / weight * np.where(kappa > 0, mean - prior_mean, 0.0) ** 2
    nu = nu0 + np.where(kappa > 0, n, n - 1)
    var = (nu0 * prior_var + ss + pull) / nu * (1 + 1 / weight)
    if predictive == "normal":
        return log_normal(s, centre, var)
    return log_student(s, centre, var, nu)


def log_student(
    x: np.ndarray, centre: np.ndarray, scale2: np.ndarray, nu: np.ndarray
) -> np.ndarray:
    """Log density of a Student t with location, squared scale and degrees of freedom."""
    values, where = np.unique(nu, return_inverse=True)  # few: they count shadows
    gammas = np.asarray(_lgamma((values + 1) / 2) - _lgamma(values / 2), dtype=np.float64)
    norm = (gammas - 0.5 * np.log(values * np.pi))[where].reshape(nu.shape)
    far = np.log1p((x - centre) ** 2 / (nu * scale2))
    log_density: np.ndarray = norm - 0.5 * np.log(scale2) - (nu + 1) / 2 * far
    return log_density
