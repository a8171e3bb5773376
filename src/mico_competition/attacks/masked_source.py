"""Read-only copies of a problem, with only the labels that the attack may use.

Every run of an attack receives its own copies. Changes to them affect no other attack, no other
fold and no measurement, and nothing that the attack can reach from them holds a hidden label. A
function in this process can still circumvent this deliberately: it can read `solution.csv` from the
disk, or search the interpreter's objects. `evaluation.isolated` prevents that with a separate
process.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.attacks.cost import loaded, signal
from mico_competition.attacks.problem import Problem
from mico_competition.signals import HIDDEN, Fleet
from mico_competition.signals.signals import SIGNALS
from mico_competition.signals.source import Source


def frozen(array: Any) -> np.ndarray:
    """A copy of an array that numpy cannot make writable.

    Its memory is that of a `bytes` object, so neither the array nor its base can be made writable.

    >>> frozen([1, 2]).flags.writeable
    False
    """
    array = np.asarray(array)
    return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)


class MaskedSource:
    """A Source of copies, whose fleet holds `known_membership` and no other membership.

    Args:
        source: the source of signals; for another `MaskedSource`, its own source.
        known_membership: int8[models, points], MEMBER, NONMEMBER or HIDDEN.
        shared: whether built-in attacks may keep label-free results from this source for the next
            built-in attack; otherwise this source shares nothing.
    """

    def __init__(
        self, source: Source, known_membership: np.ndarray, *, shared: bool = True
    ) -> None:
        blank = without_labels(source)
        self._blank = blank if shared else copy.copy(blank)
        self.fleet: Fleet = replace(
            _public(source.fleet),
            records=frozen(source.fleet.records),
            labels=frozen(source.fleet.labels),
            challenge=frozen(source.fleet.challenge),
            known_membership=frozen(known_membership),
        )
        self._signals: dict[str, np.ndarray] = {}
        self._seconds = blank.__dict__.setdefault("_cpu_seconds", {})

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: what another process reads of it is not noted."""
        loaded()
        return self.__dict__

    @cached_property
    def data(self) -> Any:
        """The dataset: a copy, as its tensors cannot be made read-only."""
        return copy.deepcopy(self._blank.data)

    @cached_property
    def base(self) -> Any:
        """The base model that the models were fine-tuned from, a copy; None if it is not known."""
        return copy.deepcopy(getattr(self._blank, "base", None))

    def get(self, name: str) -> np.ndarray:
        """float[models, points], the signal `name` of every model at every record."""
        if name not in self._signals:
            # One pass over the models computes all signals of a kind.
            kind = SIGNALS[name][0] if name in SIGNALS else name
            found = signal(self._seconds, kind, lambda: self._blank.get(name))
            self._signals[name] = frozen(found)
        return self._signals[name]

    def logits(self, row: int) -> np.ndarray:
        """float32[points, classes] of one model."""
        return frozen(signal(self._seconds, "logits", lambda: self._blank.logits(row), int(row)))

    def load(self, row: int) -> Any:
        """One model, in eval mode, on its device; a copy."""
        loaded()
        return copy.deepcopy(self._blank.load(row))


def sealed(problem: Problem, *, shared: bool = False) -> Problem:
    """A read-only copy of the problem for one run of an attack; see `MaskedSource` for `shared`."""
    source = MaskedSource(problem.source, problem.known_membership, shared=shared)
    return replace(
        problem,
        source=source,
        shadows=frozen(problem.shadows),
        targets=frozen(problem.targets),
        columns=frozen(problem.columns),
        known_membership=source.fleet.known_membership,
    )


def without_labels(source: Source) -> Any:
    """The source without any membership, from which a `MaskedSource` takes signals and models.

    Each source has exactly one, so that computed signals are shared.
    """
    if isinstance(source, MaskedSource):
        return source._blank
    kept = getattr(source, "_blank", None)
    if kept is None or kept.fleet.records is not source.fleet.records:
        kept = copy.copy(source)
        kept.fleet = replace(
            source.fleet, known_membership=np.full_like(source.fleet.known_membership, HIDDEN)
        )
        source._blank = kept  # type: ignore[attr-defined]
    return kept


def _public(fleet: Fleet) -> Fleet:
    """The fleet with the names of its models' folders, but without their locations."""
    folders = tuple(replace(folder, path=Path(folder.relative_path)) for folder in fleet.folders)
    return replace(fleet, folders=folders)
