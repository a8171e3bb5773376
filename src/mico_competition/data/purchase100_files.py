"""Finds, parses, checks and downloads the official file of Purchase-100.

Each line of the file is a label from 1 to 100 and 600 zeros and ones.  Files of other lengths in
the same form can be read too.  A copy packed to bits (`packed_cache`) is kept beside the file for
later calls.  2022's `dataset_purchase.pickle` is never read, because loading a pickle can run code.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mico_competition.data import packed_cache
from mico_competition.data.bounded_tar import bounded_members
from mico_competition.data.downloads import DownloadError, MissingDataError
from mico_competition.data.downloads import download as fetch
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import refuse_pointer

URL = "https://github.com/privacytrustlab/datasets/raw/master/dataset_purchase.tgz"
TABLE = "dataset_purchase"
ARCHIVE = "dataset_purchase.tgz"
CACHE = "dataset_purchase.bits.npz"
FEATURES = 600
CLASSES = 100
OFFICIAL_RECORDS = 197_324

_TAIL = 2 * FEATURES  # bytes of ",0" or ",1" that end a line in the usual form
_BLOCK = 1 << 23
_LONGEST_LINE = 1 << 16

Records = tuple[np.ndarray, np.ndarray]


def read_purchase100(dataset_dir: PathLike, download: bool) -> Records:
    """Read packed features and labels, from the cache if it is up to date.

    Args:
        dataset_dir: the folder with the file, or with a folder `purchase100` that holds it.
        download: download the official archive if there is no copy.

    Returns:
        uint8 [N, 75], bits in the order of `numpy.packbits`, and uint8 [N], 0..99.

    Raises:
        MissingDataError: if there is no copy and `download` is false.
        DownloadError: if the download fails or is not the dataset.
        ValueError: if the file is damaged or of another form; the message names the line.
    """
    source, cache = _find(Path(dataset_dir))
    if source is None:
        records = packed_cache.read(cache, None, (FEATURES + 7) // 8, CLASSES) if cache else None
        if records is not None:
            return records
        if not download:
            raise MissingDataError(_nothing_found(Path(dataset_dir), cache))
        return _fetched(Path(dataset_dir) / "purchase100")
    cache = source.with_name(CACHE)
    records = packed_cache.read(cache, source, (FEATURES + 7) // 8, CLASSES)
    if records is None:
        fingerprint = packed_cache.fingerprint(source)
        records = parse_table(source)
        packed_cache.write(cache, fingerprint, records)
    return records


def _find(root: Path) -> tuple[Path | None, Path | None]:
    """The table or archive to read, and the cache to read if there is neither."""
    folders = (root / "purchase100", root)
    sources = [folder / name for name in (TABLE, ARCHIVE) for folder in folders]
    caches = [folder / CACHE for folder in folders]
    return (
        next((path for path in sources if path.is_file()), None),
        next((path for path in caches if path.is_file()), None),
    )


def _nothing_found(root: Path, cache: Path | None) -> str:
    """The error message for a user without data."""
    fix = f"download it (--download, or download=True), or put {ARCHIVE} from {URL} there"
    if cache is not None:
        return f"{cache} is damaged and there is no {TABLE} to make it anew: {fix}."
    folders = (root / "purchase100", root)
    pickles = [folder / f"{TABLE}.pickle" for folder in folders]
    note = "".join(
        f" ({path} is not read, because loading a pickle can run code)"
        for path in pickles
        if path.exists()
    )
    return f"There is no {TABLE} in {folders[0]} or {folders[1]}{note}: {fix}."


def _fetched(folder: Path) -> Records:
    """Download the official archive, and keep it if its content is right."""
    archive = fetch(URL, folder / ARCHIVE)
    # The authors publish no checksum, so every value and the number of records are checked.
    try:
        records = parse_table(archive)
    except ValueError as error:
        archive.unlink()
        raise DownloadError(f"{URL} sent something else, which was deleted: {error}") from error
    if len(records[1]) != OFFICIAL_RECORDS:
        archive.unlink()
        raise DownloadError(
            f"{URL} sent {len(records[1]):,} records, not {OFFICIAL_RECORDS:,}: they were "
            "deleted; run again, or fetch the file from elsewhere."
        )
    packed_cache.write(archive.with_name(CACHE), packed_cache.fingerprint(archive), records)
    return records


def parse_table(path: Path) -> Records:
    """Parse and check the table at `path`, plain or in its archive.

    Returns:
        uint8 [N, 75] and uint8 [N], as `read_purchase100`.

    Raises:
        ValueError: naming the first line that has another form.
    """
    bits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    line = 1
    try:
        with _opened(path) as file:
            for block in _whole_lines(file, path):
                block = block.replace(b"\r\n", b"\n")
                parsed = _parse_regular(block) or _parse_any(block, path, line)
                bits.append(parsed[0])
                labels.append(parsed[1])
                line += block.count(b"\n")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or damaged ({error}): delete it and download Purchase-100 anew."
        ) from error
    if not sum(map(len, labels)):
        raise ValueError(f"{path} is empty: delete it and download Purchase-100 anew.")
    return np.concatenate(bits), np.concatenate(labels)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The table as a stream of bytes, from the file itself or from its archive."""
    if path.suffix != ".tgz":
        refuse_pointer(path)
        with open(path, "rb") as file:
            yield file
        return
    with bounded_members(path) as members:
        for member, content in members:
            if Path(member.name).name == TABLE:
                yield content
                return
    raise ValueError(f"{path} holds no file {TABLE}: delete it and download Purchase-100 anew.")


