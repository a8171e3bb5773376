"""Lock files that never go stale: the kernel releases a lock when its process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from mico_competition.support.files import PRIVATE, make_folder, open_private


def try_lock(file: IO[str]) -> bool:
    """Try to lock `file` until it is closed or the process ends; return whether that worked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_file(path: Path) -> IO[str] | None:
    """Create the private file `path`, and its folder, and lock it; None if it is locked already.

    The holder may remove the file and its folder before it closes the file.

    Raises:
        OSError: if the file cannot be written, or the file system has no locks.
    """
    while True:
        try:
            make_folder(path.parent, PRIVATE)
            lock = open_private(path)
        except FileNotFoundError:  # the holder has just removed the folder
            continue
        try:
            if not try_lock(lock):
                lock.close()
                return None
        except OSError:
            lock.close()
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()  # the holder has just removed this file
