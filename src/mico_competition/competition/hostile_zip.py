"""Unpacks an untrusted zip in bounded time, memory and disk space, or refuses it.

It accepts only zips that all programs on all systems unpack to the same files.  Features that
submissions never need (encryption, links, paths that lead elsewhere, names that some systems do not
distinguish) are refused in a sentence.  Unpacked bytes are counted, whatever sizes the zip states.
Zips inside the zip are never opened.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mico_competition.competition.names import as_others_see, is_portable
from mico_competition.competition.zip_directory import (
    AGAIN,
    LESS,
    MAX_ENTRIES,
    OTHER,
    Entry,
    HostileZip,
    data_starts,
    read_directory,
)
from mico_competition.scoring.printable import printable, shown
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import hosts_folder, is_hosts

MAX_UNPACKED = 64 << 20
MAX_NAME = 1_000
MAX_PART = 255
MAX_DEPTH = 20
MAX_SHOWN_FAULTS = 10

_STORED, _DEFLATED = 0, 8
_NEWEST = 45  # version 4.5 of the format: deflate needs 2.0, and unzip skips files above 4.6
_ENCRYPTED, _PATCH, _STRONG, _MASKED = 0x1, 0x20, 0x40, 0x2000
_KNOWN_FLAGS = 0x80E  # compression level, sizes that follow the data, a name in UTF-8
_DOS_FOLDER, _DOS_NO_FILE = 0x10, 0x448  # a volume's label, a device, a link of Windows
_PIECE = 1 << 16
_DRIVE = re.compile("[A-Za-z]:")


def unpack_zip(path: PathLike, folder: PathLike) -> list[str]:
    """Unpack a zip into an empty folder, and return its faults, each in one line.

    Args:
        path: the zip.
        folder: an existing, empty folder; nothing is ever written outside it.

    Returns:
        The faults; empty if all of the zip was unpacked.  With faults, the folder may hold a part
        of it, never more than `MAX_UNPACKED` bytes in `MAX_ENTRIES` files and folders.

    Raises:
        OSError: if the machine fails, such as by a full disk.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return [f"{printable(path)} is not a file: name the zip."]
        with Path(path).open("rb") as file:
            entries, end = read_directory(file)
            faults = _tree_faults(entries)
            starts = {} if faults else data_starts(file, entries, end)
            for entry in entries if not faults else []:
                _write(file, entry, starts[entry.offset], Path(folder))
    except HostileZip as error:
        faults = [str(error)]
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and is_hosts(error):
            raise
        faults = [f"cannot be read ({type(error).__name__}): {AGAIN}"]
    more = len(faults) - MAX_SHOWN_FAULTS
    if more > 0:
        faults = [*faults[:MAX_SHOWN_FAULTS], f"has {more} more such faults."]
    return [f"{printable(path)} {fault}" for fault in faults]


def _tree_faults(entries: Sequence[Entry]) -> list[str]:
    """The faults of the names and sizes in the directory."""
    total = sum(entry.size for entry in entries if not entry.is_folder)
    if total > MAX_UNPACKED:
        return [f"unpacks to over {MAX_UNPACKED >> 20} MB: {LESS}"]
    faults = [fault for entry in entries if (fault := _entry_fault(entry))]
    if faults:
        return faults
    folders: set[tuple[str, ...]] = set()
    files: set[tuple[str, ...]] = set()
    stated: set[tuple[tuple[str, ...], bool]] = set()
    for entry in entries:
        parts = entry.parts
        folders.update(parts[:depth] for depth in range(1, len(parts) + entry.is_folder))
        if (parts, entry.is_folder) in stated:
            faults.append(f"holds {shown(entry.name)} twice: {AGAIN}")
        stated.add((parts, entry.is_folder))
        if not entry.is_folder:
            files.add(parts)
    faults += [
        f"holds {shown('/'.join(parts))} both as a file and as a folder: {AGAIN}"
        for parts in sorted(files & folders)
    ]
    if len(files) + len(folders) > MAX_ENTRIES:
        return [f"holds over {MAX_ENTRIES} files and folders: {LESS}"]
    return faults or _twin_faults(files | folders)


