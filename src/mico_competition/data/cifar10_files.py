"""Finds, reads, checks and downloads the official files of CIFAR-10.

The same images come in two official forms: records of one byte of label and 3,072 bytes of pixels
(`cifar-10-batches-bin`), and pickles of Python 2 (`cifar-10-batches-py`, which 2022 used).  Both
can be read, unpacked or in their archives; the first is preferred.  Files of other lengths in the
same form can be read too.  Reading a pickle never runs code.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mico_competition.data.bounded_tar import bounded_members
from mico_competition.data.downloads import MissingDataError
from mico_competition.data.downloads import download as fetch
from mico_competition.data.plain_pickle import read_plain_pickle
from mico_competition.support.files import PathLike, written_aside
from mico_competition.support.untrusted import read_limited

URL = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
PARTS = (*BATCHES, "test_batch")

MAX_BATCH = 1 << 30
_PIECE = 1 << 24
_ANEW = "download CIFAR-10 anew"

Batch = tuple[np.ndarray, np.ndarray]


def _parse_binary(raw: bytes, path: Path) -> Batch:
    """Pixels uint8 [k, 3072] and labels uint8 [k] of a file of 3,073-byte records."""
    rest = len(raw) % RECORD
    if rest or not raw:
        raise ValueError(
            f"{path} is truncated: it ends at byte {len(raw):,}, {rest:,} bytes into a record of "
            f"{RECORD:,}; download CIFAR-10 anew."
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    return records[:, 1:], records[:, 0]


@dataclass(frozen=True)
class _Form:
    """An official form: its archive contains its folder, and the folder contains six files."""

    folder: str
    archive: str
    md5: str
    suffix: str
    parse: Callable[[bytes, Path], Batch]

    @property
    def files(self) -> list[str]:
        return [part + self.suffix for part in PARTS]


BINARY = _Form(
    "cifar-10-batches-bin",
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    ".bin",
    _parse_binary,
)
PYTHON = _Form(
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    "",
    read_plain_pickle,
)


def read_cifar10(dataset_dir: PathLike, download: bool) -> Batch:
    """Read images and labels: the five training batches, then the test batch.

    Args:
        dataset_dir: the folder with the files, or with a folder `cifar10` that holds them.
        download: download the official archive (170 MB) if there is no copy.

    Returns:
        uint8 [N, 3, 32, 32] and int64 [N], 0..9.

    Raises:
        MissingDataError: if there is no copy and `download` is false.
        DownloadError: if fetching fails.
        ValueError: if a file is missing, damaged or refused; the message names it.
    """
    source = _find(Path(dataset_dir))
    if source is None:
        if not download:
            raise MissingDataError(
                f"There is no CIFAR-10 in {Path(dataset_dir) / 'cifar10'} or {dataset_dir}: "
                f"download it (--download, or download=True), or put {BINARY.archive} or "
                f"{PYTHON.archive} from {URL} there."
            )
        source = BINARY, fetch_cifar10(dataset_dir)
    form, path = source
    batches = _unpacked(form, path) if path.is_dir() else _archived(form, path)
    return _joined(batches)


def fetch_cifar10(dataset_dir: PathLike) -> Path:
    """Download and unpack the binary form; return the path of its folder."""
    root = Path(dataset_dir) / "cifar10"
    archive = fetch(URL + BINARY.archive, root / BINARY.archive, md5=BINARY.md5)
    folder = root / BINARY.folder
    with written_aside(folder) as aside:
        aside.mkdir()
        # Only the six files are written, under their expected names.
        for name, raw in _members(BINARY, archive).items():
            (aside / name).write_bytes(raw)
    archive.unlink()
    return folder


def _find(root: Path) -> tuple[_Form, Path] | None:
    """The form and path of the copy to read: unpacked before packed, binary before pickles."""
    for attribute, exists in (("folder", Path.is_dir), ("archive", Path.is_file)):
        for form in (BINARY, PYTHON):
            for folder in (root / "cifar10", root):
                path = folder / getattr(form, attribute)
                if exists(path):
                    return form, path
    return None


def _unpacked(form: _Form, folder: Path) -> Iterator[tuple[Path, Batch]]:
    """Each batch of a folder, with the path of its file."""
    missing = [name for name in form.files if not (folder / name).is_file()]
    if missing:
        raise MissingDataError(
            f"{folder} lacks {', '.join(missing)}: add what is missing, or delete the folder and "
            "download CIFAR-10 anew."
        )
    for name in form.files:
        path = folder / name
        yield path, form.parse(read_limited(path, MAX_BATCH, "a batch", _ANEW), path)


def _archived(form: _Form, archive: Path) -> Iterator[tuple[Path, Batch]]:
    """Each batch of an archive, with a path that names the archive and the file."""
    members = _members(form, archive)
    for name in form.files:
        path = archive / form.folder / name
        yield path, form.parse(members.pop(name), path)


def _members(form: _Form, archive: Path) -> dict[str, bytes]:
    """The contents of the six files in an archive."""
    wanted = {f"{form.folder}/{name}": name for name in form.files}
    found: dict[str, bytes] = {}
    try:
        with bounded_members(archive) as members:
            for member, content in members:
                name = wanted.get(os.path.normpath(member.name).replace(os.sep, "/"))
                if name is not None:
                    found[name] = _content(content, member.size, archive)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{archive} is truncated or damaged ({error}): delete it and download CIFAR-10 anew."
        ) from error
    missing = [path for path, name in wanted.items() if name not in found]
    if missing:
        raise ValueError(f"{archive} lacks {', '.join(missing)}: download CIFAR-10 anew.")
    return found


def _content(file: BinaryIO, size: int, archive: Path) -> bytes:
    """The content of a file of the archive; ValueError if it is larger than any batch."""
    if size > MAX_BATCH:
        raise ValueError(f"{archive} holds a file of {size:,} bytes, over {MAX_BATCH:,}.")
    return b"".join(iter(partial(file.read, _PIECE), b""))


def _joined(batches: Iterator[tuple[Path, Batch]]) -> Batch:
    """Check all batches, and concatenate them."""
    all_pixels, all_labels = [], []
    for path, (pixels, labels) in batches:
        if pixels.ndim != 2 or pixels.shape[1] != PIXELS:
            raise ValueError(
                f"{path} holds an array of shape {list(pixels.shape)}, not [records, {PIXELS}]: "
                "download CIFAR-10 anew."
            )
        if len(labels) != len(pixels):
            raise ValueError(
                f"{path} holds {len(labels):,} labels for {len(pixels):,} images: download "
                "CIFAR-10 anew."
            )
        wrong = np.flatnonzero((labels < 0) | (labels > 9))
        if len(wrong):
            first = int(wrong[0])
            where = f" (byte {first * RECORD:,})" if path.suffix == ".bin" else ""
            raise ValueError(
                f"{path} is damaged: record {first:,}{where} has label {labels[first]}, not 0 to "
                "9; download CIFAR-10 anew."
            )
        all_pixels.append(pixels)
        all_labels.append(labels.astype(np.int64))
    return np.concatenate(all_pixels).reshape(-1, 3, 32, 32), np.concatenate(all_labels)
