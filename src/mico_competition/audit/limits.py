"""Limits: the largest true positive rate that a mechanism allows at each false positive rate.

Three for one run, from the loosest to the exact one (docs/METHODS.md, sections 8.1 to 8.4):

- "epsilon, delta": the limit from the claimed pair alone.
- "Gaussian DP": the Gaussian curve of least mu that lies above the exact one at every rate shown.
- "exact": from the privacy loss distribution of this sampling, noise and number of steps, which
  gives an epsilon for every delta.

All are for one record added or removed, and for an attacker who sees every noisy gradient. In the
exact limit "member" is the positive answer: the false positive rate is that of "member" for a
record that is out, the true positive rate that of "member" for one that is in. With "non-member" as
the positive answer a subsampled mechanism has another curve; the other two limits hold for both.
Only the metadata of models is read, never their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from mico_competition.audit.claims import STATED, PrivacyClaim, claim_of
from mico_competition.audit.tradeoff import dp_tpr, gdp_tpr
from mico_competition.competition.layout import walk_challenge
from mico_competition.support.call_errors import explained
from mico_competition.support.files import PathLike
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accounting_check import SEARCH_INTERVAL, delta_curves

SMALLEST_RATE = 1e-5
"""The Gaussian limit holds from this false positive rate on. Below it a subsampled mechanism
approaches one without sampling, and no useful Gaussian curve lies above it."""

NAMES = ("epsilon, delta", "Gaussian DP", "exact")
_EPSILONS = np.linspace(0, 40, 4001)
_GRID = np.concatenate([np.geomspace(SMALLEST_RATE, 0.1, 200), np.linspace(0.101, 0.9999, 200)])

DRAWN = np.unique(
    np.concatenate(
        [
            np.geomspace(SMALLEST_RATE, 1e-3, 21),
            np.geomspace(1e-3, 0.1, 41),
            np.linspace(0.1, 1, 46),
        ]
    )
)
"""False positive rates at which plots draw the limits."""

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def max_tpr(mechanism: Mechanism, fpr: np.ndarray) -> np.ndarray:
    """The largest TPR that the mechanism permits, by its loss distribution: float64, like `fpr`.

    TPR is the probability of the answer "member" for a record that was trained on, FPR that for one
    that was not: docs/METHODS.md, section 8.3 (formulas 69 and 70). Losses are rounded up, so the
    result is an upper bound. Sources: Dong, Roth and Su, JRSS B 2022, proposition 2.12, for each
    direction; Zhu, Dong and Wang, AISTATS 2022.

    Args:
        mechanism: a Poisson-subsampled Gaussian, composed with itself.
        fpr: rates in [0, 1], any shape.

    Raises:
        ValueError: on a rate that is not in [0, 1].
    """
    return _least(fpr, *_deltas(mechanism))


def symmetric_tpr(mechanism: Mechanism, fpr: np.ndarray) -> np.ndarray:
    """As `max_tpr`, but at least the curve of each direction, "member" and "non-member".

    The smallest curve that bounds every membership test, whichever answer counts as positive.
    `one_run_fdp`, which guesses both answers, needs this one.
    """
    both = np.maximum(*_deltas(mechanism))
    return _least(fpr, both, both)


def _least(fpr: Any, delta_in: np.ndarray, delta_out: np.ndarray) -> np.ndarray:
    """The least TPR over all epsilons, and 1 at most."""
    fpr = _rates(fpr)
    grown, shrunk = np.exp(_EPSILONS)[:, None], np.exp(-_EPSILONS)[:, None]
    best = np.ones(fpr.size)
    for start in range(0, fpr.size, 500):
        rate = fpr.ravel()[None, start : start + 500]
        few = (grown * rate + delta_in[:, None]).min(axis=0)
        many = (-np.expm1(-_EPSILONS)[:, None] + shrunk * (rate + delta_out[:, None])).min(axis=0)
        best[start : start + 500] = np.minimum(np.minimum(few, many), 1)
    return best.reshape(fpr.shape)


@lru_cache(maxsize=64)
def gaussian_mu(mechanism: Mechanism) -> float:
    """The least mu whose Gaussian curve bounds both directions' at rates from 1e-5 to 0.9999.

    docs/METHODS.md, section 8.4 (formula 71).  A bound, unlike the mu of the central limit theorem,
    q sqrt(T (exp(1 / sigma^2) - 1)) (Bu et al. 2020, arXiv 1911.11607), which is an approximation.
    Gomez et al. 2025 (arXiv 2503.10945) recommend reporting such a mu.
    """
    from scipy.stats import norm

    exact = symmetric_tpr(mechanism, _GRID)
    inside = exact < 1
    if not inside.any():
        return math.inf
    return float(max(0.0, (norm.ppf(exact[inside]) - norm.ppf(_GRID[inside])).max()))


def tpr_limits(claim: PrivacyClaim, fpr: np.ndarray) -> Curves:
    """Each of NAMES -> (fpr, the largest TPR that the claim permits there).

    Raises:
        ValueError: on a rate that is not in [0, 1].
    """
    fpr = _rates(fpr)
    run = claim.mechanism
    found = (
        dp_tpr(claim.epsilon, claim.delta, fpr),
        gdp_tpr(gaussian_mu(run), fpr),
        max_tpr(run, fpr),
    )
    return {name: (fpr, tpr) for name, tpr in zip(NAMES, found)}


@overload
def tpr_limit(
    *,
    fpr: float,
    epsilon: float | None = None,
    delta: float = 1e-5,
    mu: float | None = None,
    mechanism: Mechanism | PrivacyClaim | None = None,
) -> float: ...


@overload
def tpr_limit(
    *,
    fpr: Sequence[float] | np.ndarray,
    epsilon: float | np.ndarray | None = None,
    delta: float | np.ndarray = 1e-5,
    mu: float | np.ndarray | None = None,
    mechanism: Mechanism | PrivacyClaim | None = None,
) -> np.ndarray: ...


@overload
def tpr_limit(
    *,
    fpr: float,
    epsilon: Sequence[float] | np.ndarray,
    delta: float | np.ndarray = 1e-5,
) -> np.ndarray: ...


@explained
def tpr_limit(
    *,
    fpr: Any,
    epsilon: Any = None,
    delta: Any = 1e-5,
    mu: Any = None,
    mechanism: Mechanism | PrivacyClaim | None = None,
) -> Any:
    """The largest true positive rate that a private mechanism permits any attack.

    It holds for every attack on one record that is added or removed, whatever else the attacker
    knows.  Give one of `epsilon`, `mu` and `mechanism`; a mechanism gives the tightest limit.

    Args:
        fpr: the false positive rate of the attack, in [0, 1], a number or an array.
        epsilon: >= 0, of (epsilon, delta)-differential privacy; infinite permits everything.
        delta: in [0, 1], of the same; not used with `mu` or `mechanism`.
        mu: >= 0, of mu-Gaussian differential privacy.
        mechanism: a `Mechanism` (noise multiplier, sampling rate and number of steps of DP-SGD) or
            the `PrivacyClaim` of a trained model; its limit is computed from its privacy loss
            distribution, which needs the package dp-accounting.

    Returns:
        A float for numbers; a float64 array of the broadcast shape if an argument is an array.

    Raises:
        ValueError: if a number is out of range, or if not exactly one of `epsilon`, `mu` and
            `mechanism` is given.

    Sources: Kairouz, Oh and Viswanath, ICML 2015 (epsilon, delta); Dong, Roth and Su, JRSS B 2022
    (mu, mechanism): docs/METHODS.md, section 8.

    >>> round(tpr_limit(epsilon=1, delta=1e-5, fpr=0.1), 4)
    0.2718
    >>> tpr_limit(epsilon=4, fpr=[0.001, 0.01, 0.1]).round(4).tolist()
    [0.0546, 0.546, 0.9835]
    >>> round(tpr_limit(mu=1, fpr=0.1), 4)
    0.3891
    """
    given = {"epsilon": epsilon, "mu": mu, "mechanism": mechanism}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(
            f"Expected one of epsilon, mu and mechanism, got {' and '.join(named) or 'none'}: say "
            "which guarantee the limit is of."
        )
    if epsilon is not None:
        found = dp_tpr(epsilon, delta, fpr)
    elif mu is not None:
        found = gdp_tpr(mu, fpr)
    else:
        run: Any = mechanism.mechanism if isinstance(mechanism, PrivacyClaim) else mechanism
        if not hasattr(run, "noise_multiplier"):
            raise ValueError(
                "Expected mechanism to be a Mechanism or a PrivacyClaim, got "
                f"{type(mechanism).__name__}: of a PrivateTrainer, give trainer.spent()."
            )
        found = max_tpr(run, fpr)
    return float(found) if np.ndim(found) == 0 else found


def tpr_limits_of(challenge_folder: PathLike, *, phase: str = "train") -> dict[str, Curves]:
    """Scenario -> name of a limit -> (false positive rates, the largest TPR there).

    `scoring.generate_roc` and `scoring.generate_html` draw these limits above the ROC curves.
    Scenarios without a privacy claim are left out.  Models without metadata, such as those of 2022,
    state no claim: then the limits are those of the table's claim, and their names say so.

    Args:
        challenge_folder: `.../cifar10`, with models.
        phase: the phase whose metadata to read.

    Raises:
        ValueError: as `layout.walk_challenge` and `claim_of`.

    >>> rates, limits = tpr_limits_of("cifar10")["cifar10_hi"]["exact"]  # doctest: +SKIP
    """
    folders: dict[str, list[Path]] = {}
    for model in walk_challenge(challenge_folder, phases=[phase]):
        folders.setdefault(model.scenario, []).append(model.path)
    found: dict[str, Curves] = {}
    for scenario, paths in folders.items():
        claim = claim_of(paths)
        if claim.claim is not None:
            by = "" if claim.source == STATED else ", claimed by the table"
            curves = tpr_limits(claim.claim, DRAWN)
            found[scenario] = {f"{name}{by}": curve for name, curve in curves.items()}
    return found


def _rates(fpr: Any) -> np.ndarray:
    rates = np.asarray(fpr, dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("Expected false positive rates in [0, 1].")
    return rates


@lru_cache(maxsize=512)  # an audit with the mechanism's own curve needs a hundred
def _deltas(mechanism: Mechanism) -> tuple[np.ndarray, np.ndarray]:
    """The deltas of _EPSILONS: of a record that is in over one that is out, and the reverse."""
    return delta_curves(mechanism, _EPSILONS, value_discretization_interval=SEARCH_INTERVAL)
