"""Zips of a bundle, read with limits.

A bundle may come from anywhere, so it is never unpacked to be checked: members are read one at a
time, each up to a size limit, and paths never leave the archive.
"""

from __future__ import annotations

import copy
import io
import posixpath
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from mico_competition.competition.zip_directory import directory_size
from mico_competition.scoring.printable import printable
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import check_file, is_hosts

# Errors that reading a damaged, encrypted or foreign zip can raise.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(OSError, ValueError),
)
MAX_MEMBERS = 200_000
MAX_DIRECTORY = 64 << 20
MAX_NAME = 1_000
MAX_RATIO = 200
_ROOM = 1 << 20
MAX_TEXT = 2 << 20
MAX_INNER = 512 << 20
MAX_UNPACKED = 2 << 30


class Archive:
    """A zip that is read a member at a time.

    `names` are those of its files, as they would be on disk when unpacked. `label` names the
    archive in messages.
    """

    def __init__(self, source: PathLike | bytes, label: str | None = None):
        """ValueError if `source`, a path or the zip's bytes, is not a readable zip."""
        self.label = label or printable(source)
        try:
            if isinstance(source, bytes):
                _check_directory(io.BytesIO(source))
            else:
                check_file(source, sys.maxsize, "a bundle", "name the zip")
                with open(source, "rb") as file:
                    _check_directory(file)
            self._zip = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except FileNotFoundError:
            raise ValueError(f"There is no file {self.label}: check its path.") from None
        except _UNREADABLE as error:
            if isinstance(error, OSError) and is_hosts(error):
                raise
            reason = printable(error)
            raise ValueError(f"{self.label} is not a zip that can be read ({reason}).") from None
        members = self._zip.infolist()
        longest = max((member.filename for member in members), key=len, default="")
        if len(longest) > MAX_NAME:
            raise ValueError(f"{self.label} holds a name of {len(longest):,} letters: shorten it.")
        self._members = {_on_disk(info.filename): info for info in members if not info.is_dir()}
        self._folders = {_on_disk(info.filename) for info in members if info.is_dir()}
        for name in self._members:
            self._folders.update(map(str, list(Path(name).parents)[:-1]))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Names of all files, in the archive's own order."""
        return list(self._members)

    def holds(self, name: str) -> bool:
        """Whether there is a file at `name`."""
        return _on_disk(name) in self._members

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder at `name`."""
        return _on_disk(name) in self._folders

    def size(self, name: str) -> int:
        """Bytes of a file, unpacked, as the archive states them; no more are ever read."""
        return self._members[_on_disk(name)].file_size

    def read(self, name: str, limit: int = MAX_TEXT) -> bytes:
        """The bytes of a file; ValueError if it is damaged or larger than `limit`."""
        member = self._members[_on_disk(name)]
        if member.file_size > min(limit, _ROOM + MAX_RATIO * member.compress_size):
            raise ValueError(
                f"{printable(name)} in {self.label} is larger than {limit:,} bytes, or than "
                f"{MAX_RATIO} times what it is packed in."
            )
        try:
            return self._zip.read(member)
        except _UNREADABLE as error:
            where, reason = printable(name), printable(error)
            raise ValueError(f"{where} in {self.label} cannot be read ({reason}).") from None

    def inner(self, name: str) -> Archive:
        """A zip within this one; ValueError if it cannot be read."""
        return Archive(self.read(name, MAX_INNER), f"{printable(name)} in {self.label}")

    def copy(self, to: PathLike, changes: Mapping[str, bytes]) -> None:
        """Write this zip to `to` with other bytes for some of its files; all else stays.

        Raises:
            ValueError: if a file is damaged.
        """
        changed = {_on_disk(name): content for name, content in changes.items()}
        try:
            with zipfile.ZipFile(to, "w") as target:
                for info in self._zip.infolist():
                    name, written = _on_disk(info.filename), copy.copy(info)
                    if name in changed and info is self._members.get(name):
                        target.writestr(written, changed[name])
                        continue
                    with self._zip.open(info) as source, target.open(written, "w") as member:
                        shutil.copyfileobj(source, member, _ROOM)
        except _UNREADABLE as error:
            if isinstance(error, OSError) and is_hosts(error):
                raise
            raise ValueError(f"{self.label} cannot be copied ({printable(error)}).") from None

    def unpack(self, folder: Path) -> None:
        """Write all files below a new `folder`, as the platforms do: modes are lost.

        Raises:
            ValueError: if the files take over 2 GB, or one of them cannot be written.
        """
        if sum(info.file_size for info in self._members.values()) > MAX_UNPACKED:
            raise ValueError(f"{self.label} unpacks to over {MAX_UNPACKED >> 30} GB.")
        folder.mkdir(parents=True)
        try:
            self._zip.extractall(folder)  # keeps all names below `folder`
        except _UNREADABLE as error:
            raise ValueError(f"{self.label} cannot be unpacked ({error}).") from None


def _check_directory(file: BinaryIO) -> None:
    """ValueError if a zip states too many members, before their list is read."""
    count, length = directory_size(file)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise ValueError(f"it holds {count:,} files, over {MAX_MEMBERS:,}: is it the right zip?")


def _on_disk(name: str) -> str:
    """The path that `zipfile` unpacks a member to, relative and with "/" between its parts."""
    parts = [part for part in posixpath.normpath(name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)
