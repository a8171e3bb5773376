"""Checks how much memory and time an untrusted file of weights would take, before it is loaded.

A few bytes can demand much memory: a pickle for a `bytearray` of any size or for millions of
objects, a zip for the same data a thousand times, a header for more memory than there is. These
checks walk through the file without building any object.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

from mico_competition.competition.zip_directory import directory_size

SAFETENSORS_HEADER = 4_000_000
MAX_OPERATIONS = 500_000
MAX_MEMBERS = 50_000
MAX_DIRECTORY = 8 << 20
_PICKLE = 16 << 20
_OLD_PICKLES = 5  # pickles that precede the data in torch's format up to 1.5

# The names in pickles of state dicts: storages, dtypes, and functions that make tensors of them.
# torch admits more names, such as `bytearray`.  Sparse and meta tensors are admitted here, and
# refused after loading with a message of their own.
_TENSORS = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|sparse_tensor)"
    r"|torch\._utils _rebuild_meta_tensor_no_storage"
    r"|torch\.serialization _get_layout"
    r"|torch (\w+Storage|Size|device|[a-z]+[0-9]+\w*)"
    r"|torch\.storage (Untyped|Typed)Storage"
)
_END = 22  # the length in bytes of a zip's end record


class NoCheckpoint(ValueError):
    """A file is not a checkpoint, or it is damaged; the message says why in a few words."""


class ForbiddenName(ValueError):
    """A pickle names something that tensors do not need; the message is that name."""


def check_safetensors(path: Path) -> None:
    """Raise NoCheckpoint if the header is longer than the file, or than any header need be."""
    with open(path, "rb") as file:
        head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > path.stat().st_size - 8:
        raise NoCheckpoint("its header is longer than the file")
    if length > SAFETENSORS_HEADER:
        raise NoCheckpoint(f"its header has {length:,} bytes, over {SAFETENSORS_HEADER:,}")


def check_torch(path: Path) -> None:
    """Raise NoCheckpoint or ForbiddenName for a file that torch must not load."""
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\3\4"  # torch tells its two formats apart in the same way
        file.seek(0)
        if not zipped:
            for _ in range(_OLD_PICKLES):
                _check_pickle(file)
            return
        _check_directory(file, path.stat().st_size)
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, path.stat().st_size)


def _check_directory(file: BinaryIO, size: int) -> None:
    """Raise NoCheckpoint if a zip's directory exceeds the limits."""
    file.seek(max(0, size - _END))
    if not file.read(4) == b"PK\5\6":  # a comment could contain a second end record
        raise NoCheckpoint("it does not end as torch's zips do")
    count, length = directory_size(file)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise NoCheckpoint(f"it holds {count:,} members in a directory of {length:,} bytes")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse members that are damaged or unpack to more than the file; torch does not check."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise NoCheckpoint("compressed members, which torch.save never writes")
    if sum(member.file_size for member in members) > size:
        raise NoCheckpoint("its members share their data")
    for member in members:
        if member.filename.rpartition("/")[2] == "data.pkl":
            if member.file_size > _PICKLE:
                raise NoCheckpoint(f"its data.pkl has {member.file_size:,} bytes")
            _check_pickle(io.BytesIO(archive.read(member)))
    if archive.testzip() is not None:
        raise NoCheckpoint("bad checksum")


def _check_pickle(file: IO[bytes]) -> None:
    """Walk through a pickle, and check the number of its operations and the names in it."""
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if number > MAX_OPERATIONS:
            raise NoCheckpoint(f"a pickle of over {MAX_OPERATIONS:,} operations")
        if operation.name == "GLOBAL" and not _TENSORS.fullmatch(str(argument)):
            raise ForbiddenName(str(argument).replace(" ", "."))
