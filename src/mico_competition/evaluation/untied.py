"""Signals of which no two are equal, so that scores do not depend on how a tie is rounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mico_competition.attacks.masked_source import without_labels
from mico_competition.attacks.problem import Problem
from mico_competition.signals.source import Source

TIES = 1e-9  # the relative distance by which equal signals are moved apart


class Untied:
    """A Source whose scalar signals are shrunk by less than a billionth, so that none are equal.

    Equal records have equal means up to rounding, and the rounding depends on the labels.  An
    attack that sorts points by their means would then swap points at the border of a bin when
    labels change, which looks like a leak.  Signals only shrink, so probabilities stay below 1.
    """

    def __init__(self, source: Source) -> None:
        self._source = without_labels(source)
        self.fleet = self._source.fleet
        self._factor = 1 - TIES * np.random.default_rng(0).random(self.fleet.known_membership.shape)
        self._signals: dict[str, np.ndarray] = {}

    def get(self, name: str) -> np.ndarray:
        """The signal with its ties broken."""
        if name not in self._signals:
            self._signals[name] = self._source.get(name) * self._factor
        return self._signals[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy that is being made has no attribute yet
            raise AttributeError(name)
        return getattr(self._source, name)


def untied(problem: Problem) -> Problem:
    """The same problem with the ties of its signals broken; unchanged if they are already."""
    if isinstance(problem.source, Untied):
        return problem
    return replace(problem, source=Untied(problem.source))
