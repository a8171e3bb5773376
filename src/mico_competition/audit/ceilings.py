"""Ceilings: the largest true positive rate that a mechanism allows at each false positive rate.

Three for one run, from the loosest to the exact one:

- "epsilon, delta": what the pair in the metadata promises by itself.
- "Gaussian DP": the Gaussian curve of least mu that lies above the exact one at every rate shown.
- "exact": the privacy loss distribution of this very sampling, noise and number of steps, of
  which every (epsilon, delta) holds at once.

All are for one record added or removed, for whoever sees every noisy gradient, in whichever of
the two directions is the worse.  Of models their metadata is read, never their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.audit.promise import Promise, promise_of
from mico_competition.audit.tradeoff import dp_tpr, gdp_tpr
from mico_competition.files import PathLike
from mico_competition.layout import walk_challenge
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accounting_check import SEARCH_INTERVAL, delta_curve

SMALLEST_RATE = 1e-5
"""The Gaussian ceiling holds from this false positive rate on.  Below it a subsampled mechanism
looks more and more like one without sampling, and no useful Gaussian curve lies above it."""

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
"""False positive rates at which pictures have a ceiling."""

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def exact_tpr(mechanism: Mechanism, fpr: np.ndarray) -> np.ndarray:
    """float64, like `fpr`: the largest TPR that the mechanism allows, by its loss distribution.

    The least, over a grid of epsilon, of what each (epsilon, delta(epsilon)) allows (Wasserman and
    Zhou, JASA 2010, theorem 2.4; Dong, Roth and Su, JRSS B 2022, proposition 2.12: the trade-off
    function is the supremum of these).  Losses are rounded up, so the result is an upper bound.

    Args:
        mechanism: a Poisson-subsampled Gaussian, composed with itself.
        fpr: rates in [0, 1], any shape.

    Raises:
        ImportError: if dp_accounting is missing.
        ValueError: on a rate that is not in [0, 1].
    """
    fpr = _rates(fpr)
    epsilons, deltas = _deltas(mechanism)
    best = np.ones(fpr.size)
    for start in range(0, fpr.size, 500):
        part = slice(start, start + 500)
        allowed = dp_tpr(epsilons[:, None], deltas[:, None], fpr.ravel()[None, part])
        best[part] = allowed.min(axis=0)
    return best.reshape(fpr.shape)


@lru_cache(maxsize=64)
def gaussian_mu(mechanism: Mechanism) -> float:
    """The least mu whose Gaussian curve lies above the exact one from SMALLEST_RATE to 1.

    A bound, unlike the mu of the central limit theorem, q sqrt(T (exp(1 / sigma^2) - 1)) (Bu et
    al. 2020, arXiv 1911.11607), which is an approximation.  Reporting such a mu is what Gomez et
    al. 2025 (arXiv 2503.10945) ask for.

    Raises:
        ImportError: if dp_accounting is missing.
    """
    from scipy.stats import norm

    exact = exact_tpr(mechanism, _GRID)
    inside = exact < 1
    if not inside.any():
        return math.inf
    return float(max(0.0, (norm.ppf(exact[inside]) - norm.ppf(_GRID[inside])).max()))


def ceilings(promise: Promise, fpr: np.ndarray) -> Curves:
    """Each of NAMES -> (fpr, the largest TPR there).

    Raises:
        ImportError: if dp_accounting is missing.
        ValueError: on a rate that is not in [0, 1].
    """
    fpr = _rates(fpr)
    run = promise.mechanism
    found = (
        dp_tpr(promise.epsilon, promise.delta, fpr),
        gdp_tpr(gaussian_mu(run), fpr),
        exact_tpr(run, fpr),
    )
    return {name: (fpr, tpr) for name, tpr in zip(NAMES, found)}


def ceilings_of(challenge_folder: PathLike, *, phase: str = "train") -> dict[str, Curves]:
    """Scenario -> name of a ceiling -> (false positive rates, the largest TPR there).

    What `scoring.generate_roc` and `scoring.generate_html` draw above the curves.  Scenarios that
    promise nothing are left out, as are models without metadata, such as those of 2022.

    Args:
        challenge_folder: `.../cifar10`, with models.
        phase: whose metadata to read.

    Raises:
        ValueError: as `layout.walk_challenge` and `promise_of`.
        ImportError: if there is a promise, and dp_accounting is missing.
    """
    folders: dict[str, list[Path]] = {}
    for model in walk_challenge(challenge_folder, phases=[phase]):
        folders.setdefault(model.scenario, []).append(model.path)
    promises = {name: promise_of(paths) for name, paths in folders.items()}
    return {name: ceilings(p, DRAWN) for name, p in promises.items() if p is not None}


def _rates(fpr: Any) -> np.ndarray:
    rates = np.asarray(fpr, dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("Expected false positive rates in [0, 1].")
    return rates


@lru_cache(maxsize=64)
def _deltas(mechanism: Mechanism) -> tuple[np.ndarray, np.ndarray]:
    """Epsilons from 0 up, and the delta of each."""
    return _EPSILONS, delta_curve(
        mechanism, _EPSILONS, value_discretization_interval=SEARCH_INTERVAL
    )
