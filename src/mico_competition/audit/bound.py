"""What every method of the audit returns: a lower bound of epsilon, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """A lower bound of epsilon: with probability `level` or more, the true one is not below it.

    Attributes:
        method: how it was found: "threshold", "Gaussian DP", "one-run" or "one-run f-DP".
        epsilon: >= 0 and finite; 0 says nothing.
        delta: the delta that epsilon goes with, in [0, 1).
        level: how often, at least, such a bound holds, in (0, 1): over new runs and new points.
        detail: numbers that explain it, by name; which ones, the function says that made it.
    """

    method: str
    epsilon: float
    delta: float
    level: float
    detail: Mapping[str, float]


def largest_excluded(excluded: Callable[[float], bool], *, tolerance: float = 1e-6) -> float:
    """The largest parameter that the data exclude, from below, to a relative `tolerance`.

    Args:
        excluded: whether the data exclude a parameter >= 0; not for all large ones.

    Returns:
        A parameter that is excluded, within `tolerance` (relative above 1, absolute below) of one
        that is not; 0 if 0 itself is not excluded, that is, if nothing is known.
    """
    if not excluded(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while excluded(high):
        low, high = high, 2 * high
    while high - low > tolerance * max(1.0, low):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low
