"""Files out of a compressed archive that somebody else made: so many, of such a size, or none.

A few kilobytes of gzip stand for as many megabytes as one likes, in a file, in a header of the
archive, or in what lies before the file that is wanted.  What is unpacked is counted as it comes.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

MAX_MEMBERS = 10_000
MAX_UNPACKED = 8 << 30
_MAX_PIECE = 1 << 26


class _Counted(gzip.GzipFile):
    """Unpacked bytes, up to a limit, and few at once: a header may state any size."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_PIECE:
            raise tarfile.ReadError(f"a part of it takes over {_MAX_PIECE >> 20} MB")
        _check(self.tell() + size - _MAX_PIECE)
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        _check(offset)
        return super().seek(offset, whence)


def _check(place: int) -> None:
    if place > MAX_UNPACKED:
        raise tarfile.ReadError(f"it unpacks to over {MAX_UNPACKED >> 30} GB")


@contextmanager
def bounded_members(path: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, BinaryIO]]]:
    """The plain files of a .tar.gz, each with a stream of its content, one after the other.

    Raises:
        tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error: if the archive is damaged, or
            holds more than the limits above.
    """
    with _Counted(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
        yield _walk(tar)


def _walk(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    for number, member in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise tarfile.ReadError(f"it holds over {MAX_MEMBERS:,} files")
        if member.isfile():
            yield member, cast(BinaryIO, tar.extractfile(member))
