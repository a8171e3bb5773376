"""Writes files and folders atomically, with the right permissions.

Secret files are `PRIVATE` (0600, folders 0700) and public ones `PUBLIC` (0644, folders 0755),
whatever the umask is; all others follow the umask.  A symbolic link is followed, and only regular
files are replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Union

from mico_competition.support.scratch import scratch

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Access:
    """Permissions: the mode of files, and that of folders."""

    file: int
    folder: int


class OutputError(OSError, ValueError):
    """The output cannot be written to the given path; the message says why.

    It is a ValueError, since the user chose the path, and an OSError, so that code which can go
    on without the file treats it like other failures of the disk.
    """


PRIVATE = Access(0o600, 0o700)
PUBLIC = Access(0o644, 0o755)

_LINKS = 40  # as many as Linux follows


@contextmanager
def written_aside(
    path: PathLike, *, durable: bool = False, access: Access | None = None
) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block ends without an error.

    The block writes a file or a folder there.  After an error nothing is left behind, and `path`
    is unchanged.  If the process is killed, the next call for `path` removes what it left.

    Args:
        path: the file or folder to write.  Of a symbolic link, the target is replaced.  For
            /dev/stdout, /dev/fd/<number>, a terminal, /dev/null or a named pipe with a reader,
            the bytes are written into it.
        durable: sync the content to the disk before renaming, so that not even a power failure
            leaves an incomplete file under the name.
        access: the permissions of all that is written, and of new parent folders; by default
            those of the replaced file, or those of the umask.

    Raises:
        OutputError: before the block, if `path` exists and is neither a regular file, nor an
            empty folder, nor a stream; after it, if a file would replace a folder, or a folder a
            file.
    """
    destination = _destination(path)
    if isinstance(destination, Path):
        if destination.is_dir() and any(destination.iterdir()):
            raise OutputError(f"{path} is a folder that is not empty: name another one.")
        folder = make_folder(destination.parent, access)
    else:
        folder = Path(tempfile.gettempdir())
    name = os.path.basename(_absolute(path))
    with scratch(folder, f".{name}.aside") as aside, named_if_full(path, aside):
        temporary = aside / name
        yield temporary
        if isinstance(destination, _Stream):
            _pour(temporary, destination, path)
            return
        _check_kinds(temporary, destination, path)
        set_access(temporary, access or _access_of(destination))
        if durable:
            for written in (temporary, *temporary.rglob("*")):
                _flush(written)
        os.replace(temporary, destination)
        if durable:
            _flush(folder)


@contextmanager
def named_if_full(path: PathLike, aside: Path) -> Iterator[None]:
    """Let an error of a full disk name `path`: Python names no file, or the temporary one."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full and (not error.filename or Path(os.fsdecode(error.filename)).is_relative_to(aside)):
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: PathLike, text: str, *, access: Access | None = None) -> None:
    """Write a small text file; see `written_aside`."""
    write_bytes(path, text.encode(), access=access)


def write_bytes(path: PathLike, content: bytes, *, access: Access | None = None) -> None:
    """Write a file; see `written_aside`."""
    with written_aside(path, access=access) as temporary:
        temporary.write_bytes(content)


def check_output(path: PathLike) -> None:
    """Raise OutputError if a file cannot be written to `path`.

    It is meant for the start of a long run that writes its results at the end.
    """
    destination = _destination(path)
    if isinstance(destination, _Stream):
        return
    if destination.is_dir():
        raise OutputError(f"{path} is a folder: name the file to write.")
    there = next(folder for folder in destination.parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written, because of {there}: name another file.")


def is_stream(path: PathLike) -> bool:
    """Whether `path` is a stream, whose reader gets all bytes that are written."""
    return isinstance(_destination(path), _Stream)


def make_folder(folder: PathLike, access: Access | None = None) -> Path:
    """Create `folder` and its parents; existing folders keep their permissions."""
    folder = Path(os.path.abspath(folder))
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        with suppress(FileExistsError):
            part.mkdir(mode=access.folder if access else 0o777)
            if access:
                part.chmod(access.folder)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(folder))
    return folder


def open_private(path: PathLike) -> IO[str]:
    """Open a text file to append to, and make it private, even if it exists already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE.file)
    with suppress(PermissionError):  # the file belongs to somebody else
        os.fchmod(descriptor, PRIVATE.file)
    return os.fdopen(descriptor, "a", encoding="utf-8")


def set_access(tree: Path, access: Access | None) -> None:
    """Set the permissions of a file, or of a folder and its content; links are not followed."""
    if access is None:
        return
    for path in (tree, *tree.rglob("*")) if tree.is_dir() else (tree,):
        if not path.is_symlink():
            path.chmod(access.folder if path.is_dir() else access.file)


@dataclass(frozen=True)
class _Stream:
    """A destination that is written into, never replaced: a descriptor, or the path of a device."""

    target: int | str


def _destination(path: PathLike) -> Path | _Stream:
    """The target of `path` after symbolic links; OutputError if it cannot be written."""
    target = _absolute(path)
    descriptor = re.compile(rf"/(?:proc/(?:self|thread-self|{os.getpid()})|dev)/fd/([0-9]+)")
    for _ in range(_LINKS):
        target = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
        if match := descriptor.fullmatch(target):
            return _open_descriptor(int(match[1]), path)
        if not os.path.islink(target):
            return _replaceable(Path(target), path)
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    raise OutputError(f"{path} is a symbolic link that leads back to itself: remove it.")


def _absolute(path: PathLike) -> str:
    """The absolute form of `path`, with ".." resolved as the operating system does."""
    joined = os.path.join(os.getcwd(), Path(path))
    return os.path.realpath(joined) if os.path.basename(joined) == ".." else joined


def _open_descriptor(number: int, path: PathLike) -> _Stream:
    try:
        writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        writable = False
    if not writable:
        raise OutputError(f"{path} is not open for writing: name a file.")
    return _Stream(number)


def _replaceable(target: Path, path: PathLike) -> Path | _Stream:
    """`target` if it can be created or replaced, or a stream; OutputError if neither."""
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return target
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return _Stream(str(target))
    kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise OutputError(f"{path} is {kind}, which cannot be replaced: name a file.")


def _pour(temporary: Path, stream: _Stream, path: PathLike) -> None:
    """Write the bytes of `temporary` into a stream."""
    if temporary.is_dir():
        raise OutputError(f"{path} cannot hold a folder: name a folder.")
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(stream.target, int):
        descriptor = os.dup(stream.target)
    else:
        try:
            descriptor = os.open(stream.target, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise OutputError(f"Nobody reads the named pipe {path}: name a file.") from None
        os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as out, temporary.open("rb") as source:
        shutil.copyfileobj(source, out)


def _check_kinds(temporary: Path, destination: Path, path: PathLike) -> None:
    """Raise OutputError if a file would replace a folder, or a folder a file."""
    if temporary.is_dir():
        if destination.is_file():
            raise OutputError(f"{path} is a file: name a folder.")
    elif destination.is_dir():
        raise OutputError(f"{path} is a folder: name the file to write.")


def _access_of(destination: Path) -> Access | None:
    """The mode of a file that is about to be replaced."""
    if not destination.is_file():
        return None
    mode = stat.S_IMODE(destination.stat().st_mode)
    return Access(mode, mode)


def _flush(path: Path) -> None:
    """Sync a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
