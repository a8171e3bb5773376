"""Reads the directory of an untrusted zip, and accepts only one that all programs read alike.

A zip describes each file twice: in the directory at its end, and in a header ahead of the data.
Some programs use the one and some the other, and extra fields may rename or hide a file.  So this
module requires that the files fill the zip from its first byte to the directory, that both headers
agree in every field, that names decode in only one way, and that extra fields hold only times and
owners.  Limits apply before anything is read.

It does not use `zipfile`, which loads a directory of any length, allows entries to share their
data, and differs between versions of Python.  Features that submissions never need (ZIP64, several
disks, bytes before the first entry) are refused.

Source: PKWARE, APPNOTE.TXT (.ZIP File Format Specification), sections 4.3 to 4.6.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from mico_competition.scoring.printable import shown
from mico_competition.support.untrusted import POINTER

MAX_PACKED = 64 << 20
MAX_ENTRIES = 10_000
MAX_DIRECTORY = 4 << 20

AGAIN, LESS = "zip it again.", "zip predictions only."
OTHER = "zip it again with another program, such as `mico submit`."

_END, _DIRECTORY, _LOCAL, _DESCRIPTOR = b"PK\5\6", b"PK\1\2", b"PK\3\4", b"PK\7\10"
_END_RECORD = struct.Struct("<4s4H2LH")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_SIZES = struct.Struct("<3L")
_UTF8 = 0x800
# MS-DOS, OS/2 and Windows: unzip decodes their names in a codepage, even if marked as UTF-8.
_CODEPAGES = (0, 6, 11)
# The lengths of fields for times and owners: of Unix (four), of NTFS, and Java's marker.  Other
# fields rename (0x7075), encrypt or link files, or are not known to all programs.
_TIMES = {0x5455: (5, 9, 13), 0x5855: (8, 12), 0x7855: (0, 4), 0x7875: (7, 11, 15, 19)}
_HARMLESS_FIELDS = {**_TIMES, 0x000A: (32,), 0xCAFE: (0,)}


class HostileZip(ValueError):
    """A zip is refused; the message is a sentence without the zip's name."""


@dataclass(frozen=True)
class Entry:
    """One entry of the zip's directory.

    `attributes` are the external ones: the Unix mode above 16 bits, those of MS-DOS below.
    """

    name: str
    raw_name: bytes
    version: int
    flags: int
    method: int
    written: tuple[int, int]
    crc: int
    packed: int
    size: int
    attributes: int
    offset: int

    @property
    def parts(self) -> tuple[str, ...]:
        """The names on the path to which it unpacks, without empty ones and "."."""
        return tuple(part for part in self.name.split("/") if part not in ("", "."))

    @property
    def is_folder(self) -> bool:
        """Whether the entry is a folder."""
        return self.name.endswith("/")

    @property
    def streamed(self) -> bool:
        """Whether its sizes follow its data, as in a zip that is written to a pipe."""
        return bool(self.flags & 0x8)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The checksum, the packed size and the unpacked size."""
        return self.crc, self.packed, self.size


def read_directory(file: BinaryIO) -> tuple[list[Entry], int]:
    """All entries, and where the directory begins; HostileZip if there are too many."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_PACKED:
        raise HostileZip(f"is larger than {MAX_PACKED >> 20} MB: {LESS}")
    file.seek(0)
    if file.read(len(POINTER)) == POINTER:
        raise HostileZip("is a pointer of git-LFS, not the zip itself: run `git lfs pull` first.")
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
    """The number of entries, and the length and start of the directory."""
    file.seek(max(0, size - _END_RECORD.size - 0xFFFF))
    tail = file.read()
    ends = list(_ends(tail))
    if not ends:
        known = tail.rfind(_END) >= 0
        fault = "does not end as a zip file does" if known else "is not a zip file that can be read"
        raise HostileZip(f"{fault}: {OTHER}")
    if len(ends) > 1:  # programs differ in which one they use, and then see different files
        raise HostileZip(f"has two ends, one inside the other: {AGAIN}")
    at = ends[0]
    _, disk, first_disk, here, count, length, start, _ = _END_RECORD.unpack_from(tail, at)
    if disk or first_disk or here != count:
        raise HostileZip(f"does not end as a zip file does: {OTHER}")
    if tail[max(0, at - _ZIP64_LOCATOR.size) : at].startswith(b"PK\6\7"):
        before = max(0, at - _ZIP64_LOCATOR.size - _ZIP64_END.size)
        zip64 = tail[before : before + _ZIP64_END.size]
        if len(zip64) == _ZIP64_END.size and zip64.startswith(b"PK\6\6"):
            count = _ZIP64_END.unpack(zip64)[7]
        if count <= MAX_ENTRIES:
            raise HostileZip(f"is a ZIP64, which predictions never need: {OTHER}")
        return count, length, start
    if start + length != size - len(tail) + at:
        raise HostileZip(f"has bytes that belong to no file in it: {AGAIN}")
    return count, length, start


def directory_size(file: BinaryIO) -> tuple[int, int]:
    """The stated number of members of any zip, also a ZIP64, and the length of its directory.

    Use it before `zipfile`, which reads the whole directory into memory first.

    Raises:
        ValueError: if the file does not end as a zip does.
    """
    size = file.seek(0, os.SEEK_END)
    before = _ZIP64_LOCATOR.size + _ZIP64_END.size
    file.seek(max(0, size - _END_RECORD.size - 0xFFFF - before))
    tail = file.read()
    at = next(iter(_ends(tail)), None)
    if at is None:
        raise ValueError("it does not end as a zip file does")
    count, length = _END_RECORD.unpack_from(tail, at)[4:6]
    if tail[max(0, at - _ZIP64_LOCATOR.size) : at].startswith(b"PK\6\7"):
        record = tail[max(0, at - before) : at - _ZIP64_LOCATOR.size]
        if len(record) < _ZIP64_END.size or not record.startswith(b"PK\6\6"):
            raise ValueError("it does not end as a zip file does")
        count, length = _ZIP64_END.unpack(record)[7:9]
    return count, length


