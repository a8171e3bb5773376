"""What an attack is given: read-only copies, with no label but those that it may know.

Every run of an attack gets its own copies.  Whatever it does to them, no other attack, no other
fold and no measurement sees it; and however it walks through what it was given, it meets no label
that its problem hides.  A function in this process can still go round all that on purpose: it can
read `solution.csv` from the disk or look through the interpreter's objects.
`evaluation.isolated` runs it where it cannot.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.attacks.cost import signal
from mico_competition.attacks.problem import Problem, Source
from mico_competition.signals import HIDDEN, Fleet
from mico_competition.signals.signals import SIGNALS


def frozen(array: Any) -> np.ndarray:
    """A copy of an array that nothing in numpy can write to.

    Its memory is that of a `bytes` object, so neither the array nor its base can be made writable.

    >>> frozen([1, 2]).flags.writeable
    False
    """
    array = np.asarray(array)
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


class Told:
    """A Source of copies, whose fleet tells `told` of membership and no more.

    Args:
        source: where signals come from; another `Told` gives its own source's.
        told: int8[models, points], MEMBER, NONMEMBER or HIDDEN.
        shared: whether what named attacks work out of this source without labels may be kept for
            the next one; else nothing that this source gives is known to any other.
    """

    def __init__(self, source: Source, told: np.ndarray, *, shared: bool = True) -> None:
        blank = without_labels(source)
        self._blank = blank if shared else copy.copy(blank)
        self.fleet: Fleet = replace(
            _public(source.fleet),
            records=frozen(source.fleet.records),
            labels=frozen(source.fleet.labels),
            challenge=frozen(source.fleet.challenge),
            told=frozen(told),
        )
        self._signals: dict[str, np.ndarray] = {}
        self._seconds = blank.__dict__.setdefault("_cpu_seconds", {})

    @cached_property
    def data(self) -> Any:
        """The dataset: a copy, as its tensors cannot be made read-only."""
        return copy.deepcopy(self._blank.data)

    def get(self, name: str) -> np.ndarray:
        """float[models, points], the signal `name` of every model at every record."""
        if name not in self._signals:
            # Signals of one kind come from one pass over the models, whichever is asked for first.
            kind = SIGNALS[name][0] if name in SIGNALS else name
            found = signal(self._seconds, kind, lambda: self._blank.get(name))
            self._signals[name] = frozen(found)
        return self._signals[name]

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        return frozen(signal(self._seconds, int(row), lambda: self._blank.logits(row)))

    def load(self, row: int) -> Any:
        """One model, in eval mode, on its device; a copy."""
        return copy.deepcopy(self._blank.load(row))


def sealed(problem: Problem, *, shared: bool = False) -> Problem:
    """The problem in copies of its own, for one run of an attack; see `Told` for `shared`."""
    source = Told(problem.source, problem.told, shared=shared)
    return replace(
        problem,
        source=source,
        shadows=frozen(problem.shadows),
        targets=frozen(problem.targets),
        columns=frozen(problem.columns),
        told=source.fleet.told,
    )


def without_labels(source: Source) -> Any:
    """The source itself, but for its membership: what a `Told` asks for signals and models.

    There is one for each source, so what was computed stays, and what is made of it can be kept.
    """
    if isinstance(source, Told):
        return source._blank
    kept = getattr(source, "_blank", None)
    if kept is None or kept.fleet.records is not source.fleet.records:
        kept = copy.copy(source)
        kept.fleet = replace(source.fleet, told=np.full_like(source.fleet.told, HIDDEN))
        source._blank = kept  # type: ignore[attr-defined]
    return kept


def _public(fleet: Fleet) -> Fleet:
    """The fleet with the names of its models' folders, but not where they lie."""
    folders = tuple(replace(folder, path=Path(folder.place)) for folder in fleet.folders)
    return replace(fleet, folders=folders)
