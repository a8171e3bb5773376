"""Private folders for work in progress, which a killed process leaves to the next one to remove.

A live process holds a lock on its folder, which the operating system lets go of when the process
dies: what can be locked by another is what a killed process left.
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

_NUMBERS = 8  # that are searched for what killed processes left
_LONGEST_NAME = 200  # bytes of a name that a scratch folder's name repeats; file systems take 255


@contextmanager
def folder_lock(folder: str | os.PathLike[str], whom: str) -> Iterator[None]:
    """Hold the lock of an existing folder, waiting for `whom` if they hold it.

    The operating system lets go of it when the process dies.  On a file system that has no locks
    for folders nothing is held.
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
    """A folder of mode 0700 that is removed when the block ends, however it ends.

    If the process is killed, the next one that asks for the same `name` in the same `folder`
    (by default that of temporary files) removes what was left: a live process holds a lock on
    its folder, which the operating system lets go of when the process dies.
    """
    folder = Path(folder or tempfile.gettempdir())
    prefix = os.fsencode(name)[:_LONGEST_NAME].decode("utf-8", "ignore")
    with ExitStack() as stack:
        mine: Path | None = None
        number = 0
        while mine is None or number < _NUMBERS:
            place = folder / f"{prefix}-{number}"
            number += 1
            if mine is not None and not place.exists():
                continue
            descriptor = _held(place)
            if descriptor is None:
                continue
            stack.callback(os.close, descriptor)
            if mine is None:
                mine = place
                stack.callback(shutil.rmtree, place, ignore_errors=True)
                _empty(place)
            else:
                shutil.rmtree(place, ignore_errors=True)
        yield mine


def _held(place: Path) -> int | None:
    """A descriptor that holds the lock of folder `place`, made if need be; None if taken."""
    try:
        place.mkdir(mode=0o700)
        fresh = True
        with suppress(OSError):  # a file system without modes
            place.chmod(0o700)  # also where a folder hands rights down to what is in it
    except FileExistsError:
        fresh = False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place.parent)) from None
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # a file or a link of that name, or just removed by its owner
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not fresh or error.errno == errno.EWOULDBLOCK:
                raise
            # A file system without locks: what others left there cannot be told from live work.
        status = os.fstat(descriptor)
        private = stat.S_IMODE(status.st_mode) & 0o077 == 0
        ours = fresh or (status.st_uid == os.geteuid() and private)
        if ours and os.path.samestat(status, os.lstat(place)):
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
