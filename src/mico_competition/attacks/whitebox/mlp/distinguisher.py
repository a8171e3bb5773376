"""The DP distinguisher: evidence of a known training set about the challenge points.

If the membership of a record is known, its update can be predicted and subtracted: in the joint
decode, and in black-box signals, which similar members raise. Ours: docs/METHODS.md, section 6.6
(formula 48).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.whitebox.mlp.joint import Kernel
from mico_competition.signals import HIDDEN, MEMBER


def knows_members(problem: Problem) -> bool:
    """Whether any membership of the targets is known."""
    return bool((problem.known_membership[problem.targets] != HIDDEN).any())


def known_of(problem: Problem, rows: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
    """int8[r, N], the membership of these models that an attack may use.

    Args:
        problem: one with some known membership of its targets.
        rows: int64[r].
        hidden: int64[r, k], columns to hide for shadows as pseudo-targets; None for targets, whose
            known membership is used completely.
    """
    known_membership: np.ndarray = problem.known_membership[rows].copy()
    if hidden is not None:
        np.put_along_axis(known_membership, hidden, HIDDEN, axis=1)
    return known_membership


def shares(believed: np.ndarray, known_membership: np.ndarray) -> np.ndarray:
    """float[...], probabilities of membership: 0 or 1 where it is known, else `believed`."""
    return np.where(
        known_membership == HIDDEN, believed, (known_membership == MEMBER).astype(believed.dtype)
    )


def interference(kernel: Kernel, excess: Tensor) -> Tensor:
    """float32[N], J_i = sum over j != i of excess_j K_ij.

    Args:
        kernel: with unit rows as directions, hidden (a) or residual (g) ones.
        excess: float32[N], membership (or its probability) minus the mean.
    """
    return kernel(excess) - kernel.diagonal * excess
