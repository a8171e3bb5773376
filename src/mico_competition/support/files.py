"""Files and folders written whole or not at all, with the permissions that their content needs.

What others must not read is `PRIVATE` (0600, folders 0700), what everybody may read is `PUBLIC`
(0644, folders 0755), both whatever the umask; everything else follows the umask.  Symbolic links
are written through, and only regular files are ever replaced.
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
    """Who may read: the mode of files, and that of folders."""

    file: int
    folder: int


class OutputError(OSError, ValueError):
    """A place that nothing can be written to, in a sentence.

    A user's mistake, and for whoever can do without the file a fault of the disk like any other.
    """


PRIVATE = Access(0o600, 0o700)
PUBLIC = Access(0o644, 0o755)

_LINKS = 40  # as many as Linux follows


@contextmanager
def written_aside(
    path: PathLike, *, durable: bool = False, access: Access | None = None
) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block ends without error.

    Works for a file or for a folder; on an error nothing is left behind and what stood at `path`
    stays.  What a killed process left is removed by the next that writes there.

    Args:
        path: where to write.  A symbolic link stays, and what it leads to is replaced; of
            /dev/stdout, /dev/fd/<number>, a terminal, /dev/null or a named pipe that somebody
            reads, the bytes are written into it.
        durable: have the bytes on the disk before the name is, so that not even a power cut
            leaves a whole name on half a file.
        access: the modes of all that is written, and of parent folders that have to be made; by
            default those of the file that is replaced, or what the umask leaves.

    Raises:
        OutputError: before the block, if something stands at `path` that is neither a regular
            file, nor an empty folder, nor takes bytes; after it, if a file was written for a
            folder or a folder for a file.
    """
    destination = _destination(path)
    if isinstance(destination, Path):
        if destination.is_dir() and any(destination.iterdir()):
            raise OutputError(f"{path} is a folder that holds something: name another place.")
        folder = make_folder(destination.parent, access)
    else:
        folder = Path(tempfile.gettempdir())
    name = os.path.basename(_absolute(path))
    with scratch(folder, f".{name}.aside") as aside:
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


def write_text(path: PathLike, text: str, *, access: Access | None = None) -> None:
    """Write a small text file; see `written_aside`."""
    write_bytes(path, text.encode(), access=access)


def write_bytes(path: PathLike, content: bytes, *, access: Access | None = None) -> None:
    """Write a file; see `written_aside`."""
    with written_aside(path, access=access) as temporary:
        temporary.write_bytes(content)


def check_output(path: PathLike) -> None:
    """OutputError if a file cannot be written to `path`, because of what stands there or above.

    For the start of a long run, whose results are written at its end.
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
    """Whether what is written to `path` goes on to a reader, so that it is to be written once."""
    return isinstance(_destination(path), _Stream)


def make_folder(folder: PathLike, access: Access | None = None) -> Path:
    """Make `folder` with all its parents; those that are there already keep their modes."""
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


def open_private(path: PathLike, mode: str = "a") -> IO[str]:
    """Open a text file in `mode` "a" or "w" that its owner alone can read, also an existing one."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if mode == "a" else os.O_TRUNC)
    descriptor = os.open(path, flags, PRIVATE.file)
    with suppress(PermissionError):  # somebody else's file, whose modes are not ours to set
        os.fchmod(descriptor, PRIVATE.file)
    return os.fdopen(descriptor, mode, encoding="utf-8")


def set_access(tree: Path, access: Access | None) -> None:
    """Give a file, or a folder with all that is in it, these modes; no link is followed."""
    if access is None:
        return
    for path in (tree, *tree.rglob("*")) if tree.is_dir() else (tree,):
        if not path.is_symlink():
            path.chmod(access.folder if path.is_dir() else access.file)


@dataclass(frozen=True)
class _Stream:
    """What takes bytes and is never replaced: a descriptor of this process, or a device's path."""

    target: int | str


def _destination(path: PathLike) -> Path | _Stream:
    """Where `path` leads through symbolic links; OutputError if nothing can be written there."""
    place = _absolute(path)
    descriptor = re.compile(rf"/(?:proc/(?:self|thread-self|{os.getpid()})|dev)/fd/([0-9]+)")
    for _ in range(_LINKS):
        place = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
        if match := descriptor.fullmatch(place):
            return _open_descriptor(int(match[1]), path)
        if not os.path.islink(place):
            return _replaceable(Path(place), path)
        place = os.path.join(os.path.dirname(place), os.readlink(place))
    raise OutputError(f"{path} is a symbolic link that leads back to itself: remove it.")


def _absolute(path: PathLike) -> str:
    """`path` from the root on; parts ".." lead where the system finds them, past links."""
    place = os.path.join(os.getcwd(), Path(path))
    return os.path.realpath(place) if os.path.basename(place) == ".." else place


def _open_descriptor(number: int, path: PathLike) -> _Stream:
    try:
        writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        writable = False
    if not writable:
        raise OutputError(f"{path} is not open for writing: name a file.")
    return _Stream(number)


def _replaceable(place: Path, path: PathLike) -> Path | _Stream:
    """`place` if a file or folder can take it, a stream if it takes bytes; else OutputError."""
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return place
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return place
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return _Stream(str(place))
    kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
    raise OutputError(f"{path} is {kind}, which nothing is written over: name a file.")


def _pour(temporary: Path, stream: _Stream, path: PathLike) -> None:
    """Write the bytes of `temporary` into a stream."""
    if temporary.is_dir():
        raise OutputError(f"{path} is no place for a folder: name one.")
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
    """OutputError if a file would take a folder's place, or a folder a file's."""
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
    """Have the operating system write a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
