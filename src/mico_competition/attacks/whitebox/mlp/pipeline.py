"""Our attacks on models of the MLP family: trace, joint decode, and the stack of all signals.

`best` stacks black-box signals, traces of both layers and decodes. A second pass decodes again with
beliefs from the first as priors, if a training set is known, or if the first pass separates members
from others after plain training and a second one is worth its cost. See docs/METHODS.md, section
6.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np
from torch import Tensor

from mico_competition.attacks import to_unit
from mico_competition.attacks.problem import Problem
from mico_competition.attacks.stacking.calibrator import Calibrator
from mico_competition.attacks.stacking.logistic import fit_logistic
from mico_competition.attacks.stacking.stacking import Stack
from mico_competition.attacks.whitebox.mlp.balance import (
    balance_kernel,
    imbalance,
    white_inputs,
)
from mico_competition.attacks.whitebox.mlp.distinguisher import knows_members
from mico_competition.attacks.whitebox.mlp.evidence import calibrator, make_stack
from mico_competition.attacks.whitebox.mlp.features import Decoded, FirstPass, first_pass
from mico_competition.attacks.whitebox.mlp.joint import Kernel
from mico_competition.attacks.whitebox.mlp.prior import (
    Coefficients,
    Deviations,
    coefficients,
    deviations,
    membership,
)
from mico_competition.attacks.whitebox.mlp.refine import Chosen, second_pass
from mico_competition.support.cpus import threads_for
from mico_competition.support.progress import tracked

SIGNALS = ("logit", "loss", "confidence", "gradient_norm")
RESOLVED = 0.95  # most of the variance of membership that the first pass leaves for a second one


PROBED = 5  # shadows that show whether training has balanced the gradients
BALANCED = 0.6  # the ratio of `balance.imbalance` below which it has


@dataclass(frozen=True)
class Evidence:
    """Log likelihood ratios at all records: `shadow` float32[s, N], `target` float32[t, N]."""

    shadow: np.ndarray
    target: np.ndarray

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.shadow + other.shadow, self.target + other.target)

    def asked(self, problem: Problem) -> np.ndarray:
        """float64[t, k], at the points to score."""
        return np.take_along_axis(self.target, problem.columns, axis=1).astype(np.float64)


def evidence(problem: Problem, signal: np.ndarray) -> Evidence:
    """Empirical-Bayes ratios of a signal float[models, N]; each shadow without itself."""
    rows = problem.shadows, problem.targets
    log_ratio = calibrator(problem).log_ratio
    return Evidence(*(log_ratio(signal, part) for part in rows))


def _in_few_threads(attack: Callable[[Problem], np.ndarray]) -> Callable[[Problem], np.ndarray]:
    """The attack, on one thread where its arrays are small."""

    @wraps(attack)
    def limited(problem: Problem) -> np.ndarray:
        with threads_for(*problem.known_membership.shape):
            return attack(problem)

    return limited


@_in_few_threads
def trace(problem: Problem) -> np.ndarray:
    """float64[t, k]: the empirical-Bayes ratio of the first layer's trace alone.

    Raises:
        ValueError: as `features.first_pass`; with fewer than 3 shadows.
    """
    signal = first_pass(problem).trace
    return _asked_only(problem, signal)


@_in_few_threads
def joint_decoder(problem: Problem) -> np.ndarray:
    """float64[t, k]: the ratio of the joint decode plus that of the logit.

    The ridge is the one with the best scores on the shadows, each left out of its own reference.

    Raises:
        ValueError: as `trace`.
    """
    first = first_pass(problem)
    logit = evidence(problem, problem.source.get("logit"))
    *_, joint = best_ridge(problem, first.joint, logit)
    return (logit + joint).asked(problem)


@_in_few_threads
def best(problem: Problem) -> np.ndarray:
    """float64[t, k], log odds: all signals stacked.

    Known membership of the targets is used.

    Raises:
        ValueError: as `trace`.
    """
    first = first_pass(problem)
    stack = make_stack(problem)
    signals = [problem.source.get(name) for name in SIGNALS]
    signals += [first.trace, first.whiter_trace, first.second, first.whiter_second]
    added = [add_both(problem, stack, signal) for signal in tracked(signals, "Likelihood ratios")]
    logit, whiter_second = added[0], added[-1]
    tried, noisy = decodes(problem, first, logit, stack)
    parts = [logit, whiter_second, *(own.evidence for own in tried)]
    believed = beliefs(problem, stack, parts)
    worth = (first.many or first.cheap) and not noisy
    resolved = worth and doubt_left(problem, believed.shadow) < RESOLVED
    if knows_members(problem) or resolved:
        chosen = max(tried, key=lambda decode: decode.area).chosen
        second_pass(problem, first, chosen, (believed.shadow, believed.target), stack)
    return stack.scores()


def add_both(problem: Problem, stack: Stack, signal: np.ndarray) -> Evidence:
    """Add both forms of a signal to the stack; return its ratios at all records."""
    own = evidence(problem, signal)
    stack.add(own.shadow, own.target)
    stack.add_signal(signal, (Calibrator.standard_score,))
    return own


@dataclass(frozen=True)
class Tried:
    """A decode of the first pass.

    Attributes:
        solutions: for each ridge.
        area: AUC among the shadows of the best ridge's evidence with that of the logit.
        evidence: of the best ridge.
        chosen: the decode, to be repeated.
    """

    solutions: Decoded
    area: float
    evidence: Evidence
    chosen: Chosen


def decodes(
    problem: Problem, first: FirstPass, logit: Evidence, stack: Stack
) -> tuple[list[Tried], bool]:
    """The decodes that suit the models, and whether noise dominates the weights.

    After training that has converged, these are the decodes of Adam's steps and of final gradients,
    and the joint decode if it is cheap. Otherwise the joint decode and that of both layers are
    tried before them. If that of both layers tells more, the cause is noise, and the decodes for
    plain training are left out. Both forms of all solutions are added to the stack.
    """

    def tried(
        solutions: Decoded,
        system: Callable[[int], tuple[Kernel, Tensor]],
        prior: Callable[[Problem, np.ndarray, np.ndarray], Coefficients | Deviations],
    ) -> Tried:
        worth, ridge, own = best_ridge(problem, solutions, logit, stack)
        return Tried(solutions, worth, own, Chosen(system, ridge, solutions[ridge], prior))

    found, settled = [], converged(problem, first)
    if first.cheap or not settled:
        found.append(tried(first.joint, first.system, coefficients))
    if not settled:
        found.append(tried(first.both, first.both_system, coefficients))
        if found[1].area > found[0].area:
            return found, True
    found.append(tried(first.adaptive, first.adaptive_system, coefficients))
    found.append(tried(first.balance, first.balance_system, deviations))
    return found, False


def converged(problem: Problem, first: FirstPass) -> bool:
    """Whether training has balanced the members' gradients, so that they nearly cancel.

    The ratio of `balance.imbalance` was 0.09 to 0.49 in three fleets without privacy, and 0.70 to
    0.76 in three under DP-SGD; plain training that stops early is in between and above.
    """
    rows = problem.shadows[:PROBED]
    layers = [first.layers[int(row)] for row in rows]
    white = white_inputs(layers, first.inputs, first.labels)
    ratios = [
        imbalance(balance_kernel(white, own, first.inputs, first.labels), first.tensor(members))
        for own, members in zip(layers, problem.is_member)
    ]
    return float(np.median(ratios)) < BALANCED


def best_ridge(
    problem: Problem, decodes: Decoded, beside: Evidence, stack: Stack | None = None
) -> tuple[float, float, Evidence]:
    """The ridge whose decode, together with other evidence, separates the shadows' members best.

    Returns:
        The AUC among the shadows, the ridge, and the evidence of its decode.
    """
    tried = []
    for ridge, signal in tracked(decodes.items(), "Choice of the ridge", "ridge"):
        own = evidence(problem, signal) if stack is None else add_both(problem, stack, signal)
        tried.append((area(own.shadow + beside.shadow, problem.is_member), ridge, own))
    return max(tried, key=lambda one: one[0])


def beliefs(problem: Problem, stack: Stack, parts: list[Evidence]) -> Evidence:
    """Probabilities of membership at all records, from a small stack of `parts`."""
    columns = stack.columns
    rows = [np.take_along_axis(part.shadow, columns, axis=1).ravel() for part in parts]
    fitted = fit_logistic(np.stack(rows, axis=1), stack.labels)
    share = float(problem.is_member.mean())
    together = (
        np.stack([part.shadow for part in parts], axis=-1),
        np.stack([part.target for part in parts], axis=-1),
    )
    return Evidence(
        *(membership(fitted.scores(part), share).astype(np.float32) for part in together)
    )


def doubt_left(problem: Problem, believed: np.ndarray) -> float:
    """Mean of q (1 - q) over shadows and records, relative to that without evidence."""
    share = float(problem.is_member.mean())
    return float((believed * (1 - believed)).mean() / (share * (1 - share)))


def area(scores: np.ndarray, is_member: np.ndarray) -> float:
    """AUC of all scores together."""
    members = is_member.ravel()
    ranks = 1 + (members.size - 1) * to_unit([scores.ravel()])[0]
    count = int(members.sum())
    pairs = count * (members.size - count)
    return float((ranks[members].sum() - count * (count + 1) / 2) / max(pairs, 1))


def _asked_only(problem: Problem, signal: np.ndarray) -> np.ndarray:
    everywhere = calibrator(problem).log_ratio(signal, problem.targets)
    return np.take_along_axis(everywhere, problem.columns, axis=1).astype(np.float64)
