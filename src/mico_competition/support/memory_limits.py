"""How much memory this process holds, and how much there is: of the machine or a control group."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mico_competition.support.cpus import control_groups

_MACHINE = Path("/proc/meminfo")
_SELF = Path("/proc/self")
_LIBRARIES_WORDS = re.compile("out of memory|can't allocate memory|not enough memory", re.I)
_UNLIMITED = 1 << 60  # bytes; version 1 of control groups writes a number like this for no limit


def all_memory() -> int | None:
    """Bytes of memory that this process may use, with nothing else running; None if not known."""
    limits = [limit for limit, _ in _granted()]
    with suppress(ValueError, OSError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def free_memory() -> int | None:
    """Bytes that this process could take now, swap included; None if that is not known."""
    free = [limit - used for limit, used in _granted()]
    machine = _numbers(_MACHINE, 1024)
    if "MemAvailable" in machine:
        free.append(machine["MemAvailable"] + machine.get("SwapFree", 0))
    return max(0, min(free)) if free else None


def _granted() -> Iterator[tuple[int, int]]:
    """The limit of each control group of this process, and what its processes hold."""
    for group in control_groups("memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max" is no number
                most, now = (int((group / name).read_text()) for name in (limit, used))
                cached = _numbers(group / "memory.stat").get("inactive_file", 0)
                if most < _UNLIMITED:
                    yield most, now - cached


def _numbers(path: Path, unit: int = 1) -> dict[str, int]:
    """The numbers of a file whose lines begin with a name and a number."""
    found = {}
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, number = [*line.replace(":", " ").split(), "", ""][:2]
            if number.isdecimal():
                found[name] = unit * int(number)
    return found


def own_memory() -> int:
    """Bytes that this process holds and shares with no other; all of them if that is not known."""
    parts = _numbers(_SELF / "smaps_rollup", 1024)
    names = ("Private_Clean", "Private_Dirty")
    return sum(parts[name] for name in names) if names[1] in parts else _highest()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, of the machine or of a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_LIBRARIES_WORDS.search(str(error)))
    )


def size_in_words(count: float) -> str:
    """A number of bytes in words.

    >>> size_in_words(1_234), size_in_words(250_000_000), size_in_words(3.5e11)
    ('1.23 kB', '250 MB', '350 GB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class PeakMemory:
    """The growth of this process's memory since the object was made.

    Where the system cannot forget an earlier peak, growth below that peak is not seen.
    """

    def __init__(self) -> None:
        with suppress(OSError):  # Linux forgets the peak so far
            (_SELF / "clear_refs").write_text("5")
        self.begun = self._status("VmRSS", _highest())

    def growth(self) -> int:
        """The bytes by which the peak exceeds what the process held at first, >= 0."""
        return max(0, self._status("VmHWM", _highest()) - self.begun)

    @staticmethod
    def _status(name: str, otherwise: int) -> int:
        return _numbers(_SELF / "status", 1024).get(name, otherwise)


def _highest() -> int:
    """The peak since the process began."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