def _whole_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The stream in blocks of whole lines; the last line gets a line feed if it has none."""
    rest = b""
    while block := file.read(_BLOCK):
        head, newline, tail = block.rpartition(b"\n")
        if newline:
            yield rest + head + newline
            rest = tail
        else:
            rest += block
        if len(rest) > _LONGEST_LINE:
            raise ValueError(
                f"{path} has a line of over {_LONGEST_LINE:,} bytes, which no record takes: "
                "download Purchase-100 anew."
            )
    if rest:
        yield rest + b"\n"


def _parse_regular(block: bytes) -> Records | None:
    """Parse lines in the usual form all at once; None if any line has another form.

    The last 1,200 bytes of such a line are ",0" or ",1", and the label precedes them.
    """
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if not len(ends) or ends[-1] != len(text) - 1:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts - _TAIL
    if digits.min() < 1 or digits.max() > 3:
        return None
    labels: np.ndarray = np.zeros(len(ends), np.int64)
    for position in range(3):
        digit = text[starts + position].astype(np.int64) - ord("0")
        has = digits > position
        if ((digit < 0) | (digit > 9))[has].any():
            return None
        labels = np.where(has, 10 * labels + digit, labels)
    pairs = np.lib.stride_tricks.sliding_window_view(text, _TAIL)[ends - _TAIL]
    features = pairs[:, 1::2] - ord("0")  # wraps below zero, so one comparison checks both sides
    commas = pairs[:, 0::2] == ord(",")
    if labels.min() < 1 or labels.max() > CLASSES or features.max() > 1 or not commas.all():
        return None
    return np.packbits(features, axis=1), (labels - 1).astype(np.uint8)


def _parse_any(block: bytes, path: Path, first: int) -> Records:
    """Parse lines one by one, which is slower, but allows for spaces and names a faulty line.

    `first` is the number of the block's first line, counted from 1.
    """
    features: list[bytes] = []
    labels: list[int] = []
    for line, text in enumerate(block.split(b"\n"), start=first):
        if len(text) > _LONGEST_LINE:
            raise ValueError(f"{path}, line {line:,} has over {_LONGEST_LINE:,} bytes; correct it.")
        fields = [field.strip() for field in text.split(b",")]
        if fields == [b""]:
            continue
        where, fix = f"{path}, line {line:,}", "correct it, or download Purchase-100 anew"
        if len(fields) != 1 + FEATURES:
            raise ValueError(f"{where}: {len(fields)} values, not {1 + FEATURES}; {fix}.")
        label = int(fields[0]) if fields[0].isdigit() and len(fields[0]) <= 3 else 0
        if not 1 <= label <= CLASSES:
            shown = fields[0][:20].decode("utf-8", "replace")
            raise ValueError(f"{where}: label {shown!r} is not 1 to {CLASSES}; {fix}.")
        for column, value in enumerate(fields[1:], start=2):
            if value not in (b"0", b"1"):
                shown = value[:20].decode("utf-8", "replace")
                raise ValueError(f"{where}, column {column}: {shown!r} is not 0 or 1; {fix}.")
        features.append(b"".join(fields[1:]))
        labels.append(label - 1)
    values = np.frombuffer(b"".join(features), np.uint8).reshape(-1, FEATURES) - ord("0")
    return np.packbits(values, axis=1), np.array(labels, np.uint8)
