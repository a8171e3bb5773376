"""What every audit method returns: a lower bound on epsilon, with its method and level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """A lower bound on epsilon: with probability `level` or more, the true epsilon is not below it.

    Attributes:
        method: the name of the method: "threshold", "Gaussian DP", "one-run" or "one-run f-DP".
        epsilon: >= 0 and finite; 0 is no information.
        delta: the delta that epsilon goes with, in [0, 1).
        level: in (0, 1), the least probability, over new runs and new points, with which the bound
            holds.
        detail: numbers that explain the bound, by name; the function that computes it lists them.
    """

    method: str
    epsilon: float
    delta: float
    level: float
    detail: Mapping[str, float]


def largest_excluded(excluded: Callable[[float], bool], *, tolerance: float = 1e-6) -> float:
    """The largest parameter that the data exclude, to a relative `tolerance`.

    Args:
        excluded: whether the data exclude a parameter >= 0; it must be false for some large
            parameter.

    Returns:
        A parameter that is excluded, within `tolerance` (relative above 1, absolute below) of one
        that is not; 0 if 0 itself is not excluded.
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
