"""The second pass over all models, which decodes again with beliefs about each record as priors.

See docs/METHODS.md, sections 6.5 and 6.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.stacking.calibrator import Calibrator
from mico_competition.attacks.stacking.stacking import Stack
from mico_competition.attacks.whitebox.mlp.distinguisher import (
    interference,
    known_of,
    knows_members,
    shares,
)
from mico_competition.attacks.whitebox.mlp.features import FirstPass
from mico_competition.attacks.whitebox.mlp.joint import (
    Kernel,
    Solves,
    decode_with_prior,
    information_of,
)
from mico_competition.attacks.whitebox.mlp.prior import JITTER, Coefficients, Deviations
from mico_competition.support.progress import tracked

STEPS = (1.0, 3.0, 10.0)  # multiples of the first pass's ridge, as the spread is now smaller
PROBED = 3  # models for the estimate of the decode's information, which hardly differs


@dataclass(frozen=True)
class Chosen:
    """A decode of the first pass that the second pass repeats.

    Attributes:
        system: K and T of the model in a row.
        ridge: of the best decode.
        c: float32[models, N], its result.
        prior: gives the prior of c, from this result and the rows of models.
    """

    system: Callable[[int], tuple[Kernel, Tensor]]
    ridge: float
    c: np.ndarray
    prior: Callable[[Problem, np.ndarray, np.ndarray], Coefficients | Deviations]


def second_pass(
    problem: Problem,
    first: FirstPass,
    chosen: Chosen,
    believed: tuple[np.ndarray, np.ndarray],
    stack: Stack,
) -> None:
    """Add the second pass's features to the stack.

    Args:
        problem: its targets' known records are used, and the same records are hidden in shadows at
            their training points.
        first: the first pass.
        chosen: the decode to repeat.
        believed: float32[s, N] of shadows and float32[t, N] of targets: probabilities of
            membership after the first pass, each model left out of its own reference.
        stack: its `columns` are the points to score in shadows.
    """
    likely = _with_known(problem, believed, stack.columns)
    for signal in decoded_again(problem, chosen, likely):
        stack.add_signal(signal)
    for signal in _pushed(problem, first, likely):
        stack.add_signal(signal, (Calibrator.standard_score,))


def decoded_again(
    problem: Problem, chosen: Chosen, likely: dict[int, np.ndarray]
) -> list[np.ndarray]:
    """float32[models, N] for each of `STEPS`: the decode with beliefs as priors.

    Args:
        likely: by row, float32[N], probabilities of membership.
    """
    share = float(problem.is_member.mean())
    ridges = [chosen.ridge * step for step in STEPS]
    information = _information(problem, chosen, spread_left(share, knows_members(problem)), ridges)
    decoded = [np.full(chosen.c.shape, np.nan, np.float32) for _ in ridges]
    solves = Solves()
    for rows in (problem.shadows, problem.targets):
        prior = chosen.prior(problem, chosen.c, rows)
        for place, row in enumerate(tracked(rows.tolist(), "Second decode", "model")):
            kernel, trace = chosen.system(row)
            mean, deviation_of_c = prior.of(place, likely[row])
            spread = deviation_of_c / prior.usual_spread(place, share)
            centre, width = (torch.as_tensor(array).to(trace) for array in (mean, spread))
            solved = decode_with_prior(kernel, trace, centre, width, ridges, information, solves)
            for array, own in zip(decoded, solved):
                array[row] = own.cpu().numpy()
    solves.warn("The second decode")
    return decoded


def _with_known(
    problem: Problem, believed: tuple[np.ndarray, np.ndarray], hidden: np.ndarray
) -> dict[int, np.ndarray]:
    """By row, float32[N]: beliefs, and 0 or 1 where membership is known."""
    likely: dict[int, np.ndarray] = {}
    groups = (problem.shadows, hidden), (problem.targets, None)
    for (rows, asked), own in zip(groups, believed):
        if knows_members(problem):
            own = shares(own, known_of(problem, rows, asked))
        likely.update(zip(rows.tolist(), own))
    return likely


def _pushed(problem: Problem, first: FirstPass, likely: dict[int, np.ndarray]) -> list[np.ndarray]:
    """float32[models, N], the effect of likely members on hidden directions and on residuals."""
    share = float(problem.is_member.mean())
    pushed = [np.full(first.trace.shape, np.nan, np.float32) for _ in range(2)]
    for row, own in likely.items():
        excess = first.tensor(own - share)
        kernels = first.kernel(row), Kernel(first.white, first.residual)
        for array, kernel in zip(pushed, kernels):
            array[row] = interference(kernel.fast(), excess).cpu().numpy()
    return pushed


def spread_left(share: float, knows: bool) -> float:
    """A record's spread if members are known, over that if none are."""
    return JITTER / (share * (1 - share) + JITTER**2) ** 0.5 if knows else 1.0


def _information(problem: Problem, chosen: Chosen, left: float, ridges: list[float]) -> list[float]:
    """`joint.information_of` with one spread for all records, so that it uses no label."""
    measured = []
    for row in problem.shadows[:PROBED]:
        kernel, trace = chosen.system(int(row))
        measured.append(information_of(kernel, torch.full_like(trace, left), ridges))
    return [float(x) for x in np.median(measured, axis=0)]
