"""The second pass over all models, which decodes again with beliefs about each record as priors.

See docs/METHODS.md, sections 6.5 and 6.6.
"""

from __future__ import annotations

import numpy as np
import torch

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
from mico_competition.attacks.whitebox.mlp.joint import Solves, decode_with_prior, information_of
from mico_competition.attacks.whitebox.mlp.prior import JITTER, coefficients
from mico_competition.support.progress import tracked

STEPS = (1.0, 3.0, 10.0)  # multiples of the first pass's ridge, as the spread is now smaller
PROBED = 3  # models for the estimate of the decode's information, which hardly differs


def second_pass(
    problem: Problem,
    first: FirstPass,
    ridge: float,
    believed: tuple[np.ndarray, np.ndarray],
    stack: Stack,
) -> None:
    """Add the second pass's features to the stack.

    Args:
        problem: its targets' known records are used, and the same records are hidden in shadows at
            their training points.
        first: the first pass.
        ridge: the chosen ridge of its joint decode.
        believed: float32[s, N] of shadows and float32[t, N] of targets: probabilities of
            membership after the first pass, each model left out of its own reference.
        stack: its `columns` are the points to score in shadows.
    """
    knows = knows_members(problem)
    share = float(problem.is_member.mean())
    c, ridges = first.joint[ridge], [ridge * step for step in STEPS]
    decoded = [np.full(c.shape, np.nan, np.float32) for _ in ridges]
    pushed = [np.full(c.shape, np.nan, np.float32) for _ in range(2)]
    information = _information(problem, first, spread_left(share, knows), ridges)
    groups = (problem.shadows, stack.columns), (problem.targets, None)
    solves = Solves()
    for (rows, hidden), own_beliefs in zip(groups, believed):
        prior = coefficients(problem, c, rows)
        likely = own_beliefs
        if knows:
            likely = shares(own_beliefs, known_of(problem, rows, hidden))
        for place, row in enumerate(tracked(rows.tolist(), "Second decode", "model")):
            kernel = first.kernel(row)
            mean, deviation_of_c = prior.of(place, likely[place])
            spread = first.tensor(deviation_of_c / prior.usual_spread(place, share))
            solved = decode_with_prior(
                kernel,
                first.tensor(first.trace[row]),
                first.tensor(mean),
                spread,
                ridges,
                information,
                solves,
            )
            for array, own in zip(decoded, solved):
                array[row] = own.cpu().numpy()
            excess = first.tensor(likely[place] - share)
            for array, directions in zip(pushed, (kernel.directions, first.residual)):
                array[row] = interference(first.white, directions, excess).cpu().numpy()
    solves.warn("The second decode")
    for signal in tracked(decoded, "Likelihood ratios", "signal"):
        stack.add_signal(signal)
    for signal in pushed:
        stack.add_signal(signal, (Calibrator.standard_score,))


def spread_left(share: float, knows: bool) -> float:
    """A record's spread if members are known, over that if none are."""
    return JITTER / (share * (1 - share) + JITTER**2) ** 0.5 if knows else 1.0


def _information(
    problem: Problem, first: FirstPass, left: float, ridges: list[float]
) -> list[float]:
    """`joint.information_of` with one spread for all records, so that it uses no label."""
    spread = torch.full_like(first.inputs[:, 0], left)
    some = problem.shadows[:PROBED]
    measured = [information_of(first.kernel(int(row)), spread, ridges) for row in some]
    return [float(x) for x in np.median(measured, axis=0)]
