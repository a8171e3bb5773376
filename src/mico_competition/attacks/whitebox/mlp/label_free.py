"""Checks of problems for decoders, and a cache of their label-free results.

Several attacks, and the folds of one evaluation, decode the same models: this takes minutes and
does not depend on which models are shadows, so the last result is kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from mico_competition.attacks.cost import Shared
from mico_competition.attacks.masked_source import without_labels
from mico_competition.attacks.problem import Problem
from mico_competition.signals.source import Source

Made = TypeVar("Made")


class Last(Generic[Made]):
    """The last result for a source and some of its models; dropped with the source.

    It is also dropped before the next one is computed, as two may not fit into memory.
    """

    def __init__(self) -> None:
        self._key: tuple[weakref.ref[Source], bytes] | None = None
        self._made: list[Shared[Made]] = []

    def _forget(self, gone: weakref.ref[Source] | None = None) -> None:
        """Drop the result; with `gone`, only if it is of that source."""
        if gone is None or (self._key is not None and self._key[0] is gone):
            self._key = None
            self._made.clear()

    def get(self, problem: Problem, make: Callable[[Source, np.ndarray], Made]) -> Made:
        """`make(source, rows)` of the problem's models, or its last result.

        Args:
            problem: its shadows and targets are the rows.
            make: must not use labels; it receives a source without any membership.
        """
        source = without_labels(problem.source)
        rows = np.union1d(problem.shadows, problem.targets)
        if self._key is None or self._key[0]() is not source or self._key[1] != rows.tobytes():
            self._forget()
            made: Shared[Made] = Shared()
            made.get(lambda: make(problem.source, rows))
            self._made.append(made)
            self._key = weakref.ref(source, self._forget), rows.tobytes()
        return self._made[0].get(lambda: make(problem.source, rows))


def check_problem(problem: Problem, least: int = 2) -> None:
    """ValueError for a problem that cannot be decoded, before any computation.

    Args:
        problem: needs the signals of all records, and targets that are not their own shadows.
        least: the number of shadow models that the attack needs.
    """
    count, total = len(problem.source.fleet.records), len(problem.source.data)
    if count != total:
        raise ValueError(
            f"White-box decoding needs the signals of all {total} records, got {count}: open the "
            "signals with records='all'."
        )
    if problem.targets_in_shadows:
        raise ValueError(
            "White-box decoding cannot leave targets out of their own shadows one by one: "
            "evaluate it in folds of models (own=False)."
        )
    if len(problem.shadows) < least:
        raise ValueError(
            f"White-box decoding needs at least {least} shadow models, got "
            f"{len(problem.shadows)}: give it more train models."
        )
