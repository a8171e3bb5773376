"""Reads the directory of a zip from a stranger, and believes nothing of it that can be checked.

A zip ends with an end record, which tells where its directory lies; the directory has an entry a
file, with sizes and where its data begins; each file's data follows a header of its own.  All
three can lie, so each is held against the next, and their number before any of them is read.

The format is read here, not by `zipfile`, which loads a directory of any length before it says
how long it is, lets entries share their data, and differs from one Python to the next.  What a
submission never needs (ZIP64, several disks, bytes before the first entry) is refused.

Source: PKWARE, APPNOTE.TXT (.ZIP File Format Specification), sections 4.3 and 4.4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mico_competition.scoring.files import shown

MAX_PACKED = 64 << 20
MAX_ENTRIES = 10_000
MAX_DIRECTORY = 4 << 20

AGAIN, LESS = "zip it again.", "zip predictions only."

_END, _DIRECTORY, _LOCAL = b"PK\5\6", b"PK\1\2", b"PK\3\4"
_END_RECORD = struct.Struct("<4s4H2LH")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_UTF8 = 0x800


class HostileZip(ValueError):
    """A zip that is not unpacked; its text is a sentence without the zip's name."""


@dataclass(frozen=True)
class Entry:
    """One line of the zip's directory; `parts` are the folders and the name it unpacks to."""

    name: str
    raw_name: bytes
    version: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Names on the path, without those that mean nothing."""
        return tuple(part for part in self.name.split("/") if part not in ("", "."))

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder."""
        return self.name.endswith("/")


def read_directory(file: BinaryIO) -> tuple[list[Entry], int]:
    """All entries and where they begin; HostileZip if there are too many, before one is read."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_PACKED:
        raise HostileZip(f"is larger than {MAX_PACKED >> 20} MB: {LESS}")
    count, length, start = _read_end_record(file, size)
    if count > MAX_ENTRIES:
        raise HostileZip(f"holds {count} files and folders, over {MAX_ENTRIES}: {LESS}")
    if length > MAX_DIRECTORY:
        raise HostileZip(
            f"has a directory of {length >> 20} MB, over {MAX_DIRECTORY >> 20}: {LESS}"
        )
    if not count:
        raise HostileZip("is an empty zip: zip the folder of the challenge.")
    file.seek(start)
    entries: list[Entry] = []
    for entry in _parse_directory(file.read(length)):
        entries.append(entry)
        if len(entries) > count:
            break
    if len(entries) != count:
        raise HostileZip(f"has a damaged directory: {AGAIN}")
    return entries, start


def _read_end_record(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """How many entries, and the length and the place of the directory."""
    file.seek(max(0, size - _END_RECORD.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_RECORD.size:
        raise HostileZip(f"is not a zip file that can be read: {AGAIN}")
    record = _END_RECORD.unpack_from(tail, at)
    _, disk, first_disk, here, count, length, start, comment = record
    # Other programs may take another end record than the last, and then see other files.
    if at + _END_RECORD.size + comment != len(tail) or disk or first_disk or here != count:
        raise HostileZip(f"does not end as a zip file does: {AGAIN}")
    if tail[max(0, at - _ZIP64_LOCATOR.size) : at].startswith(b"PK\6\7"):
        before = max(0, at - _ZIP64_LOCATOR.size - _ZIP64_END.size)
        zip64 = tail[before : before + _ZIP64_END.size]
        if len(zip64) == _ZIP64_END.size and zip64.startswith(b"PK\6\6"):
            count = _ZIP64_END.unpack(zip64)[7]
        if count <= MAX_ENTRIES:
            raise HostileZip(f"is a ZIP64, which predictions never need: {AGAIN}")
        return count, length, start
    if start + length != size - len(tail) + at:
        raise HostileZip(f"has bytes that belong to no file in it: {AGAIN}")
    return count, length, start


def _parse_directory(directory: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(directory):
        if len(directory) - at < _DIRECTORY_ENTRY.size or not directory.startswith(_DIRECTORY, at):
            raise HostileZip(f"has a damaged directory: {AGAIN}")
        fields = _DIRECTORY_ENTRY.unpack_from(directory, at)
        version, flags, method, _, _, crc, packed, size = fields[2:10]
        name_length, extra, comment, _, _, attributes, offset = fields[10:]
        at += _DIRECTORY_ENTRY.size
        raw = directory[at : at + name_length]
        at += name_length
        _check_extra(directory[at : at + extra])
        at += extra + comment
        try:
            name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            raise HostileZip(f"holds a name that is not text: {AGAIN}") from None
        yield Entry(
            name, raw, version & 0xFF, flags, method, crc, packed, size, attributes >> 16, offset
        )
    if at != len(directory):
        raise HostileZip(f"has a damaged directory: {AGAIN}")


def _check_extra(extra: bytes) -> None:
    """HostileZip unless it is a row of records, each with its length, as `zipfile` expects."""
    at = 0
    while len(extra) - at >= 4:
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    if at > len(extra):
        raise HostileZip(f"has a damaged directory: {AGAIN}")


def data_starts(file: BinaryIO, entries: Sequence[Entry], end: int) -> dict[int, int]:
    """Where the data of each entry begins, from where its header does; no two may overlap."""
    starts = {}
    free = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        file.seek(entry.offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL):
            raise HostileZip(f"has no file where {shown(entry.name)} should be: {AGAIN}")
        *_, name_length, extra = _LOCAL_HEADER.unpack(header)
        if file.read(name_length) != entry.raw_name:
            raise HostileZip(f"gives {shown(entry.name)} two names: {AGAIN}")
        if entry.offset < free:
            raise HostileZip(f"holds {shown(entry.name)}, which overlaps another file: {AGAIN}")
        starts[entry.offset] = entry.offset + len(header) + name_length + extra
        free = starts[entry.offset] + entry.packed
    if free > end:
        raise HostileZip(f"holds a file that is cut short: {AGAIN}")
    return starts
