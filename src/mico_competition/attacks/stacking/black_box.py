"""The black-box stack: signals of outputs, calibrated by shadow models, weighted by a regression.

Each scalar signal gives two features, and a small logistic regression, fitted on the shadow models
as pseudo-targets, weights them. It uses only the outputs of a target. See docs/METHODS.md, sections
5.1 to 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.scores.common import check_finite
from mico_competition.attacks.stacking.calibrator import Calibrator
from mico_competition.attacks.stacking.logistic import INVERSE_PENALTY
from mico_competition.attacks.stacking.outputs import (
    SIGNALS,
    kriging,
    output_gradients,
    read_outputs,
)
from mico_competition.attacks.stacking.queries import check_movable, resampled_logits, slopes
from mico_competition.attacks.stacking.stacking import Stack
from mico_competition.attacks.stacking.table import Table, make_table, training_points

QUERIES = ("resample", "slope")
ROWS = 250_000  # training rows, which suffice for the regression


@dataclass(frozen=True)
class Features:
    """Named features of all rows: each float32[s + t, p]."""

    table: Table
    columns: dict[str, np.ndarray]

    def add(self, name: str, values: np.ndarray) -> None:
        """Both calibrated forms of a signal."""
        check_finite(name, values)
        for ending, form in (("u", Calibrator.standard_score), ("ratio", Calibrator.log_ratio)):
            self.columns[f"{name}.{ending}"] = self.table.calibrated(form, values)

    def stacked(self, *, rows: int = ROWS, seed: int = 0) -> Stack:
        """All features, with about `rows` training rows at random points of the shadows.

        It scores every target at all points of the table, so that rounding does not depend on which
        points are scored.
        """
        table = self.table
        everywhere = np.tile(np.arange(len(table.points)), (len(table.targets), 1))
        stacked = table.stack(training_points(table, rows, seed), everywhere)
        for column in self.columns.values():
            stacked.add(column[: table.shadows], column[table.shadows :])
        return stacked


def stack(
    problem: Problem,
    *,
    queries: Sequence[str] = ("resample",),
    inverse_penalty: float = INVERSE_PENALTY,
    rows: int = ROWS,
    seed: int = 0,
) -> np.ndarray:
    """The log odds of membership by the black-box stack.

    Args:
        problem: with own=False.
        queries: further queries of the models: "resample" (records with a tenth of the features
            from others; 4 for each point), "slope" (records moved along themselves; 4 for each
            point; not for text); () for none.
        inverse_penalty: of the regression (see `logistic`).
        rows: about the maximal number of training rows, at least 2 for each shadow.
        seed: for training rows and changed records.

    Returns:
        float64[t, k], log odds for as many members as non-members.

    Raises:
        ValueError: on an unknown query; on text with "slope"; as `make_table` and `calibrated`.
    """
    features = stack_features(problem, queries=queries, seed=seed)
    scores = features.stacked(rows=rows, seed=seed).scores(inverse_penalty)
    return np.take_along_axis(scores, features.table.asked, axis=1)


def stack_features(
    problem: Problem, *, queries: Sequence[str] = ("resample",), seed: int = 0
) -> Features:
    """All features, of shadows (each calibrated by the others) and of targets."""
    unknown = set(queries) - set(QUERIES)
    if unknown:
        raise ValueError(f"Expected queries among {', '.join(QUERIES)}, got {sorted(unknown)}.")
    table = make_table(problem)
    if "slope" in queries:
        check_movable(table)
    features = Features(table, {})
    for name in SIGNALS:
        features.add(name, table.values(name))
    outputs = read_outputs(table)
    features.add("margin", outputs.margin)
    pull = output_gradients(table, outputs.mean)
    u = features.columns["logit.u"]
    features.columns["kriging"] = kriging(table, u, pull, seed=seed)
    if "resample" in queries:
        features.add("resampled", resampled_logits(table, seed=seed))
    if "slope" in queries:
        for place, values in enumerate(slopes(table, pull, seed=seed)):
            features.add(f"slope{place}", values)
    return features
