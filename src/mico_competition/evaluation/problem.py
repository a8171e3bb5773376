"""What an attack is asked: targets, their points, and the shadows whose membership is told.

An attack is a function `Problem -> float64[targets, points per target]`, larger = more likely a
member, comparable over all targets.  Whatever may be used is in the problem; membership that is
not told is HIDDEN in it, so that an attack cannot look at what it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mico_competition.signals import HIDDEN, MEMBER, Fleet


class Source(Protocol):
    """Where signals come from: `signals.Signals`, or arrays in tests."""

    fleet: Fleet
    data: Any

    def get(self, name: str) -> np.ndarray:
        """float[models, points], the signal `name` of every model at every record."""
        ...

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        ...

    def load(self, row: int) -> Any:
        """One model, in eval mode, on its device: for white-box attacks."""
        ...


@dataclass(frozen=True)
class Problem:
    """Rows and columns are those of `source.fleet`.

    Attributes:
        source: signals, logits and models.
        shadows: int64[s], rows of which everything is told, ascending.
        targets: int64[t], rows that are attacked, ascending.
        columns: int64[t, k], the points asked for of each target.
        told: int8[models, points]: MEMBER, NONMEMBER or HIDDEN.  A target that is not a shadow
            has HIDDEN at its columns, and elsewhere what is told of it (the DP distinguisher).
        own: whether the targets are among the shadows.  An attack then leaves each target out of
            its own reference; one that cannot says so in its `Attack` and is never asked to.
    """

    source: Source
    shadows: np.ndarray
    targets: np.ndarray
    columns: np.ndarray
    told: np.ndarray
    own: bool = False

    def __post_init__(self) -> None:
        for name, rows in (("shadows", self.shadows), ("targets", self.targets)):
            if len(rows) == 0 or (np.diff(rows) <= 0).any():
                raise ValueError(f"Expected {name} to be one row or more, ascending.")
        if (self.told[self.shadows] == HIDDEN).any():
            raise ValueError("Expected everything to be told of the shadow models.")
        if self.columns.shape[:1] != self.targets.shape or (self.columns < 0).any():
            raise ValueError("Expected columns of one row for each target, none below 0.")
        among = np.isin(self.targets, self.shadows)
        if (among != self.own).any():
            raise ValueError(
                "Expected no target among its own shadows unless all are (own=True): leave it out."
            )
        if not self.own and (self.told[self.targets[:, None], self.columns] != HIDDEN).any():
            raise ValueError("Expected membership of the points that are asked for to be hidden.")

    @property
    def is_member(self) -> np.ndarray:
        """bool[s, points] of the shadows."""
        return self.told[self.shadows] == MEMBER

    def gather(self, name: str) -> Gathered:
        """Signal `name` with the targets' points laid end to end, as `attacks` take them."""
        return self.gather_from(self.source.get(name))

    def gather_from(self, signal: np.ndarray) -> Gathered:
        """The same of float[models, points] that the attack has made itself."""
        columns = self.columns.ravel()
        rows = np.repeat(self.targets, self.columns.shape[1])
        own = np.searchsorted(self.shadows, rows) if self.own else None
        return Gathered(
            signal[rows, columns],
            signal[np.ix_(self.shadows, columns)],
            self.told[np.ix_(self.shadows, columns)] == MEMBER,
            own,
            self.columns.shape,
        )


@dataclass(frozen=True)
class Gathered:
    """Arrays for a function of `attacks`; `shape` [t, k] is that of the scores.

    `target` float[t k], `shadow` float[s, t k], `is_member` bool[s, t k], `target_index` int[t k]
    or None.
    """

    target: np.ndarray
    shadow: np.ndarray
    is_member: np.ndarray
    target_index: np.ndarray | None
    shape: tuple[int, ...]

    def score(self, attack: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
        """`attack(target, shadow, is_member, target_index=...)` in the shape of the scores."""
        scores = attack(
            self.target, self.shadow, self.is_member, target_index=self.target_index, **options
        )
        return scores.reshape(self.shape)


@dataclass(frozen=True)
class Attack:
    """An attack and what is said of it.

    Attributes:
        name: as on the command line.
        title: a line for people.
        source: the paper or code it is of.
        run: Problem -> float64[targets, points per target].
        leaves_one_out: whether `run` takes problems with `own=True`.  Others are evaluated in
            folds: their shadows are the models of the other folds.
        white_box: whether it looks into the models.
    """

    name: str
    title: str
    source: str
    run: Callable[[Problem], np.ndarray]
    leaves_one_out: bool = True
    white_box: bool = False