def _twin_faults(paths: Iterable[tuple[str, ...]]) -> list[str]:
    """Names that are the same on a system that ignores case or Unicode normal forms."""
    first: dict[tuple[str, ...], tuple[str, ...]] = {}
    keys: dict[str, str] = {}
    faults = []
    for path in sorted(paths):
        key = tuple(keys.setdefault(part, as_others_see(part)) for part in path)
        other = first.setdefault(key, path)
        if other != path and other[:-1] == path[:-1]:  # else their folders have been named
            one, two = shown("/".join(other)), shown("/".join(path))
            faults.append(f"holds {one} and {two}, which some systems take for one: {AGAIN}")
    return faults


def _entry_fault(entry: Entry) -> str | None:
    """Why an entry cannot be unpacked, or None."""
    parts = entry.name.split("/")
    kind = stat.S_IFMT(entry.attributes >> 16)
    problem, fix = None, AGAIN
    if "\0" in entry.name or not (entry.parts or entry.is_folder) or parts[-1] == ".":
        problem = "which is no name of a file"
    elif "\\" in entry.name:
        problem = "with backslashes where other systems expect /"
    elif entry.name.startswith("/") or ".." in parts or any(map(_DRIVE.match, parts)):
        problem = "which leads out of its folder"
    elif (
        len(entry.name) > MAX_NAME
        or len(parts) > MAX_DEPTH
        or any(len(part.encode()) > MAX_PART for part in parts)
    ):
        problem = "which is too long or too deep a path"
    elif not all(map(is_portable, entry.parts)):
        problem = "a name that some systems change or refuse"
        fix = f"rename it or leave it out, and {AGAIN}"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.attributes & _DOS_NO_FILE:
        problem = "which is a link or a device, not a file"
    elif not entry.is_folder and (kind == stat.S_IFDIR or entry.attributes & _DOS_FOLDER):
        problem = "which has the name of a file and the mark of a folder"
    elif entry.is_folder and (kind == stat.S_IFREG or entry.size or entry.crc):
        problem = "which has the name of a folder and the mark or the data of a file"
    elif entry.flags & (_ENCRYPTED | _PATCH | _STRONG | _MASKED):
        problem, fix = "which is encrypted", "zip it again without a password."
    else:
        problem, fix = _form_problem(entry), OTHER
    return f"holds {shown(entry.name)}, {problem}: {fix}" if problem else None


def _form_problem(entry: Entry) -> str | None:
    """A feature of an entry that not all programs support, or None."""
    if entry.flags & ~_KNOWN_FLAGS:
        return f"with flags 0x{entry.flags:04x}, which not all readers know"
    if entry.method not in (_STORED, _DEFLATED):
        return f"compressed by method {entry.method}, where 8 (deflate) is usual"
    if entry.version & 0xFF > _NEWEST:
        return f"which needs version {(entry.version & 0xFF) / 10} of the format"
    if entry.streamed and entry.method == _STORED and entry.packed:
        return "stored without its size before it, which some readers need"
    return None


def _write(file: BinaryIO, entry: Entry, start: int, folder: Path) -> None:
    """Unpack an entry below `folder`; HostileZip as soon as it differs from its stated size."""
    path = folder.joinpath(*entry.parts)
    crc = size = 0
    with hosts_folder(folder):
        (path if entry.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        file.seek(start)
        pieces = _inflated(file, entry) if entry.method == _DEFLATED else _stored(file, entry)
        if entry.is_folder and not entry.packed:
            return
        with Path(os.devnull).open("wb") if entry.is_folder else path.open("xb") as written:
            try:
                for piece in pieces:
                    size += len(piece)
                    if size > entry.size:
                        break
                    crc = zlib.crc32(piece, crc)
                    written.write(piece)
            except zlib.error:
                raise HostileZip(f"holds {shown(entry.name)}, which is damaged: {AGAIN}") from None
    if size != entry.size or crc != entry.crc:
        raise HostileZip(f"declares another size or checksum of {shown(entry.name)}: {AGAIN}")


def _stored(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left = entry.packed
    while left and (piece := file.read(min(left, _PIECE))):
        left -= len(piece)
        yield piece


def _inflated(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The data of an entry, unpacked in small pieces."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    for packed in _stored(file, entry):
        while packed:
            if inflate.eof:
                raise zlib.error("bytes behind the end of the data")
            yield inflate.decompress(packed, _PIECE)
            packed = inflate.unconsumed_tail or inflate.unused_data
    while piece := inflate.decompress(b"", _PIECE):
        yield piece
    if not inflate.eof:
        raise zlib.error("no end of the data")
