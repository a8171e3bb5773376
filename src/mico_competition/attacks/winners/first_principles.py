"""The Purchase-100 runner-up of 2023: LiRA on 100 shadows, with four options.

Source: the published solution of S. Gupta and P. Gulati (DevPranjal/mico-first-principles), after
Carlini et al. 2022.  They submitted `global_variance`, offline, on raw confidence.

Their mistakes, not repeated here:

- The published script looks up a point's index in the dataset among `member.indices` and
  `training.indices`, which are indices within parts of the split, so the OUT models of a point are
  random. The attack `first-principles-sent` keeps this; on one fleet it has TPRs of 0.930, 0.212
  and 0.161 at 10 % FPR where true OUT sets have 0.918, 0.217 and 0.158.
- Purchase-100's training length was left at CIFAR-10's 50,000; it is 150,000.
- The ratio of two densities is 0/0 far from both means (here its logarithm is used).
- A point without OUT shadow models gave NaN.

The standard deviation over all points includes the differences between points: that is their
choice (and Carlini et al.'s code's), and kept.

The mathematics is in docs/METHODS.md, section 4.5.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mico_competition.attacks.scores.lira import lira
from mico_competition.attacks.scores.transforms import logit_scaled, sigmoid
from mico_competition.competition.table import get_scenario, get_task
from mico_competition.signals.fleet import OWN

if TYPE_CHECKING:
    from mico_competition.attacks.problem import Problem

_erfc = np.frompyfunc(math.erfc, 1, 1)


def normal_cdf(z: np.ndarray) -> np.ndarray:
    """The probability that a standard normal number is below z."""
    return 0.5 * np.asarray(_erfc(-np.asarray(z, dtype=np.float64) / math.sqrt(2.0)), dtype=float)


def first_principles(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    *,
    global_variance: bool = False,
    logit_scaling: bool = False,
    stable_logit_scaling: bool = False,
    online_attack: bool = False,
    target_index: int | np.ndarray | None = None,
) -> np.ndarray:
    """The runner-up's score.

    Args:
        target: float[points] or float[targets, points]: `transforms.stable_logit`. For their global
            variance pass one model's challenge points at a time, as they did.
        shadow: float[models, points], the same.
        is_member: bool[models, points].
        global_variance: one standard deviation over all points, else each point's own.
        logit_scaling: on log(p / (1 - p + 1e-29)), which saturates where p rounds to 1.
        stable_logit_scaling: on the logit itself; takes precedence over `logit_scaling`, as in
            theirs.
        online_attack: compare with IN shadows, too. (They had it for raw confidence only; here it
            works with either scaling.)
        target_index: rows of shadow that the targets are, to be left out (see `common`).

    Returns:
        Offline, their prediction: the normal probability of the signal under OUT, in [0, 1].
        Online, the logarithm of their ratio of densities, any real number.

    Raises:
        ValueError: as `lira`.

    >>> shadow = np.array([[2.0, 0.0], [2.2, 0.1], [0.0, 1.9], [0.1, 2.1]])
    >>> is_member = shadow > 1
    >>> scores = first_principles(np.array([2.1, 0.0]), shadow, is_member)
    >>> bool(scores[0] > scores[1])
    True
    """
    target, shadow = np.asarray(target, dtype=np.float64), np.asarray(shadow, dtype=np.float64)
    if not stable_logit_scaling:
        target, shadow = sigmoid(target), sigmoid(shadow)
        if logit_scaling:
            target, shadow = logit_scaled(target), logit_scaled(shadow)
    score = lira(
        target,
        shadow,
        is_member,
        online=online_attack,
        variance="raw_global" if global_variance else "point",
        target_index=target_index,
    )
    return score if online_attack else normal_cdf(score)


def first_principles_attack(problem: Problem, **options: bool) -> np.ndarray:
    """The runner-up's program with its options, one model at a time as in the original."""
    return problem.gather("logit").score_each(first_principles, **options)


def as_sent(problem: Problem) -> np.ndarray:
    """The runner-up's program with the options and the mistakes of the submission.

    It looks up a point's index in the dataset among indices within parts of the split, which is
    unrelated to membership: a shadow model is OUT at a point at random. Here this is drawn again,
    with their probability (for Purchase-100 with n = 50,000 instead of 150,000). Unlike theirs,
    targets are left out of their own reference.
    """
    scenario = problem.source.fleet.scenario
    if scenario == OWN:
        raise ValueError(
            "The mistakes of this submission depend on a scenario's numbers of records: on your "
            "own models, take first-principles."
        )
    task = get_task(get_scenario(scenario).task)
    share = task.len_training / task.len_dataset / (3 if task.name == "purchase100" else 1)
    members = problem.known_membership.copy()
    for row in problem.shadows:
        members[row] = np.random.default_rng([0, row]).random(members.shape[1]) < share
    return first_principles_attack(replace(problem, known_membership=members), global_variance=True)
