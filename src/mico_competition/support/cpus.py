"""How many CPUs this process may use, and how workers share them, so that none waits for another.

What counts is the affinity (taskset, Slurm), the quota of the control group (containers) and
OMP_NUM_THREADS, never how many CPUs the machine has.  Standard library only.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

_PROC, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_limited = False  # whether `limit_threads` set OMP_NUM_THREADS, so that nobody asked for it


def available_cpus() -> int:
    """CPUs that this process may keep busy, at least 1: by its affinity and its quota."""
    quota = _quota()
    return _affinity() if quota is None else max(1, min(_affinity(), int(quota)))


def asked_threads() -> int | None:
    """The threads that OMP_NUM_THREADS asks for; None if it is not set, or not to a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 and not _limited else None


def share_cpus(
    workers: int | None = None, threads: int | None = None, *, devices: int = 0
) -> tuple[int, int]:
    """Workers, and threads of each, that together need no more CPUs than there are.

    Args:
        workers: that were asked for, >= 1; by default one a device, else as many as there is room
            for.
        threads: of each, that were asked for, >= 1; by default OMP_NUM_THREADS, else the CPUs are
            shared out.
        devices: GPUs.  A worker that waits for its GPU may share a CPU with others.

    More than there is room for is lowered, with a warning.
    """
    cpus = available_cpus()
    each = threads or asked_threads()
    if devices:
        count = workers or devices
    else:
        count = min(workers or max(1, cpus // (each or 1)), cpus)
    most = max(1, cpus // count)
    found = count, min(each or most, most)
    if (workers or 0) > found[0] or (threads or 0) > found[1]:
        asked = f"{_count(workers, 'worker')} and {_count(threads, 'thread')} each"
        _log.warning(
            "%s are more than the %d CPUs that this process may use: taking %s of %s.",
            asked[:1].upper() + asked[1:],
            cpus,
            _count(found[0], "worker"),
            _count(found[1], "thread"),
        )
    return found


def _count(number: int | None, what: str) -> str:
    if number is None:
        return f"as many {what}s as there is room for"
    return f"{number} {what}{'' if number == 1 else 's'}"


def limit_threads() -> None:
    """Have numeric libraries that are not loaded yet heed the quota; they heed the affinity."""
    global _limited
    if "OMP_NUM_THREADS" not in os.environ and available_cpus() < _affinity():
        for name in _THREADS:
            os.environ.setdefault(name, str(available_cpus()))
        _limited = True


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota() -> float | None:
    """CPUs' worth of time that the control groups of this process grant; None for no limit."""
    try:
        lines = _PROC.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):  # a group above may grant less
            found += _granted(folder)
            if folder == root:
                break
        found += _granted(root)  # in a container the path may be the host's
    return min(found, default=None)


def _granted(folder: Path) -> list[float]:
    """The quota of one control group, of version 2 or 1, as a list of at most one number."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return [int(quota) / int(period)] if quota not in ("max", "-1") else []
    except (OSError, ValueError, ZeroDivisionError):
        return []
