"""Locks that allow one fleet at a time in a folder, and never go stale.

A run locks the file `lock`, and its workers share a lock on `workers.lock`, so that a new run can
wait for the last worker of a killed one.  The kernel releases a lock when its process ends.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from mico_competition.support.files import open_private
from mico_competition.support.locks import lock_file, try_lock

WAIT_SECONDS = 60.0
_LOCK, _SHARED = "lock", "workers.lock"
_ANOTHER = "Another fleet is at work in {}: wait for it, or stop it."
_WORKERS = "Workers of an earlier fleet are still at work in {}."


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
                raise ValueError(_WORKERS.format(folder))
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
        raise ValueError(_ANOTHER.format(folder))
    return lock


def _leave_nothing(folder: Path, new: list[Path]) -> None:
    """Remove the locks and folders of a run that was refused before it wrote anything else."""
    with suppress(OSError):  # another run is about to begin here
        if {path.name for path in folder.iterdir()} <= {_LOCK, _SHARED}:
            (folder / _SHARED).unlink()
            (folder / _LOCK).unlink()
            for path in new:
                path.rmdir()


@contextmanager
def no_fleet(folder: Path) -> Iterator[None]:
    """Keep fleets from working in `folder` during the block, and write nothing there.

    Raises:
        ValueError: if a fleet, or a worker of a killed one, is at work.
    """
    with ExitStack() as held:
        for name, sentence in ((_LOCK, _ANOTHER), (_SHARED, _WORKERS)):
            if (folder / name).is_file():
                # The lock of a file that can only be read is shared: file servers want that.
                file = held.enter_context(open(folder / name, encoding="utf-8"))
                _hold(file, sentence.format(folder), alone=name == _SHARED)
        yield


def _hold(file: IO[str], sentence: str, *, alone: bool) -> None:
    """Lock an open file, `alone` if its file system allows that to a reader."""
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(sentence) from None
    except OSError:
        if not alone:
            raise


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
