"""Lower bounds on epsilon from the scores of one attack, by several methods.

The mathematics is in docs/METHODS.md, section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mico_competition.audit.bound import Bound
from mico_competition.audit.checked import check_level
from mico_competition.audit.gaussian import gaussian_bound
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.one_run_fdp import one_run_fdp_bound
from mico_competition.audit.threshold import threshold_bound

METHODS: Mapping[str, Callable[..., Bound]] = {
    "one-run": one_run_bound,
    "one-run f-DP": one_run_fdp_bound,
    "threshold": threshold_bound,
    "Gaussian DP": gaussian_bound,
}
"""Bound.method -> the function that computes it, from the fewest assumptions to the most. The first
assumes fair coins only, the second Gaussian DP as well, the third independent points, the fourth
both."""


def all_bounds(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    seed: int = 0,
    guesses: Any = None,
) -> list[Bound]:
    """A lower bound on epsilon by each method.

    Each bound holds with probability `level`; the largest of them does not.

    Args:
        truth, scores: see `check_scores`; only the order of the scores counts.
        delta: in (0, 1).
        level: in (0, 1), of each bound.
        seed: for random choices, such as the order of tied scores.
        guesses: of the one-run bounds, see `one_run_bound`.

    Returns:
        The bounds, in the order of METHODS.

    Raises:
        ValueError: as the functions of METHODS.

    >>> import numpy as np
    >>> truth = np.arange(200) % 2
    >>> scores = truth + np.arange(200) % 5 / 4
    >>> [bound.method for bound in all_bounds(truth, scores, delta=1e-5)]
    ['one-run', 'one-run f-DP', 'threshold', 'Gaussian DP']
    """
    check_level(level)
    plans = {name: {"guesses": guesses} for name in ("one-run", "one-run f-DP")}
    return [
        bound(truth, scores, delta=delta, level=level, seed=seed, **plans.get(method, {}))
        for method, bound in METHODS.items()
    ]
