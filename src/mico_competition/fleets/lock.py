"""One fleet at a time in a folder: locks that the operating system lets go of with their process.

A run holds `lock`; each of its workers holds `workers.lock` with the others, so that a new run
can wait for the last worker of a killed one.  Kernel locks: nothing stale is ever left behind.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mico_competition.files import PRIVATE, make_folder, open_private

WAIT_SECONDS = 60.0


@contextmanager
def only_fleet(folder: Path) -> Iterator[None]:
    """Hold the lock of fleet folder `folder`.

    Raises:
        ValueError: if another run holds it, or workers of a killed one do not end.
    """
    make_folder(folder, PRIVATE)
    with open_private(folder / "lock") as lock, open_private(folder / "workers.lock") as workers:
        if not try_lock(lock):
            raise ValueError(f"Another fleet is at work in {folder}: wait for it, or stop it.")
        deadline = time.monotonic() + WAIT_SECONDS
        while not try_lock(workers):
            if time.monotonic() > deadline:
                raise ValueError(f"Workers of an earlier fleet are still at work in {folder}.")
            time.sleep(0.05)
        fcntl.flock(workers, fcntl.LOCK_UN)
        yield


def is_running(folder: Path) -> bool:
    """Whether a fleet is at work in `folder` at this moment."""
    if not (folder / "lock").is_file():
        return False
    with open_private(folder / "lock") as lock:
        return not try_lock(lock)


def hold_shared(folder: Path) -> IO[str]:
    """The worker's share of the lock, held until the file is closed or the process ends."""
    file = open_private(folder / "workers.lock")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def try_lock(file: IO[str]) -> bool:
    """Whether this process now holds the lock of `file`, until it closes it or ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
