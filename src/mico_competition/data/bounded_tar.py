"""Reads files from an untrusted .tar.gz within limits on their number and unpacked size.

A few kilobytes of gzip can unpack to any number of megabytes, in a file, in a header of the archive
or ahead of the file that is wanted, so all unpacked bytes are counted.
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
    """The unpacked stream, with limits on its length and on a single read."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_PIECE:
            raise tarfile.ReadError(f"a part of it takes over {_MAX_PIECE >> 20} MB")
        _check(self.tell() + size - _MAX_PIECE)
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        _check(offset)
        return super().seek(offset, whence)


def _check(position: int) -> None:
    if position > MAX_UNPACKED:
        raise tarfile.ReadError(f"it unpacks to over {MAX_UNPACKED >> 30} GB")


@contextmanager
def bounded_members(path: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, BinaryIO]]]:
    """The regular files of a .tar.gz one after the other, each with a stream of its content.

    Raises:
        tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error: if the archive is damaged, or
            exceeds MAX_MEMBERS or MAX_UNPACKED.
    """
    with _Counted(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
        yield _walk(tar)


def _walk(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    for number, member in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise tarfile.ReadError(f"it holds over {MAX_MEMBERS:,} files")
        if member.isfile():
            yield member, cast(BinaryIO, tar.extractfile(member))
