"""All lower bounds of epsilon from the scores of one attack, each by its own method.

The mathematics is in docs/METHODS.md, section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
"""Bound.method -> what computes it, from what takes least for granted.  The first needs fair coins
alone; the second presumes Gaussian DP as well, the third independent points, the fourth both."""


def all_bounds(
    truth: Any,
    scores: Any,
    *,
    delta: float,
    level: float = 0.95,
    seed: int = 0,
    jointly: bool = False,
    methods: Sequence[str] = tuple(METHODS),
    guesses: Any = None,
) -> list[Bound]:
    """A lower bound of epsilon by each method.

    By itself each bound holds with probability `level`, but the largest of them does not: to
    report the largest, ask for bounds that hold jointly.

    Args:
        truth, scores: see `check_scores`; only the order of the scores counts.
        delta: in (0, 1).
        level: in (0, 1): of each bound, or of all at once.
        seed: of what is drawn.
        jointly: whether all of them are to hold at once (Bonferroni).
        methods: some of METHODS.
        guesses: of the one-run bounds, see `one_run_bound`.

    Returns:
        The bounds, in the order of `methods`, each with the level that it has by itself.

    Raises:
        ValueError: as the methods' own functions; on a method that is none.

    >>> import numpy as np
    >>> truth = np.arange(200) % 2
    >>> scores = truth + np.arange(200) % 5 / 4
    >>> [bound.method for bound in all_bounds(truth, scores, delta=1e-5)]
    ['one-run', 'one-run f-DP', 'threshold', 'Gaussian DP']
    """
    check_level(level)
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise ValueError(
            f"Expected methods among {', '.join(METHODS)}, got {', '.join(unknown) or 'none'}."
        )
    each = 1 - (1 - level) / len(methods) if jointly else level
    plans = {name: {"guesses": guesses} for name in ("one-run", "one-run f-DP")}
    return [
        METHODS[method](truth, scores, delta=delta, level=each, seed=seed, **plans.get(method, {}))
        for method in methods
    ]
