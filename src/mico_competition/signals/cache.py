"""A cache of arrays on disk, keyed by everything that their values depend on.

A file's name is a hash of those inputs, so an entry is never stale.  It is a memory-mapped .npy
file with a checksum behind the data; a truncated or damaged one is computed anew.  If the folder
cannot be written to, the cache logs one warning and keeps nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from mico_competition.competition.layout import ModelFolder
from mico_competition.models.checkpoints import find_file
from mico_competition.models.token_cache import cache_folder
from mico_competition.support.cpus import available_cpus
from mico_competition.support.files import PathLike, written_aside
from mico_competition.support.progress import tracked
from mico_competition.support.untrusted import check_file

_ABANDONED_SECONDS = 3600.0  # a temporary file this old belongs to a process that was killed
_READ_BYTES = 2**20
_CHECKSUM_BYTES = 8

_log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class Cache:
    """Named arrays in one folder.

    Args:
        folder: by default `signals` in `token_cache.cache_folder()` (`$MICO_CACHE`); created at
            the first write.
    """

    def __init__(self, folder: PathLike | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder() / "signals"
        self._said = False
        self._clear_leftovers()

    def read(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The array as a read-only `np.memmap`, or None if it is missing or damaged."""
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            return None
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            whole = (found.dtype, found.shape) == (np.dtype(dtype), shape)
            if whole and path.stat().st_size == found.offset + found.nbytes + _CHECKSUM_BYTES:
                with open(path, "rb") as file:
                    file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
                    return found if file.read() == _checksum(_sum(found)) else None
        except Exception:  # a damaged file can fail in any way, and counts as missing
            return None
        return None

    def write(self, name: str, parts: Sequence[np.ndarray]) -> bool:
        """Write the concatenation of `parts` as one array; return whether that was possible."""
        path = self.folder / f"{name}.npy"
        first = parts[0]
        shape = (sum(len(part) for part in parts), *first.shape[1:])
        header = {"descr": first.dtype.str, "fortran_order": False, "shape": shape}
        try:
            with written_aside(path) as aside, open(aside, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                total = 0
                for part in parts:
                    total += _sum(part)
                    file.write(np.ascontiguousarray(part).data)
                file.write(_checksum(total))
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: OSError) -> None:
        if not self._said:
            _log.warning(
                "Signals cannot be cached in %s (%s), so they are computed anew every time: choose "
                "another folder, or set MICO_CACHE.",
                self.folder,
                error.strerror or error,
            )
        self._said = True

    def _clear_leftovers(self) -> None:
        """Remove the temporary files of killed processes."""
        with suppress(OSError):
            for left in self.folder.glob(".*.npy.*"):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)


def key(*facts: object) -> str:
    """The SHA-256 in hex of some JSON values, which names a file of the cache."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def weights_digests(folders: Sequence[ModelFolder], limit: int) -> list[str]:
    """SHA-256 in hex of each model's files of weights (for text, of its configuration too).

    Raises:
        ValueError: if a folder lacks a file, or a file has more than `limit` bytes.
    """
    for path in (path for folder in folders for path in weights_files(folder)):
        check_file(path, limit, "these weights", "check the task and the path")
    with ThreadPoolExecutor(min(4, available_cpus())) as pool:
        digests = pool.map(_digest, folders)
        return list(tracked(digests, "Checksums", "model", total=len(folders)))


def stamp(folder: ModelFolder) -> Stamp:
    """Inode, size and time of a model's files of weights, which change when they are rewritten."""
    states = [path.stat() for path in weights_files(folder)]
    return tuple((state.st_ino, state.st_size, state.st_mtime_ns) for state in states)


def weights_files(folder: ModelFolder) -> list[Path]:
    """The files that hold a model; ValueError if one is missing."""
    return [find_file(folder.path, names) for names in folder.task.weights]


def _digest(folder: ModelFolder) -> str:
    total = hashlib.sha256()
    for path in weights_files(folder):
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
        total.update(digest.digest())
    return total.hexdigest()


def _sum(part: np.ndarray) -> int:
    """The sum of the bytes, read as 64-bit numbers.

    The sums of parts add up to the sum of the whole if every part but the last is a multiple of 8
    bytes.  It detects pages that never reached the disk, at the speed of memory.
    """
    raw = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    whole = len(raw) // 8 * 8
    rest = int.from_bytes(raw[whole:].tobytes(), "little")
    return int(raw[:whole].view("<u8").sum(dtype=np.uint64)) + rest


def _checksum(total: int) -> bytes:
    """The bytes that are stored for a sum; an array of zeros does not give zeros."""
    return ((total + 1) % 2**64).to_bytes(_CHECKSUM_BYTES, "little")