def _ends(tail: bytes) -> Iterator[int]:
    """The position of every end record whose comment reaches exactly to the end of the file."""
    at = tail.find(_END)
    while 0 <= at <= len(tail) - _END_RECORD.size:
        if at + _END_RECORD.size + _END_RECORD.unpack_from(tail, at)[7] == len(tail):
            yield at
        at = tail.find(_END, at + 1)


def _parse_directory(directory: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(directory):
        if len(directory) - at < _DIRECTORY_ENTRY.size or not directory.startswith(_DIRECTORY, at):
            raise HostileZip(f"has a damaged directory: {AGAIN}")
        fields = _DIRECTORY_ENTRY.unpack_from(directory, at)
        made_by, version, flags, method, time, date, crc, packed, size = fields[1:10]
        name_length, extra, comment, disk, _, attributes, offset = fields[10:]
        at += _DIRECTORY_ENTRY.size
        raw = directory[at : at + name_length]
        at += name_length
        name = _decoded(raw, flags, made_by >> 8)
        _check_fields(directory[at : at + extra], name)
        at += extra + comment
        if disk:
            raise HostileZip(f"is one of several disks: {AGAIN}")
        yield Entry(
            *(name, raw, version, flags, method, (time, date), crc, packed, size, attributes),
            offset=offset,
        )
    if at != len(directory):
        raise HostileZip(f"has a damaged directory: {AGAIN}")


def _decoded(raw: bytes, flags: int, system: int) -> str:
    """Decode a name; HostileZip unless it is ASCII, or UTF-8 for all programs."""
    if raw.isascii():
        return raw.decode("ascii")
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "replace")
        if flags & _UTF8:
            raise HostileZip(f"holds a name that is not text: {AGAIN}") from None
    if flags & _UTF8 and system not in _CODEPAGES:
        return name
    raise HostileZip(
        f"holds {shown(name)}, whose name is not ASCII, and not UTF-8 to all readers: rename it in "
        f"ASCII or leave it out, and {AGAIN}"
    )


def _check_fields(extra: bytes, name: str) -> None:
    """Raise HostileZip unless the extra fields are complete, harmless, and not repeated."""
    seen = set()
    at = 0
    while at < len(extra):
        kind, length = struct.unpack_from("<2H", extra.ljust(at + 4, b"\xff"), at)
        at += 4 + length
        if at > len(extra):
            raise HostileZip(f"has a damaged directory: {AGAIN}")
        if length not in _HARMLESS_FIELDS.get(kind, ()) or kind in seen:
            raise HostileZip(
                f"gives {shown(name)} a field 0x{kind:04x}, by which some readers may see another "
                f"file: {OTHER}"
            )
        seen.add(kind)


def data_starts(file: BinaryIO, entries: Sequence[Entry], end: int) -> dict[int, int]:
    """Where the data of each entry begins, by the position of its header.

    Raises HostileZip unless each header agrees with the directory, and headers and data fill the
    zip from its beginning to its directory.  Programs that go from header to header then see
    exactly the entries of the directory.
    """
    ordered = sorted(entries, key=lambda entry: entry.offset)
    if ordered[0].offset:
        raise HostileZip(f"has bytes before its first file: {AGAIN}")
    starts = {}
    for entry, following in zip(ordered, [*(entry.offset for entry in ordered[1:]), end]):
        start = _check_header(file, entry)
        behind = start + entry.packed
        if behind > end:
            raise HostileZip(f"holds a file that is cut short: {AGAIN}")
        if behind > following:
            raise HostileZip(f"holds {shown(entry.name)}, which overlaps another file: {AGAIN}")
        file.seek(behind)
        between = file.read(min(following - behind, 1 << 8))
        if between not in _descriptors(entry):
            raise HostileZip(f"has bytes that belong to no file in it: {AGAIN}")
        starts[entry.offset] = start
    return starts


def _check_header(file: BinaryIO, entry: Entry) -> int:
    """Where the data of an entry begins; HostileZip if its header contradicts the directory."""
    file.seek(entry.offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL):
        raise HostileZip(f"has no file where {shown(entry.name)} should be: {AGAIN}")
    _, version, flags, method, time, date, *sizes, name_length, extra = _LOCAL_HEADER.unpack(header)
    if file.read(name_length) != entry.raw_name:
        raise HostileZip(f"gives {shown(entry.name)} two names: {AGAIN}")
    _check_fields(file.read(extra), entry.name)
    # If the zip was written to a pipe, sizes and checksum are 0 in the header.
    late = (0,) if entry.streamed else ()
    pairs = {
        "version": version == entry.version,
        "flags": flags == entry.flags,
        "method": method == entry.method,
        "time": (time, date) == entry.written,
        "size or checksum": all(
            here in (stated, *late) for here, stated in zip(sizes, entry.sizes)
        ),
    }
    differing = [name for name, same in pairs.items() if not same]
    if differing:
        raise HostileZip(
            f"gives {shown(entry.name)} one {differing[0]} in its directory and another before "
            f"the data: {OTHER}"
        )
    start: int = entry.offset + len(header) + name_length + extra
    return start


def _descriptors(entry: Entry) -> tuple[bytes, ...]:
    """What may follow the data of an entry: its sizes, if the header lacks them."""
    sizes = _SIZES.pack(*entry.sizes)
    return (_DESCRIPTOR + sizes, sizes) if entry.streamed else (b"",)
