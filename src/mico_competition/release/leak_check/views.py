"""Decodes a small file's content in all ways in which a secret may be hidden in it."""

from __future__ import annotations

import binascii
import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator

_RUN = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_HEX = re.compile(rb"(?:[0-9a-f]{2})+|(?:[0-9A-F]{2})+")
_URLSAFE = bytes.maketrans(b"-_", b"+/")
_GAP = b"\xff" * 8
_LARGEST = 1 << 24  # the most bytes that are unpacked
_WORDS = ((b"true", b"1"), (b"True", b"1"), (b"false", b"0"), (b"False", b"0"))
_NO_DIGIT = re.compile(rb"[^0-9]+")


def views(content: bytes) -> Iterator[bytes]:
    """`content`, its base64 and hexadecimal parts decoded, and all of these decompressed."""
    yield content
    if len(content) > _LARGEST:  # a release has no such file, except weights
        return
    decoded = list(_decoded(content))
    yield _GAP.join(decoded)
    for packed in (content, *decoded):
        yield from _unpacked(packed)


def numbers_in(content: bytes) -> bytes:
    """The numbers in `content`, separated by single commas; "true" and "false" become 1 and 0."""
    for word, digit in _WORDS:
        content = content.replace(word, digit)
    return b"," + _NO_DIGIT.sub(b",", content) + b","


def _decoded(content: bytes) -> Iterator[bytes]:
    """Long runs of letters and digits, decoded at every alignment."""
    for run in _RUN.findall(content):
        for start in range(2):
            digits = run[start : start + (len(run) - start) // 2 * 2]
            if _HEX.fullmatch(digits):
                yield bytes.fromhex(digits.decode())
        text = run.translate(_URLSAFE)
        for start in range(4):
            part = text[start:]
            yield binascii.a2b_base64(part[: len(part) // 4 * 4])


def _unpacked(packed: bytes) -> Iterator[bytes]:
    """`packed` decompressed, if it begins like compressed data."""
    openers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda data: zlib.decompressobj(31).decompress(data, _LARGEST),
        b"\x78": lambda data: zlib.decompressobj().decompress(data, _LARGEST),
        b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data, _LARGEST),
        b"\xfd7zXZ": lambda data: lzma.LZMADecompressor().decompress(data, _LARGEST),
        b"PK\x03\x04": _members,
    }
    for magic, unpack in openers.items():
        if packed.startswith(magic):
            try:
                yield unpack(packed)
            except (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError):
                continue
            except (zipfile.BadZipFile, NotImplementedError):
                continue


def _members(packed: bytes) -> bytes:
    """The contents of all members of a zip archive, one after another."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        small = [info for info in archive.infolist() if info.file_size <= _LARGEST]
        return _GAP.join(archive.read(info) for info in small[:100])
