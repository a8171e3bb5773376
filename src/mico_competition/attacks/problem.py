"""What an attack is asked: targets, their points, and the shadows whose membership is told.

An attack is a function `Problem -> float64[targets, points per target]`, larger = more likely a
member, comparable over all targets.  Whatever may be used is in the problem; membership that is
not told is HIDDEN in it, so that an attack cannot look at what it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mico_competition.attacks.catalogue import ENTRIES, WHITE_BOX
from mico_competition.signals import HIDDEN, MEMBER, Fleet

CELLS = 1 << 21  # targets x points handled at once: bounds each temporary to 16 MB


class Source(Protocol):
    """Where signals come from: `signals.Signals`, or arrays in tests."""

    fleet: Fleet

    @property
    def data(self) -> Any:
        """The dataset, as models take it."""
        ...

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
        shadows: int64[s], rows of which everything is told, ascending; none for an attack that
            needs none.
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
        if len(self.targets) == 0 or (np.diff(self.targets) <= 0).any():
            raise ValueError("Expected targets to be one row or more, ascending.")
        if (np.diff(self.shadows) <= 0).any():
            raise ValueError("Expected shadows to be rows, ascending.")
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
        """Signal `name`, ready for the functions of `attacks`."""
        return self.gather_from(self.source.get(name))

    def gather_from(self, signal: np.ndarray) -> Gathered:
        """The same of float[models, points] that the attack has made itself.

        Points that it has not made may be NaN, as long as nobody asks for them.
        """
        if np.shape(signal) != self.told.shape:
            raise ValueError(
                f"Expected a signal of shape {self.told.shape}, one number for each model and "
                f"point, got {np.shape(signal)}."
            )
        return Gathered(self, signal)


@dataclass(frozen=True)
class Gathered:
    """A signal of the targets and of their shadows.

    `score` and `score_each` give an attack of `mico_competition.attacks` what it takes.  The
    arrays with the targets' points laid end to end are there too: `target` float[t k], `shadow`
    float[s, t k], `is_member` bool[s, t k], `target_index` int[t k] or None; `shape` [t, k] is
    that of the scores.
    """

    problem: Problem
    signal: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """[t, k]."""
        return self.problem.columns.shape

    @cached_property
    def target(self) -> np.ndarray:
        """float[t k], the targets' own signals."""
        rows = np.repeat(self.problem.targets, self.shape[1])
        return self.signal[rows, self.problem.columns.ravel()]

    @cached_property
    def shadow(self) -> np.ndarray:
        """float[s, t k]."""
        return self.signal[np.ix_(self.problem.shadows, self.problem.columns.ravel())]

    @cached_property
    def is_member(self) -> np.ndarray:
        """bool[s, t k]."""
        told = self.problem.told[np.ix_(self.problem.shadows, self.problem.columns.ravel())]
        return told == MEMBER

    @cached_property
    def target_index(self) -> np.ndarray | None:
        """int[t k], the row of `shadow` that each point's target is; None unless `own`."""
        own = self._own(self.problem.targets)
        return None if own is None else np.repeat(own, self.shape[1])

    def score(self, attack: Callable[..., np.ndarray], **options: Any) -> np.ndarray:
        """`attack(target, shadow, is_member, target_index=..., **options)`: float[t, k].

        The attack gets all points of the fleet, whichever are asked for, as float[targets,
        points]: what it learns from many points does not hang on who else is attacked, and with
        `own` is learnt without the target, in each row.

        Raises:
            ValueError: on signals that are not finite; what the attack raises.
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
        """The same with one target at a time, and the points asked for of it alone."""
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
        return np.searchsorted(self.problem.shadows, targets) if self.problem.own else None

    def _shadows(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The signal of the shadows at `columns`, and who trained there."""
        rows, points = self.problem.shadows, self.signal.shape[1]
        told = self.problem.told
        if len(columns) == points:
            return self.signal[rows], told[rows] == MEMBER
        if 4 * len(columns) > points:  # two copies of whole rows are faster than picking
            return self.signal[rows][:, columns], told[rows][:, columns] == MEMBER
        some = np.ix_(rows, columns)
        return self.signal[some], told[some] == MEMBER

    @cached_property
    def _columns(self) -> np.ndarray:
        """Points with a signal of every model in question; those asked for are among them."""
        self._check_asked()
        known = np.ones(self.signal.shape[1], bool)
        for row in self._rows():
            known &= np.isfinite(self.signal[row])
        return np.flatnonzero(known)

    def _rows(self) -> np.ndarray:
        return np.union1d(self.problem.shadows, self.problem.targets)

    def _check_asked(self) -> None:
        """Refuses a signal that is not finite where it is asked for, and names the model."""
        asked = np.unique(self.problem.columns)
        folders = self.problem.source.fleet.folders
        for row in self._rows():
            if not np.isfinite(self.signal[row][asked]).all():
                place = folders[row].place if row < len(folders) else f"model {row}"
                raise ValueError(
                    f"Expected finite signals, got NaN or infinite ones of {place}: leave it out, "
                    "or look at its weights."
                )


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
        all_records: whether it wants signals of all records of the dataset, as decoders do;
            others make do with the union of the challenge points.
        least_shadows: as few shadow models it works with; 0 if it looks at none.
    """

    name: str
    title: str
    source: str
    run: Callable[[Problem], np.ndarray]
    leaves_one_out: bool = True
    white_box: bool = False
    all_records: bool = False
    least_shadows: int = 2

    @classmethod
    def named(cls, name: str, run: Callable[[Problem], np.ndarray]) -> Attack:
        """The attack of a name in the catalogue, whose scores `run` computes."""
        entry = ENTRIES[name]
        return cls(
            name,
            entry.title,
            entry.source,
            run,
            leaves_one_out=entry.leaves_one_out,
            white_box=entry.access == WHITE_BOX,
            all_records=entry.all_records,
            least_shadows=entry.least_shadows,
        )
