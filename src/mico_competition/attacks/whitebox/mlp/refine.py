"""The second pass over all models: decode again with what is believed or known of each record.

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

STEPS = (1.0, 3.0, 10.0)  # from the first pass's ridge up: the spread is now that of members
PROBED = 3  # models on which the decode's information is measured: it hardly differs


def second_pass(
    problem: Problem,
    first: FirstPass,
    ridge: float,
    believed: tuple[np.ndarray, np.ndarray],
    stack: Stack,
) -> None:
    """Add the second pass's features to the stack.

    Args:
        problem: its targets' known records are used, and hidden in shadows where they learn.
        first: the first pass.
        ridge: that of its joint decode which served best.
        believed: float32[s, N] of shadows and float32[t, N] of targets: probabilities of
            membership after the first pass, each model left out of its own reference.
        stack: whose `columns` count as asked for in shadows.
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
    """A record's usual spread, where members are known, over that where none are."""
    return JITTER / (share * (1 - share) + JITTER**2) ** 0.5 if knows else 1.0


def _information(
    problem: Problem, first: FirstPass, left: float, ridges: list[float]
) -> list[float]:
    """`joint.information_of` with one spread for all records, so that no label comes in."""
    spread = torch.full_like(first.inputs[:, 0], left)
    some = problem.shadows[:PROBED]
    measured = [information_of(first.kernel(int(row)), spread, ridges) for row in some]
    return [float(x) for x in np.median(measured, axis=0)]
