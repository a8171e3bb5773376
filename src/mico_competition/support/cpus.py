"""Finds out how many CPUs this process may use, and divides them among worker processes.

The affinity (taskset, Slurm), the quota of the control group (containers) and OMP_NUM_THREADS
decide, and not the number of CPUs of the machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_PROC, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

SMALL = 1 << 17  # models x records, below which `threads_for` takes one thread

_limited = False  # whether `limit_threads` set OMP_NUM_THREADS, rather than the user


def available_cpus() -> int:
    """The number of CPUs that this process may use, by its affinity and quota; at least 1."""
    quota = _quota()
    return _affinity() if quota is None else max(1, min(_affinity(), int(quota)))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32; elsewhere they are slower."""
    import torch

    if device.type != "cpu":
        return device.type == "cuda"
    names = "_is_avx512_bf16_supported", "_is_amx_tile_supported"  # torch has no public ones
    return any(getattr(torch.cpu, name, bool)() for name in names)


def asked_threads() -> int | None:
    """The number of threads that the user set by OMP_NUM_THREADS, or None."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 and not _limited else None


def share_cpus(
    workers: int | None = None, threads: int | None = None, *, devices: int = 0
) -> tuple[int, int]:
    """Choose a number of workers, and of threads for each, that together fit the available CPUs.

    Larger requests are reduced, with a warning.

    Args:
        workers: the requested number, >= 1; by default one for each GPU, or else as many as fit.
        threads: the requested threads of each worker, >= 1; by default OMP_NUM_THREADS, or else
            an equal share of the CPUs.
        devices: the number of GPUs; workers that wait for their GPU may share a CPU.

    Returns:
        (workers, threads of each).
    """
    cpus = available_cpus()
    each = threads or asked_threads()
    if devices:
        count = workers or devices
    else:
        count = min(workers or max(1, cpus // (each or 1)), cpus)
    most = max(1, cpus // count)
    chosen = count, min(each or most, most)
    if (workers or 0) > chosen[0] or (threads or 0) > chosen[1]:
        requested = f"{_count(workers, 'worker')} and {_count(threads, 'thread')} each"
        _log.warning(
            "%s are more than the %d CPUs that this process may use: taking %s of %s.",
            requested[:1].upper() + requested[1:],
            cpus,
            _count(chosen[0], "worker"),
            _count(chosen[1], "thread"),
        )
    return chosen


def _count(number: int | None, what: str) -> str:
    if number is None:
        return f"as many {what}s as there is room for"
    return f"{number} {what}{'' if number == 1 else 's'}"


def limit_threads() -> None:
    """Make numeric libraries that are imported later respect the quota as well as the affinity."""
    global _limited
    if "OMP_NUM_THREADS" not in os.environ and available_cpus() < _affinity():
        for name in _THREADS:
            os.environ.setdefault(name, str(available_cpus()))
        _limited = True


@contextmanager
def threads_for(models: int, records: int) -> Iterator[None]:
    """Run small arrays on one thread in this block, unless OMP_NUM_THREADS is set.

    Threads of torch and BLAS wait for each other in a loop. On arrays of fewer than SMALL models x
    records they save little, and on a busy machine they make an attack ten times slower.
    """
    if asked_threads() is not None or models * records >= SMALL:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota() -> float | None:
    """The CPU time that the control groups of this process grant, in CPUs; None for no limit."""
    quotas = [quota for group in control_groups("cpu") for quota in _granted(group)]
    return min(quotas, default=None)


def control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that bound this process, for `cpu` or `memory`."""
    try:
        lines = _PROC.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):  # a group above may grant less
            yield folder
            if folder == root:
                break
        yield root  # in a container the path may be the host's


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
