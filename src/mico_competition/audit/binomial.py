"""Exact bounds of a probability from counts: Clopper and Pearson.

Their coverage is at least the stated level for every probability and every n. An upper bound is
never 0 and a lower bound never 1, so ratios of them are finite: docs/METHODS.md, section 9.1
(formula 74).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betaincinv

from mico_competition.audit.checked import check_level


def lower(successes: Any, trials: Any, level: float) -> Any:
    """The lower Clopper-Pearson bound on a probability.

    Args:
        successes: k, a whole number in [0, trials], or an array of them.
        trials: n >= 1, or an array that goes with k.
        level: in (0, 1), the least probability with which the bound holds.

    Returns:
        A float in [0, 1), or an array of them; 0 for k = 0.

    Raises:
        ValueError: if an argument is out of range.

    >>> round(lower(10, 10, 0.95), 4)  # 0.05 ** (1 / 10)
    0.7411
    """
    k, n = _checked(successes, trials, level)
    # Where k is 0 the bound is 0; the 1 stands in for a parameter that must be positive.
    found = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), n - k + 1, 1 - level))
    return found if found.ndim else float(found)


def upper(successes: Any, trials: Any, level: float) -> Any:
    """The upper Clopper-Pearson bound on a probability.

    Arguments and errors are those of `lower`.

    Returns:
        A float in (0, 1], or an array of them; 1 for k = n.

    >>> round(upper(0, 10, 0.95), 4)  # 1 - 0.05 ** (1 / 10)
    0.2589
    """
    k, n = _checked(successes, trials, level)
    found = np.where(k == n, 1.0, betaincinv(k + 1, np.maximum(n - k, 1), level))
    return found if found.ndim else float(found)


def interval(successes: Any, trials: Any, level: float) -> tuple[Any, Any]:
    """Both bounds, each at level (1 + `level`) / 2, so that both hold jointly at `level`.

    Arguments and errors are those of `lower`.

    >>> tuple(round(end, 4) for end in interval(5, 10, 0.95))
    (0.1871, 0.8129)
    """
    check_level(level)
    each = (1 + level) / 2
    return lower(successes, trials, each), upper(successes, trials, each)


def _checked(successes: Any, trials: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
    check_level(level)
    k, n = np.asarray(successes), np.asarray(trials)
    # These comparisons are false for NaN, too.
    if not ((n >= 1) & (k >= 0) & (k <= n) & (k == np.floor(k)) & (n == np.floor(n))).all():
        raise ValueError(
            "Expected whole numbers with 0 <= successes <= trials and trials >= 1: pass counts, "
            "not rates."
        )
    return k, n
