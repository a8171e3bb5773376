"""The rows and points of learned attacks, with shadows as pseudo-targets.

Rows are the problem's shadows, then its targets; points are the targets' columns. Every shadow
serves as a pseudo-target on the same points. The other shadows calibrate its signals: its own
membership is never an input of its features, and all hyper-parameters (bins, spreads, medians) are
learnt without it.

The mathematics is in docs/METHODS.md, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.stacking.calibrator import Calibrator, Form
from mico_competition.attacks.stacking.stacking import Stack

LEAST = 4  # least number of shadow models


@dataclass(frozen=True)
class Table:
    """The rows and points of features.

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
        """The number of shadows."""
        return len(self.is_member)

    @property
    def places(self) -> np.ndarray:
        """int64[p], the points' positions in the dataset."""
        places: np.ndarray = self.problem.source.fleet.records[self.points]
        return places

    @property
    def labels(self) -> np.ndarray:
        """int64[p], the points' classes."""
        labels: np.ndarray = self.problem.source.fleet.labels[self.points]
        return labels

    def values(self, name: str) -> np.ndarray:
        """float32[s + t, p], the source's signal `name`, checked."""
        signal = self.problem.source.get(name)[np.ix_(self.rows, self.points)]
        check_finite(f"signal {name!r}", signal)
        values: np.ndarray = signal.astype(np.float32)
        return values

    def logits(self, row: int) -> np.ndarray:
        """float32[p, classes] of one row of the fleet, checked."""
        logits = np.asarray(self.problem.source.logits(row)[self.points], np.float32)
        check_finite(f"logits of model {row}", logits)
        return logits

    @property
    def targets(self) -> np.ndarray:
        """int64[t], the targets among the rows."""
        return np.arange(self.shadows, len(self.rows))

    @property
    def asked(self) -> np.ndarray:
        """int64[t, k], the targets' own points, in the order of the problem."""
        return np.searchsorted(self.points, self.problem.columns)

    @property
    def calibrator(self) -> Calibrator:
        """The calibrator of signals float[s + t, p]."""
        return Calibrator(np.arange(self.shadows), self.is_member)

    def calibrated(self, form: Form, values: np.ndarray) -> np.ndarray:
        """float32[s + t, p]: one form of a signal, each shadow calibrated by the others."""
        groups = np.arange(self.shadows), self.targets
        return np.concatenate([form(self.calibrator, values, rows) for rows in groups])

    def stack(self, columns: np.ndarray, asked: np.ndarray) -> Stack:
        """An empty stack that is trained at int64[s, r], and scores targets at int64[t, k]."""
        return Stack(self.calibrator, self.targets, columns, asked)


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
            "Expected shadow models with members and non-members among the scored points, got one "
            "kind only: take more shadows or points."
        )
    rows = np.concatenate([problem.shadows, problem.targets])
    return Table(problem, rows, points, is_member)


def training_points(table: Table, rows: int, seed: int) -> np.ndarray:
    """int64[s, r]: for each pseudo-target `rows` points at random (all if there are fewer).

    Args:
        table: rows and points.
        rows: the number of all training rows, divided evenly among the shadows; at least 2 each.
        seed: for the draw.
    """
    s, p = table.is_member.shape
    each = min(p, max(2, rows // s))
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(p, each, replace=False)) for _ in range(s)])
