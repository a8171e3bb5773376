"""Checks of the arguments that all bounds share: truth, scores, delta and level."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_scores(truth: Any, scores: Any, name: str = "truth") -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of an attack, checked and as arrays.

    Args:
        truth: n values, 1 or True for a member, 0 or False for a non-member.
        scores: n finite numbers, larger for likelier members.
        name: what the caller calls `truth`.

    Returns:
        `(truth, scores)`, bool[n] and float64[n].

    Raises:
        ValueError: if one is empty, not flat or not numeric, the lengths differ, a score is NaN or
            infinite, truth has values other than 0 and 1, or only one of the two.
    """
    member, value = _flat(name, truth), _flat("scores", scores)
    if member.size != value.size:
        raise ValueError(
            f"Expected one score for each challenge point, got {value.size} scores for "
            f"{member.size} values of {name}: pass both in the same order and of the same length."
        )
    value = value.astype(np.float64)
    unfit = int(np.count_nonzero(~np.isfinite(value)))
    if unfit:
        raise ValueError(
            f"Expected scores to be finite, got {unfit} NaN or infinite: replace them by numbers."
        )
    if not ((member == 0) | (member == 1)).all():
        raise ValueError(
            f"Expected {name} to be 0 (non-member) or 1 (member) everywhere: pass {name} first, "
            "scores second."
        )
    member = member.astype(bool)
    if member.all() or not member.any():
        raise ValueError(
            f"Expected {name} to hold both members (1) and non-members (0), got one kind only, "
            "which no attack can be measured on: add challenge points of the other kind."
        )
    return member, value


def check_delta(delta: float, *, zero: bool = True) -> None:
    """ValueError unless `delta` is in (0, 1), or is 0 where `zero` allows that."""
    if not (_inside(delta) or (zero and delta == 0)):
        allowed = "[0, 1)" if zero else "(0, 1)"
        raise ValueError(
            f"Expected delta={delta!r} in {allowed}: take the delta of the claim, such as 1e-5."
        )


def check_level(level: float) -> None:
    """ValueError unless `level` is in (0, 1)."""
    if not _inside(level):
        raise ValueError(f"Expected level={level!r} in (0, 1): 0.95 is usual.")


def _inside(value: Any) -> bool:
    """Whether this is a number in (0, 1)."""
    try:
        return bool(0 < value < 1)
    except (TypeError, ValueError, RuntimeError):
        return False


def _flat(name: str, given: Any) -> np.ndarray:
    """`given` as a flat array of numbers, not empty."""
    try:
        found = np.asarray(given)
    except ValueError:  # of a ragged list
        found = np.empty(1, dtype=object)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "biuf"):
        raise ValueError(
            f"Expected {name} to be a flat sequence of numbers: concatenate the models' values and "
            "convert them to float."
        )
    if not found.size:
        raise ValueError(f"Expected {name} to hold at least two numbers, got none.")
    return found
