"""Writes archives, checksums and file attributes that reveal nothing but the content of files.

All files have the same time and mode, and names are sorted, so the same files give the same archive
on any machine.  Archives are not compressed, because weights do not shrink, and deflate differs
between builds of zlib.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mico_competition.competition.layout import challenge_folder_of, model_id_of, release_folder
from mico_competition.support.files import PUBLIC, PathLike, make_folder, set_access, write_text
from mico_competition.support.progress import tracked
from mico_competition.support.untrusted import read_limited_text
from mico_competition.support.zips import write_zip

SUMS_FILE = "SHA256SUMS"
ARCHIVES = "archives"

# The earliest time that a zip archive can store: 1980-01-01, 00:00 UTC.
EPOCH = 315_532_800
_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")
_CHUNK = 1 << 20
_LARGEST = 1 << 26  # bytes of SHA256SUMS
AGAIN = "fetch it again, or have it released again"
NO_RELEASE = (
    "name a challenge folder that `mico release` wrote and `<challenge>.release` lies beside"
)


def files_below(folder: PathLike) -> list[str]:
    """Paths of all files below `folder`, relative to it, with "/" between their parts, sorted."""
    folder = Path(folder)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def write_archive(path: PathLike, root: PathLike, *folders: str) -> None:
    """Write a zip archive of the files below each `<root>/<folder>`; names begin with `folder`.

    The same names and contents give the same bytes.  Files over 4 GB are fine (zip64).
    """
    make_folder(Path(path).parent, PUBLIC)
    names = [f"{top}/{file}" for top in folders for file in files_below(Path(root) / top)]
    write_zip(path, {name: Path(root) / name for name in names})


def settle(folder: PathLike) -> None:
    """Set one modification time, and modes 0644 and 0755, for `folder` and all below it."""
    folder = Path(folder)
    set_access(folder, PUBLIC)
    for path in (*folder.rglob("*"), folder):
        set_time(path)


def set_time(path: PathLike) -> None:
    """Set the modification time that all files and folders of releases have."""
    os.utime(path, (EPOCH, EPOCH))


def sha256_of(path: PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_sums(folder: PathLike, sums: Mapping[str, str]) -> None:
    """Write SHA256SUMS into `folder`, from names to checksums, as `sha256sum -c` reads it."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    write_text(Path(folder) / SUMS_FILE, "".join(lines))


def read_sums(path: PathLike) -> dict[str, str]:
    """Name -> SHA-256, from a file SHA256SUMS.

    Raises:
        ValueError: if the file is missing, lists nothing or a file twice, or has a line of
            another form.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}: {NO_RELEASE}.")
    sums: dict[str, str] = {}
    for number, line in enumerate(read_limited_text(path, _LARGEST).splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or not _plain(match[2]) or match[2] in sums:
            raise ValueError(
                f"Line {number} of {path} is not a checksum, or is a second one: {AGAIN}."
            )
        sums[match[2]] = match[1]
    if not sums:
        raise ValueError(f"{path} lists no files, so nothing can be checked: {AGAIN}.")
    return sums


def _plain(name: str) -> bool:
    """Whether `name` is a relative path without "." and ".."."""
    return not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))


def files_of_release(challenge_folder: PathLike) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of everything that SHA256SUMS of a release must list.

    That is everything below the challenge folder and in `<challenge>.release/` beside it, except
    SHA256SUMS itself and the archives, which have their own checksums.  Links and empty folders
    are included, so that they do not go unnoticed.
    """
    folder = challenge_folder_of(challenge_folder)
    side = release_folder(folder)
    for top, label in ((folder, folder.name), (side, f"{folder.name}.release")):
        for path in _all_below(top):
            name = path.relative_to(top).as_posix()
            if top is side and (name == SUMS_FILE or name.startswith(f"{ARCHIVES}/")):
                continue
            yield f"{label}/{name}", path


def _all_below(top: Path) -> Iterator[Path]:
    """Everything below `top` except non-empty folders: files, links and others, sorted."""
    for parent, folders, names in os.walk(top):
        folders.sort()
        if not folders and not names and Path(parent) != top:
            yield Path(parent)
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in sorted((*names, *links)))


def check_sums(
    challenge_folder: PathLike, known: Mapping[str, str] | None = None
) -> tuple[int, list[str]]:
    """Compare the files of a release, and its archives if there are any, with SHA256SUMS.

    Args:
        challenge_folder: the released challenge folder, beside which `<challenge>.release` lies.
        known: name -> SHA-256 of files that need not be listed.

    Returns:
        The number of matching files, and a sentence for each file that does not match, is missing,
        or is not listed.

    Raises:
        ValueError: as `read_sums`.
    """
    folder = challenge_folder_of(challenge_folder)
    side = release_folder(folder)
    present = dict(files_of_release(folder))
    sums = read_sums(side / SUMS_FILE)
    extra = {name: digest for name, digest in (known or {}).items() if name in present}
    sound, faults = _compare({**extra, **sums}, present, folder.name)
    if (side / ARCHIVES).is_dir():
        zips = {p.relative_to(side / ARCHIVES).as_posix(): p for p in _all_below(side / ARCHIVES)}
        listed = read_sums(zips.pop(SUMS_FILE, side / ARCHIVES / SUMS_FILE))
        more, wrong = _compare(listed, zips, f"{folder.name}.release/{ARCHIVES}")
        sound, faults = sound + more, faults + wrong
    return sound, faults


def _missing(names: Sequence[str], present: Mapping[str, Path], where: str) -> list[str]:
    """A sentence for each missing file, but only one for all missing models of a phase."""
    folders = {name.rpartition("/")[0] for name in present}
    single: list[str] = []
    models: dict[str, list[int]] = {}
    for name in names:
        folder = name.rpartition("/")[0]
        phase, _, model = folder.rpartition("/")
        model_id = model_id_of(model)
        if folder in folders or model_id is None:
            single.append(f"{name} is missing in {where}: {AGAIN}.")
        elif model_id not in models.setdefault(phase, []):
            models[phase].append(model_id)
    return single + [
        f"{phase} lacks {len(ids)} models, from model_{min(ids)} to model_{max(ids)}: {AGAIN}."
        for phase, ids in sorted(models.items())
    ]


def _compare(sums: dict[str, str], present: dict[str, Path], where: str) -> tuple[int, list[str]]:
    """The number of files that match `sums`, and the faults of the others."""
    faults, sound = _missing(sorted(sums.keys() - present), present, where), 0
    for name, path in tracked(present.items(), "Checksums", "file"):
        if name not in sums:
            faults.append(
                f"{path} is not part of the release: remove it; predictions belong into another "
                "folder."
            )
        elif path.is_symlink() or not path.is_file():
            faults.append(f"{path} is not a regular file: {AGAIN}.")
        elif sha256_of(path) != sums[name]:
            faults.append(f"{path} does not match its checksum: {AGAIN}.")
        else:
            sound += 1
    return sound, faults
