"""Locks that allow one fleet at a time in a folder, and never go stale.

A run locks the file `lock`, and its workers share a lock on `workers.lock`, so that a new run can
wait for the last worker of a killed one.  The kernel releases a lock when its process ends.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mico_competition.support.files import open_private
from mico_competition.support.locks import lock_file, try_lock

WAIT_SECONDS = 60.0
_LOCK, _SHARED = "lock", "workers.lock"


@contextmanager
def only_fleet(folder: Path) -> Iterator[None]:
    """Hold the lock of fleet folder `folder`.

    Raises:
        ValueError: if another run holds it, or the workers of a killed run do not end.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    with _open_lock(folder), open_private(folder / _SHARED) as workers:
        deadline = time.monotonic() + WAIT_SECONDS
        while not try_lock(workers):
            if time.monotonic() > deadline:
                raise ValueError(f"Workers of an earlier fleet are still at work in {folder}.")
            time.sleep(0.05)
        fcntl.flock(workers, fcntl.LOCK_UN)
        try:
            yield
        except BaseException:
            _leave_nothing(folder, new)
            raise


def _open_lock(folder: Path) -> IO[str]:
    """Take the lock of a fleet's folder; ValueError if another run holds it."""
    lock = lock_file(folder / _LOCK)
    if lock is None:
        raise ValueError(f"Another fleet is at work in {folder}: wait for it, or stop it.")
    return lock


def _leave_nothing(folder: Path, new: list[Path]) -> None:
    """Remove the locks and folders of a run that was refused before it wrote anything else."""
    with suppress(OSError):  # another run is about to begin here
        if {path.name for path in folder.iterdir()} <= {_LOCK, _SHARED}:
            (folder / _SHARED).unlink()
            (folder / _LOCK).unlink()
            for path in new:
                path.rmdir()


def is_running(folder: Path) -> bool:
    """Whether a fleet is at work in `folder` at this moment."""
    if not (folder / _LOCK).is_file():
        return False
    with open_private(folder / _LOCK) as lock:
        return not try_lock(lock)


def hold_shared(folder: Path) -> IO[str]:
    """Take a worker's share of the lock, until the file is closed or the process ends."""
    file = open_private(folder / _SHARED)
    fcntl.flock(file, fcntl.LOCK_SH)
    return file
