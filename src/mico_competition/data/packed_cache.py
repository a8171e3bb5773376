"""A cache of a table of zeros and ones, packed to bits, in a file beside the table.

The cache names the file that it was made from and has a checksum.  If it is truncated, damaged or
older than its source, it is ignored.  If the folder cannot be written to, nothing is cached.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from mico_competition.support.files import written_aside

FORMAT = 2
_BLOCK_BYTES = 1 << 20
_SETTLED_SECONDS = 2.0  # after this time, a new change of a file always gets another time stamp

Records = tuple[np.ndarray, np.ndarray]


def fingerprint(source: Path) -> str:
    """A text that identifies the version of a file: the hash of its content, and its state.

    While the state (size, times, inode) is unchanged, the content need not be hashed again.  The
    state includes ctime, which, unlike mtime, cannot be set back.
    """
    with open(source, "rb") as file:
        digest = hashlib.sha256()
        state = _state(file.fileno())
        settled = time.time() - state[2] / 1e9 > _SETTLED_SECONDS
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return json.dumps([FORMAT, source.name, state, settled, digest.hexdigest()])


def _state(file: int | Path) -> list[int]:
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def write(path: Path, source_fingerprint: str, records: Records) -> bool:
    """Write `records` to `path`; return whether that was possible.

    Args:
        path: the file to write (aside, then renamed).
        source_fingerprint: `fingerprint` of the source, taken before it was parsed.
        records: packed features uint8 [N, W] and labels uint8 [N].
    """
    bits, labels = records
    try:
        with written_aside(path) as aside, open(aside, "wb") as file:
            np.savez(
                file,
                bits=bits,
                labels=labels,
                source=np.array(source_fingerprint),
                checksum=np.array(_checksum(bits, labels, source_fingerprint)),
            )
    except OSError:
        return False
    return True


def read(path: Path, source: Path | None, width: int, num_classes: int) -> Records | None:
    """Read what `write` wrote; None if it is missing, damaged or out of date.

    Args:
        path: the cache.
        source: the file from whose present version it must have been made; None for any.
        width: the number of bytes that a record must have.
        num_classes: labels must be below this.
    """
    if not path.is_file():
        return None
    try:
        # The file is opened here because np.load does not close a file that it cannot read.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if _packed(file.zip, path.stat().st_size):
                return None
            bits, labels = file["bits"], file["labels"]
            made_from, checksum = str(file["source"]), str(file["checksum"])
    except Exception:  # a damaged file can fail in any way, and counts as missing
        return None
    whole = (
        (bits.dtype, labels.dtype) == (np.uint8, np.uint8)
        and labels.ndim == 1
        and bits.shape == (len(labels), width)
        and len(labels) > 0
        and int(labels.max()) < num_classes
        and checksum == _checksum(bits, labels, made_from)
        and json.loads(made_from)[0] == FORMAT
    )
    if not whole or (source is not None and not _is_of(path, source, made_from, (bits, labels))):
        return None
    return bits, labels


def _packed(archive: zipfile.ZipFile, size: int) -> bool:
    """Whether the archive unpacks to more than its own size, which `write` never produces."""
    members = archive.infolist()
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    return not stored or sum(member.file_size for member in members) > size


def _is_of(path: Path, source: Path, made_from: str, records: Records) -> bool:
    """Whether the cache at `path` was made from the present version of `source`."""
    _, _, state, settled, digest = json.loads(made_from)
    if settled and state == _state(source):
        return True
    found = fingerprint(source)
    if json.loads(found)[-1] != digest:
        return False
    write(path, found, records)  # the file was copied or touched: remember its new state
    return True


def _checksum(bits: np.ndarray, labels: np.ndarray, source_fingerprint: str) -> str:
    digest = hashlib.sha256(source_fingerprint.encode())
    for values in (bits, labels):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
