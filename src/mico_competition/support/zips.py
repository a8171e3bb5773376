"""Zip archives that hold nothing but their files: the same names and contents give the same bytes.

Members are sorted and have one time and one mode.  They are stored unless the caller asks for
deflate, which differs between builds of zlib and does not shrink weights.
"""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from mico_competition.support.files import PathLike

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can state
_CHUNK = 1 << 20

Content = bytes | Path


def write_zip(
    target: PathLike | BinaryIO, files: Mapping[str, Content], *, deflate: bool = False
) -> None:
    """Write a zip archive of `files` (name -> bytes, or the file to take them from), by name."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            content = files[name]
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            info.file_size = content.stat().st_size  # decides whether zip64 is needed
            with content.open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, _CHUNK)


def zip_bytes(files: Mapping[str, Content]) -> bytes:
    """The bytes of a zip archive of `files`: see `write_zip`."""
    buffer = io.BytesIO()
    write_zip(buffer, files)
    return buffer.getvalue()
