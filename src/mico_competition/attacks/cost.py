"""What an attack costs: processor seconds, those of signals apart, and what it looked at.

Work that several attacks share is done once and charged to each that uses it, so what an attack is
said to cost does not depend on which others ran before.
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


@dataclass(frozen=True)
class Cost:
    """What one run of an attack took.

    Attributes:
        cpu_seconds: of all threads, and of processes that it started, without those of signals;
            work that another attack has done already counts as if it were done again.
        signal_cpu_seconds: to compute the signals and logits that it asked for, or to read those
            that were kept on disk.
        models: targets, with the shadows of an attack that looks at any.
        records: of which it was given signals.
    """

    cpu_seconds: float = 0.0
    signal_cpu_seconds: float = 0.0
    models: int = 0
    records: int = 0


NO_COST = Cost()


class Meter:
    """What is known so far of a run; `cost` when it is over."""

    def __init__(self) -> None:
        self._signals: dict[Hashable, float] = {}
        self._apart = 0.0  # seconds of signals that the clock of this run has counted
        self._again = 0.0  # seconds of shared work that it has not counted
        self._used: set[int] = set()
        self._rows: set[int] = set()
        self._records = 0
        self.cost = Cost()

    def looked_at(self, rows: np.ndarray, records: int) -> None:
        """These models, and so many records, are part of a problem of this run."""
        self._rows.update(rows.tolist())
        self._records = max(self._records, records)

    def finish(self, seconds: float) -> None:
        """Work out the cost, from the seconds that the clock counted."""
        own = max(0.0, seconds - self._apart + self._again)
        signals = sum(self._signals.values())
        self.cost = Cost(own, signals, len(self._rows), self._records)


_open: list[Meter] = []


@contextmanager
def metered() -> Iterator[Meter]:
    """In the block, what attacks cost is noted; the meter's `cost` is known after it."""
    meter, start = Meter(), all_cpu_seconds()
    _open.append(meter)
    try:
        yield meter
    finally:
        _open.pop()
    meter.finish(all_cpu_seconds() - start)


def looked_at(rows: np.ndarray, records: int) -> None:
    """Tell the meter, if there is one, what a problem holds."""
    for meter in _open:
        meter.looked_at(rows, records)


def signal(known: dict[Hashable, float], key: Hashable, make: Callable[[], Made]) -> Made:
    """A signal, whose seconds are noted in `known` when it is first made.

    Args:
        known: key -> seconds, of one source.
        key: which signal.
        make: computes it, or gives what was computed.
    """
    start = cpu_seconds()
    made = make()
    seconds = cpu_seconds() - start
    known.setdefault(key, seconds)
    for meter in _open:
        meter._apart += seconds
        meter._signals[id(known), key] = known[key]
    return made


class Shared(Generic[Made]):
    """Something that several runs use: made when it is first asked for, charged to each."""

    def __init__(self) -> None:
        self._made: list[Made] = []
        self._seconds = 0.0
        self._signals: dict[Hashable, float] = {}

    def get(self, make: Callable[[], Made]) -> Made:
        """What `make` gives, or gave the first time."""
        if not self._made:
            inner, start = Meter(), cpu_seconds()
            _open.append(inner)
            try:
                self._made.append(make())
            finally:
                _open.pop()
            self._seconds = cpu_seconds() - start - inner._apart
            self._signals = inner._signals
            for meter in _open:
                meter._used.add(id(self))
        for meter in _open:
            meter._signals.update(self._signals)
            if id(self) not in meter._used:
                meter._used.add(id(self))
                meter._again += self._seconds
        return self._made[0]


def cpu_seconds() -> float:
    """Of this process, all its threads, and its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def all_cpu_seconds() -> float:
    """The same, with the children that still run and theirs, where the system tells of them."""
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
