"""The problem that an attack solves, and the attack itself.

An attack is a function `Problem -> float64[targets, points per target]` of membership scores: a
larger score means more likely a member, and scores are comparable over all targets.  A problem
holds everything that the attack may use.  Membership that the attack may not use is HIDDEN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mico_competition.signals import HIDDEN, MEMBER
from mico_competition.signals.source import Source

CELLS = 1 << 21  # targets x points in one block: bounds each temporary array to 16 MB


@dataclass(frozen=True)
class Problem:
    """Target models, the points to score for each of them, and shadow models.

    Rows are models and columns are points, both in the order of `source.fleet`.

    Attributes:
        source: signals, logits and models.
        shadows: int64[s], rows of the shadow models, ascending.  Their membership is known at
            every point.  Empty for an attack that needs no shadow models.
        targets: int64[t], rows of the target models, ascending.
        columns: int64[t, k], the points to score for each target.
        known_membership: int8[models, points]: MEMBER, NONMEMBER or HIDDEN.  The row of a target
            that is not a shadow is HIDDEN at its columns; at other points it may be known (the DP
            distinguisher).
        targets_in_shadows: whether the targets are among the shadows.  An attack must then leave
            each target out of the shadows that it compares this target with.  Attacks that cannot
            leave the target out set `leaves_one_out = False` and are evaluated by cross-fitting.
    """

    source: Source
    shadows: np.ndarray
    targets: np.ndarray
    columns: np.ndarray
    known_membership: np.ndarray
    targets_in_shadows: bool = False

    def __post_init__(self) -> None:
        if len(self.targets) == 0 or (np.diff(self.targets) <= 0).any():
            raise ValueError("Expected targets to be one row or more, ascending.")
        if (np.diff(self.shadows) <= 0).any():
            raise ValueError("Expected shadows to be rows, ascending.")
        if (self.known_membership[self.shadows] == HIDDEN).any():
            raise ValueError("Expected the membership of the shadow models to be known.")
        if self.columns.shape[:1] != self.targets.shape or (self.columns < 0).any():
            raise ValueError("Expected columns of one row for each target, none below 0.")
        among = np.isin(self.targets, self.shadows)
        if (among != self.targets_in_shadows).any():
            raise ValueError(
                "Expected either no target among the shadows, or all of them with "
                "targets_in_shadows=True."
            )
        if (
            not self.targets_in_shadows
            and (self.known_membership[self.targets[:, None], self.columns] != HIDDEN).any()
        ):
            raise ValueError("Expected the membership of the points to score to be HIDDEN.")

    @property
    def told(self) -> np.ndarray:
        """`known_membership`; attack files of earlier versions use this name."""
        return self.known_membership

    @property
    def own(self) -> bool:
        """`targets_in_shadows`; attack files of earlier versions use this name."""
        return self.targets_in_shadows

    @property
    def is_member(self) -> np.ndarray:
        """bool[s, points], the membership mask of the shadow models."""
        is_member: np.ndarray = self.known_membership[self.shadows] == MEMBER
        return is_member

    def gather(self, name: str) -> Gathered:
        """The signal `name`, arranged for the functions of `attacks`."""
        return self.gather_from(self.source.get(name))

    def gather_from(self, signal: np.ndarray) -> Gathered:
        """The same for float[models, points] that the attack computed.

        Points that are not scored may be NaN.
        """
        if np.shape(signal) != self.known_membership.shape:
            raise ValueError(
                f"Expected a signal of shape {self.known_membership.shape}, one number for each "
                f"model and point, got {np.shape(signal)}."
            )
        return Gathered(self, signal)


@dataclass(frozen=True)
class Gathered:
    """A signal of the targets and of their shadows.

    `score` and `score_each` call a function of `mico_competition.attacks`. The arrays with the
    targets' points concatenated are: `target` float[t k], `shadow` float[s, t k], `is_member`
    bool[s, t k], `target_index` int[t k] or None; `shape` [t, k] is that of the scores.
    """

    problem: Problem
    signal: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """[t, k]."""
        shape: tuple[int, ...] = self.problem.columns.shape
        return shape

    @cached_property
    def target(self) -> np.ndarray:
        """float[t k], the targets' own signals."""
        rows = np.repeat(self.problem.targets, self.shape[1])
        target: np.ndarray = self.signal[rows, self.problem.columns.ravel()]
        return target

    @cached_property
    def shadow(self) -> np.ndarray:
        """float[s, t k]."""
        shadow: np.ndarray = self.signal[np.ix_(self.problem.shadows, self.problem.columns.ravel())]
        return shadow

    @cached_property
    def is_member(self) -> np.ndarray:
        """bool[s, t k]."""
        known_membership = self.problem.known_membership[
            np.ix_(self.problem.shadows, self.problem.columns.ravel())
        ]
        is_member: np.ndarray = known_membership == MEMBER
        return is_member

    @cached_property
    def target_index(self) -> np.ndarray | None:
        """int[t k], the row of each point's target in `shadow`; None unless they are shadows."""
        own = self._own(self.problem.targets)
        return None if own is None else np.repeat(own, self.shape[1])

    def score(self, attack: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
        """`attack(target, shadow, is_member, target_index=..., **options)`: float[t, k].

        The function gets all points of the fleet as float[targets, points]: what it learns from
        many points does not depend on the other targets and, with `targets_in_shadows`, is learnt
        in each row without the target.

        Raises:
            ValueError: on signals that are not finite; as the function.
        """
        columns = self._columns
        place = np.empty(self.signal.shape[1], np.int64)
        place[columns] = np.arange(len(columns))
        shadow, is_member = self._shadows(columns)
        scores = np.empty(self.shape)
        step = max(1, CELLS // len(columns))
        for start in range(0, len(scores), step):
            rows = slice(start, start + step)
            targets = self.problem.targets[rows]
            found = attack(
                self.signal[targets][:, columns],
                shadow,
                is_member,
                target_index=self._own(targets),
                **options,
            )
            scores[rows] = np.take_along_axis(found, place[self.problem.columns[rows]], axis=1)
        return scores

    def score_each(self, attack: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
        """The same with one target at a time, at its own points only."""
        self._check_asked()
        rows = []
        for target, columns in zip(self.problem.targets, self.problem.columns):
            own = self._own(np.array([target]))
            index = None if own is None else int(own[0])
            shadow, is_member = self._shadows(columns)
            mine = self.signal[target][columns]
            rows.append(attack(mine, shadow, is_member, target_index=index, **options))
        return np.stack(rows)

    def _own(self, targets: np.ndarray) -> np.ndarray | None:
        return (
            np.searchsorted(self.problem.shadows, targets)
            if self.problem.targets_in_shadows
            else None
        )

    def _shadows(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The signal and the membership of the shadows at `columns`."""
        rows, points = self.problem.shadows, self.signal.shape[1]
        known_membership = self.problem.known_membership
        if len(columns) == points:
            return self.signal[rows], known_membership[rows] == MEMBER
        if 4 * len(columns) > points:  # two copies of whole rows are faster than indexing
            return self.signal[rows][:, columns], known_membership[rows][:, columns] == MEMBER
        some = np.ix_(rows, columns)
        return self.signal[some], known_membership[some] == MEMBER

    @cached_property
    def _columns(self) -> np.ndarray:
        """Points with a signal of every model of the problem, among them the scored ones."""
        self._check_asked()
        known = np.ones(self.signal.shape[1], bool)
        for row in self._rows():
            known &= np.isfinite(self.signal[row])
        return np.flatnonzero(known)

    def _rows(self) -> np.ndarray:
        return np.union1d(self.problem.shadows, self.problem.targets)

    def _check_asked(self) -> None:
        """Raise ValueError, naming the model, if a signal is not finite at a scored point."""
        asked = np.unique(self.problem.columns)
        for row in self._rows():
            if not np.isfinite(self.signal[row][asked]).all():
                raise ValueError(
                    "Expected finite signals, got NaN or infinite ones of "
                    f"{self.problem.source.fleet.name(row)}: leave it out, or check its weights."
                )


@dataclass(frozen=True)
class Attack:
    """An attack with its name, its source, and what it needs.

    Attributes:
        name: as on the command line.
        title: one line for tables and pages.
        source: the paper or code that it comes from.
        run: Problem -> float64[targets, points per target].
        leaves_one_out: whether `run` takes problems with `targets_in_shadows=True`.  Attacks that
            do not are evaluated by cross-fitting: the shadows of a target are the models of the
            other folds.
        white_box: whether it uses the models' weights, and not their outputs alone.
        all_records: whether it needs signals of all records of the dataset, as decoders do; the
            other attacks need the union of the challenge points.
        least_shadows: the smallest number of shadow models that it works with; 0 if it uses none.
    """

    name: str
    title: str
    source: str
    run: Callable[[Problem], np.ndarray]
    leaves_one_out: bool = True
    white_box: bool = False
    all_records: bool = False
    least_shadows: int = 2
