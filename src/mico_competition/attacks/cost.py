"""The cost of an attack: its CPU seconds, those of its signals separately, and the data it used.

Work that several attacks share is done once and charged to each attack that uses it.  So the cost
of an attack does not depend on which other attacks ran before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Made = TypeVar("Made")

MODELS = "models"
"""In `Meter.read`: whole models, which an attack may query or take apart."""


@dataclass(frozen=True)
class Cost:
    """The cost of one run of an attack.

    Attributes:
        cpu_seconds: of all threads and child processes, without the seconds of its signals. Work
            that another attack has already done counts as if it were repeated.
        signal_cpu_seconds: to compute the signals and logits that it used, or to read them from the
            cache on disk.
        models: number of targets, and of shadows if the attack uses any.
        records: number of records whose signals it got.
    """

    cpu_seconds: float = 0.0
    signal_cpu_seconds: float = 0.0
    models: int = 0
    records: int = 0


NO_COST = Cost()


class Meter:
    """Counts the cost of a run; `cost` holds it when the run is over.

    `read` holds what the run read of the models so far: kinds of signals (`signals.SIGNALS`),
    "logits" and MODELS.
    """

    def __init__(self) -> None:
        self._signals: dict[Hashable, float] = {}
        self.read: set[str] = set()
        self._apart = 0.0  # seconds of signals that the clock of this run has counted
        self._again = 0.0  # seconds of shared work that it has not counted
        self._used: set[int] = set()
        self._rows: set[int] = set()
        self._records = 0
        self.cost = Cost()

    def looked_at(self, rows: np.ndarray, records: int) -> None:
        """Count these models and records as part of a problem of this run."""
        self._rows.update(rows.tolist())
        self._records = max(self._records, records)

    def finish(self, seconds: float) -> None:
        """Compute the cost from the seconds that the clock counted."""
        own = max(0.0, seconds - self._apart + self._again)
        signals = sum(self._signals.values())
        self.cost = Cost(own, signals, len(self._rows), self._records)


_open: list[Meter] = []


@contextmanager
def metered() -> Iterator[Meter]:
    """Meters the attacks that run in the block; the meter's `cost` is set at its end."""
    meter, start = Meter(), all_cpu_seconds()
    _open.append(meter)
    try:
        yield meter
    finally:
        _open.pop()
    meter.finish(all_cpu_seconds() - start)


def looked_at(rows: np.ndarray, records: int) -> None:
    """Count the models and records of a problem with the open meters."""
    for meter in _open:
        meter.looked_at(rows, records)


def loaded() -> None:
    """Tell the open meters that a model was loaded, or may be loaded by another process."""
    for meter in _open:
        meter.read.add(MODELS)


def signal(
    known: dict[Hashable, float], kind: str, make: Callable[[], Made], row: int | None = None
) -> Made:
    """A signal; the CPU seconds of its first computation are stored.

    Args:
        known: (kind, row) -> seconds, for one source.
        kind: what is computed.
        make: computes the signal, or returns it if it is already computed.
        row: of the model, if it is the signal of one; by default of all.
    """
    key = kind, row
    start = cpu_seconds()
    made = make()
    seconds = cpu_seconds() - start
    known.setdefault(key, seconds)
    for meter in _open:
        meter._apart += seconds
        meter._signals[id(known), key] = known[key]
        meter.read.add(kind)
    return made


class Shared(Generic[Made]):
    """A result that several runs share: computed at its first use, charged to each of them."""

    def __init__(self) -> None:
        self._made: list[Made] = []
        self._seconds = 0.0
        self._signals: dict[Hashable, float] = {}
        self._read: set[str] = set()

    def get(self, make: Callable[[], Made]) -> Made:
        """The result of `make`, computed at most once."""
        if not self._made:
            inner, start = Meter(), cpu_seconds()
            _open.append(inner)
            try:
                self._made.append(make())
            finally:
                _open.pop()
            self._seconds = cpu_seconds() - start - inner._apart
            self._signals, self._read = inner._signals, inner.read
            for meter in _open:
                meter._used.add(id(self))
        for meter in _open:
            meter._signals.update(self._signals)
            meter.read |= self._read
            if id(self) not in meter._used:
                meter._used.add(id(self))
                meter._again += self._seconds
        return self._made[0]


def cpu_seconds() -> float:
    """CPU seconds of this process, all its threads, and its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def all_cpu_seconds() -> float:
    """The same, including descendants that still run, if the system lists them."""
    return cpu_seconds() + _living_children(os.getpid())


def _living_children(pid: int) -> float:
    if not os.path.isdir("/proc/self"):
        return 0.0
    tick = os.sysconf("SC_CLK_TCK")
    found: dict[int, tuple[int, float]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            fields = _stat(name)
            if fields:  # 4th: the parent; 14th to 17th: its own times, and its children's
                found[int(name)] = int(fields[1]), sum(map(int, fields[11:15])) / tick
    total, parents = 0.0, {pid}
    while parents:
        children = {child for child, (parent, _) in found.items() if parent in parents}
        total += sum(found[child][1] for child in children)
        parents = children
    return total


def _stat(pid: str) -> list[Any]:
    """The fields of a process's state, from the third on; none if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
