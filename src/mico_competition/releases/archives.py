"""Trees and archives that tell nothing but their content: one time, fixed modes, sorted names.

The same files give the same bytes on any machine: archives are stored, not deflated (weights do
not shrink, and deflate differs between builds of zlib).  Knows nothing of models or secrets.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mico_competition.files import PathLike, write_text
from mico_competition.progress import tracked

SUMS_FILE = "SHA256SUMS"

# The first moment that a zip archive can tell: 1980-01-01, 00:00 UTC.
EPOCH = 315_532_800
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHUNK = 1 << 20


def files_below(folder: PathLike) -> list[str]:
    """Paths of all files below `folder`, relative to it, with "/" between their parts, sorted."""
    folder = Path(folder)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def write_archive(path: PathLike, root: PathLike, folder: str) -> None:
    """Write a zip archive of the files below `<root>/<folder>`; their names begin with `folder`.

    The same names and contents give the same bytes.  Files over 4 GB are fine (zip64).
    """
    root = Path(root)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(f"{folder}/{file}" for file in files_below(root / folder)):
            info = zipfile.ZipInfo(name, _ZIP_EPOCH)
            info.create_system, info.external_attr = 3, (0o100000 | _FILE_MODE) << 16
            info.file_size = (root / name).stat().st_size  # decides whether zip64 is needed
            with (root / name).open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK)


def settle(folder: PathLike) -> None:
    """Give `folder` and all below it one modification time, and modes 0644 and 0755."""
    folder = Path(folder)
    for path in (*folder.rglob("*"), folder):
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
        set_time(path)


def set_time(path: PathLike) -> None:
    """Give a file or folder the one modification time of releases."""
    os.utime(path, (EPOCH, EPOCH))


def sha256_of(path: PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_sums(folder: PathLike) -> None:
    """Write SHA256SUMS of every other file below `folder`, as `sha256sum -c` reads it."""
    folder = Path(folder)
    names = [name for name in files_below(folder) if name != SUMS_FILE]
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    write_text(folder / SUMS_FILE, "".join(lines))


def read_sums(folder: PathLike) -> Iterator[tuple[str, str]]:
    """(SHA-256, relative path) of each line of SHA256SUMS in `folder`.

    Raises:
        ValueError: if there is no such file, or a line of it is of another form.
    """
    path = Path(folder) / SUMS_FILE
    if not path.is_file():
        raise ValueError(f"There is no {SUMS_FILE} in {folder}: give a released challenge folder.")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or ".." in match[2].split("/") or match[2].startswith("/"):
            raise ValueError(f"Line {number} of {path} is no checksum: fetch it again.")
        yield match[1], match[2]


def check_sums(folder: PathLike) -> tuple[int, list[str]]:
    """The number of files that match SHA256SUMS in `folder`, and a sentence for each other one.

    Files that it does not list, such as predictions written later, are not looked at.

    Raises:
        ValueError: as `read_sums`.
    """
    sound, faults = 0, []
    for digest, name in tracked(read_sums(folder), "Checksums", "file"):
        path = Path(folder) / name
        if not path.is_file():
            faults.append(f"{path} is missing: fetch it again.")
        elif sha256_of(path) != digest:
            faults.append(f"{path} does not match its checksum: fetch it again.")
        else:
            sound += 1
    return sound, faults
