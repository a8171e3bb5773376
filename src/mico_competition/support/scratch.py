"""Private temporary folders that are removed even if the process that made them is killed.

A live process holds a lock on its folder, which the operating system releases when the process
dies.  A later process removes the folders that it can lock.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_log = logging.getLogger(__name__)

_NUMBERS = 8  # how many folder names are searched for leftovers
_LONGEST_NAME = 200  # bytes of `name` in a folder's name; file systems allow 255 in total


@contextmanager
def folder_lock(folder: str | os.PathLike[str], whom: str) -> Iterator[None]:
    """Lock an existing folder, and wait if another process (called `whom`) holds the lock.

    The operating system releases the lock when the process dies.  On a file system without locks
    for folders, nothing is locked.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("Waiting for %s, which is at work in %s.", whom, folder)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch(folder: str | os.PathLike[str] | None, name: str) -> Iterator[Path]:
    """Yield a new folder of mode 0700 that is removed at the end of the block.

    If the process is killed, the next call with the same `name` and `folder` (by default that of
    temporary files) removes what it left.
    """
    folder = Path(folder or tempfile.gettempdir())
    prefix = os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "ignore")
    with ExitStack() as stack:
        mine: Path | None = None
        number = 0
        while mine is None or number < _NUMBERS:
            path = folder / f"{prefix}-{number}"
            number += 1
            if mine is not None and not path.exists():
                continue
            descriptor = _locked(path)
            if descriptor is None:
                continue
            stack.callback(os.close, descriptor)
            if mine is None:
                mine = path
                stack.callback(shutil.rmtree, path, ignore_errors=True)
                _empty(path)
            else:
                shutil.rmtree(path, ignore_errors=True)
        yield mine


def _locked(path: Path) -> int | None:
    """Lock folder `path`, and create it if needed; its descriptor, or None if it is taken."""
    try:
        path.mkdir(mode=0o700)
        fresh = True
        with suppress(OSError):  # a file system without modes
            path.chmod(0o700)  # removes rights that the parent folder passes on
    except FileExistsError:
        fresh = False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path.parent)) from None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # it is a file or a link, or its owner has just removed it
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not fresh or error.errno == errno.EWOULDBLOCK:
                raise
            # Without locks, leftovers of others cannot be told from the folders of live processes.
        status = os.fstat(descriptor)
        private = stat.S_IMODE(status.st_mode) & 0o077 == 0
        ours = fresh or (status.st_uid == os.geteuid() and private)
        if ours and os.path.samestat(status, os.lstat(path)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
