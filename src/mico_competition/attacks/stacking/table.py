"""Rows x points that learned attacks are trained and asked on: shadows as pseudo-targets.

Rows are the problem's shadows, then its targets; points are the columns that the targets are
asked for.  Every shadow serves as a pseudo-target on the same points.  What is calibrated for it
is calibrated by the other shadows: its own membership is never an input of its features, and all
hyper-parameters (bins, spreads, medians) are learnt anew without it.

The mathematics is in docs/METHODS.md, section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import (
    check_finite,
    check_inputs,
    check_varies,
    moments_of,
)
from mico_competition.attacks.scores.empirical_bayes import NU0, eb_likelihood_ratio
from mico_competition.attacks.scores.groups import CONSTANT
from mico_competition.attacks.stacking.logistic import CLIP_RATIO, CLIP_U

LEAST = 4  # shadow models
ROWS_AT_ONCE = 1 << 21  # numbers of leave-one-out moments held at once


@dataclass(frozen=True)
class Table:
    """Where features stand.

    Attributes:
        problem: with own=False.
        rows: int64[s + t], shadows, then targets, as rows of the fleet.
        points: int64[p], columns of the fleet, ascending.
        is_member: bool[s, p].
    """

    problem: Problem
    rows: np.ndarray
    points: np.ndarray
    is_member: np.ndarray

    @property
    def shadows(self) -> int:
        """How many of the rows are shadows."""
        return len(self.is_member)

    @property
    def places(self) -> np.ndarray:
        """int64[p], the points' places in the dataset."""
        return self.problem.source.fleet.records[self.points]

    @property
    def labels(self) -> np.ndarray:
        """int64[p], the points' classes."""
        return self.problem.source.fleet.labels[self.points]

    def values(self, name: str) -> np.ndarray:
        """float32[s + t, p], the source's signal `name`, checked."""
        signal = self.problem.source.get(name)[np.ix_(self.rows, self.points)]
        check_finite(f"signal {name!r}", signal)
        return signal.astype(np.float32)

    def logits(self, row: int) -> np.ndarray:
        """float32[p, classes] of one row of the fleet, checked."""
        logits = np.asarray(self.problem.source.logits(row)[self.points], np.float32)
        check_finite(f"logits of model {row}", logits)
        return logits

    def asked(self, values: np.ndarray) -> np.ndarray:
        """float64[t, k] of float[t, p]: the targets' own points, in the order of the problem."""
        places = np.searchsorted(self.points, self.problem.columns)
        return np.take_along_axis(values, places, axis=1).astype(np.float64)


def make_table(problem: Problem) -> Table:
    """The table of a problem.

    Raises:
        ValueError: if targets are among the shadows (evaluate in folds instead), with fewer than
            four shadows, or if no shadow is IN, or none OUT, at any point.
    """
    if problem.targets_in_shadows:
        raise ValueError(
            "Expected targets that are not among the shadows: a learned attack is trained on all "
            "of them; evaluate it in folds (leaves_one_out=False)."
        )
    points = np.unique(problem.columns)
    is_member = problem.is_member[:, points]
    if len(problem.shadows) < LEAST:
        raise ValueError(
            f"Expected at least {LEAST} shadow models, got {len(problem.shadows)}: each serves as "
            "a pseudo-target, calibrated by the others."
        )
    if is_member.all() or not is_member.any():
        raise ValueError(
            "Expected shadow models with members and non-members among the points asked for, got "
            "one kind only: nothing can be learned; take more shadows or points."
        )
    rows = np.concatenate([problem.shadows, problem.targets])
    return Table(problem, rows, points, is_member)


def calibrated(table: Table, values: np.ndarray, name: str = "feature") -> list[np.ndarray]:
    """Two features of a scalar signal: its standard score u, and its empirical-Bayes ratio.

    Args:
        table: rows and points.
        values: float[s + t, p]: any signal that knows nothing of the shadows' membership.
        name: for messages.

    Returns:
        [u, ratio], float32[s + t, p] each: u = (s - mean) / sd over the other shadows, within
        +-8, sd within IN and OUT and shrunk to the median; the ratio within +-12.

    Raises:
        ValueError: on NaN; on constant signals; as `eb_likelihood_ratio`.
    """
    check_finite(name, values)
    s = table.shadows
    u, ratio = (np.empty(values.shape, np.float32) for _ in range(2))
    step = max(1, ROWS_AT_ONCE // values.shape[1])
    parts = [(slice(a, min(a + step, s)), True) for a in range(0, s, step)]
    parts += [(slice(a, min(a + step, len(values))), False) for a in range(s, len(values), step)]
    for rows, own in parts:
        index = np.arange(rows.start, rows.stop) if own else None
        u[rows] = standard_score(values[rows], values[:s], table.is_member, index)
        ratio[rows] = eb_likelihood_ratio(
            values[rows], values[:s], table.is_member, target_index=index
        )
    return [u.clip(-CLIP_U, CLIP_U), ratio.clip(-CLIP_RATIO, CLIP_RATIO)]


def standard_score(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    target_index: np.ndarray | None = None,
) -> np.ndarray:
    """(s - mean of all) / sd within groups, the variance shrunk to the median of all points.

    Args:
        target: float[targets, points].
        shadow: float[models, points].
        is_member: bool[models, points].
        target_index: rows of shadow that the targets are, to be left out.

    Returns:
        float64[targets, points].

    Source: the 2023 winner's "standardised" score, with a variance that few shadows cannot upset.
    """
    m = moments_of(check_inputs(target, shadow, is_member, target_index))
    free = np.maximum(m.n - (m.n_in > 0) - (m.n_out > 0), 0)
    within = m.ss_in + m.ss_out
    own = within / np.maximum(free, 1)
    usual = np.median(own, axis=-1, keepdims=True)
    # Where most points are saturated the median is nothing; then the mean of all serves.
    mean = own.mean(axis=-1, keepdims=True)
    usual = np.where(usual > CONSTANT * mean, usual, mean)
    check_varies(bool((usual > 0).all()))
    return (target - m.mean_all) / np.sqrt((within + NU0 * usual) / (free + NU0))


def training_points(table: Table, rows: int, seed: int) -> np.ndarray:
    """int64[s, r]: for each pseudo-target `rows` points at random (all where fewer are there).

    Args:
        table: rows and points.
        rows: training rows in all, shared out evenly among the shadows; at least 2 each.
        seed: of the draw.
    """
    s, p = table.is_member.shape
    each = min(p, max(2, rows // s))
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(p, each, replace=False)) for _ in range(s)])


def training_rows(
    table: Table, features: Sequence[np.ndarray], chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a meta-learner is fitted on.

    Args:
        table: rows and points.
        features: k of float[s + t, p].
        chosen: int64[s, r], points of each shadow.

    Returns:
        float32[s r, k] and bool[s r], features and membership of the pseudo-targets.
    """
    s = table.shadows
    x = [np.take_along_axis(feature[:s], chosen, axis=1).ravel() for feature in features]
    return np.stack(x, axis=1), np.take_along_axis(table.is_member, chosen, axis=1).ravel()
