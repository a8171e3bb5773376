"""Finds the files of models in the archives of a repository, without fetching the archives.

The release's SHA256SUMS names the files and their checksums, and the directory at the end of an
archive says where each lies.  Both are untrusted: sizes and places must fit the archive, and a
file counts only with its checksum.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mico_competition.competition.zip_directory import directory_size
from mico_competition.hosting.hub.client import HubError, HubFile
from mico_competition.hosting.hub.listing import UNFINISHED_FILE, HubModel, check_size, sort_out
from mico_competition.hosting.hub.transfer import fetch_files, read_bytes
from mico_competition.release.archive_names import ArchiveName, archive_name
from mico_competition.release.archives import ARCHIVES, SUMS_FILE, read_sums

# An entry of the directory beside its name, with the field of a zip above 4 GB, and the end of it.
_ENTRY, _END = 46 + 28, 22 + 20 + 56
_LEAST = 1 << 17  # bytes of the end that are read in any case
_AT_ONCE = 8
_Place = tuple[int, int]


def check_finished(files: Iterable[HubFile], challenge: str, repo: str) -> None:
    """Raise HubError if the owner's upload of the challenge is under way, or was interrupted."""
    if any(file.path == f"{challenge}.release/{UNFINISHED_FILE}" for file in files):
        raise HubError(
            f"{repo} is being published and is not whole yet: try again later, or name an earlier "
            "commit of it with --revision."
        )


@dataclass(frozen=True)
class Archives:
    """The archives of a challenge in a commit of a repository.

    `listed` are the files that the release's SHA256SUMS lists; their size is not known yet, and 0.
    """

    endpoint: str
    repo: str
    commit: str
    challenge: str
    archives: dict[ArchiveName, HubFile]
    listed: list[HubFile]

    @classmethod
    def read(
        cls, endpoint: str, repo: str, commit: str, files: Iterable[HubFile], challenge: str
    ) -> Archives:
        """Find them among the files of a repository; HubError if it lacks SHA256SUMS."""
        found, sums = {}, None
        for file in files:
            folder, _, name = file.path.rpartition("/")
            if folder == f"{challenge}.release/{ARCHIVES}" and (parsed := archive_name(name)):
                found[parsed] = file
            if file.path == f"{challenge}.release/{SUMS_FILE}":
                sums = file
        at = (endpoint, repo, commit)
        return cls(*at, challenge, found, _listed(*at, sums) if found else [])

    def models(self) -> list[HubModel]:
        """The models that the archives hold by their names."""
        models = sort_out(self.listed, self.challenge)[0]
        return [model for model in models if any(name.holds(model) for name in self.archives)]

    def locate(self, models: Iterable[HubModel]) -> list[HubModel]:
        """Some of `models`, with the sizes of their files and their places in the archives.

        Raises:
            HubError: if several archives hold a model, or one is not as `mico publish` writes it.
        """
        chosen: dict[ArchiveName, list[HubModel]] = {}
        for model in models:
            first, *others = [name for name in self.archives if name.holds(model)]
            if others:
                raise HubError(
                    f"{self.repo} has {model.relative_path} in {first} and in {others[0]}: tell "
                    "its owner."
                )
            chosen.setdefault(first, []).append(model)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(self._in_one, chosen, chosen.values())
            return [model for some in found for model in some]

    def _in_one(self, name: ArchiveName, models: list[HubModel]) -> list[HubModel]:
        """The models in one archive, located."""
        file = self.archives[name]
        start = f"{self.challenge}/{name.scenario}/{name.phase}/"
        mine = [listed.path for listed in self.listed if listed.path.startswith(start)]
        most = sum(_ENTRY + len(path.encode()) for path in mine)
        length = min(file.size, max(_LEAST, most + _END))
        at = (self.endpoint, self.repo, self.commit)
        tail = read_bytes(*at, file, file.size - length, file.size)
        try:
            places = _places(tail, file.size, most)
            return [_in_archive(model, file, places) for model in models]
        except (ValueError, KeyError, zipfile.BadZipFile, OSError):
            raise HubError(
                f"{file.path} of {self.repo} is not the archive that SHA256SUMS there describes: "
                "tell its owner."
            ) from None


def _listed(endpoint: str, repo: str, commit: str, sums: HubFile | None) -> list[HubFile]:
    """The files that the release's SHA256SUMS lists, with their checksums."""
    if sums is None:
        raise HubError(f"{repo} has archives but lacks {SUMS_FILE}: tell its owner.")
    check_size(sums, repo, SUMS_FILE)
    with tempfile.TemporaryDirectory(prefix="mico_sums_") as folder:
        path = Path(folder) / SUMS_FILE
        fetch_files(endpoint, repo, commit, [(sums, path)], lambda count: None)
        try:
            listed = read_sums(path)
        except ValueError:
            raise HubError(
                f"{sums.path} of {repo} is not a list of checksums: tell its owner."
            ) from None
    return [HubFile(name, 0, digest) for name, digest in listed.items()]


def _in_archive(model: HubModel, archive: HubFile, places: Mapping[str, _Place]) -> HubModel:
    """The model with the places and sizes of its files; KeyError if one is not there."""
    files = {}
    for name, file in model.files.items():
        start, size = places[file.path]
        files[name] = replace(file, size=size, archive=archive, start=start)
    return replace(model, files=files)


def _places(tail: bytes, size: int, most: int) -> dict[str, _Place]:
    """Name -> position of the first byte, and size, of the files in an archive.

    Args:
        tail: the last bytes of the archive, at least its directory.
        size: the size of the archive.
        most: the most bytes that the directory may have.

    Raises:
        ValueError: if a file is compressed or encrypted, or does not lie where it must.
    """
    view = _Tail(tail, size)
    if directory_size(view)[1] > most:
        raise ValueError("its directory is too long")
    with zipfile.ZipFile(view) as archive:
        infos, end = archive.infolist(), archive.start_dir
    infos.sort(key=lambda info: info.header_offset)
    places: dict[str, _Place] = {}
    following = [*(info.header_offset for info in infos[1:]), end]
    for info, behind in zip(infos, following):
        start = behind - info.file_size
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.compress_size != info.file_size
            or info.flag_bits & 0x9  # encrypted, or with sizes behind the data
            or start < info.header_offset + 30 + len(info.orig_filename.encode())
            or info.filename in places
        ):
            raise ValueError(f"{info.filename} is not stored as it is")
        places[info.filename] = (start, info.file_size)
    return places


class _Tail(io.BytesIO):
    """The last bytes of a file of `size` bytes, as if it were all of it."""

    def __init__(self, tail: bytes, size: int) -> None:
        super().__init__(tail)
        self._before = size - len(tail)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position, as in any file."""
        if whence == io.SEEK_SET:
            if offset < self._before:
                raise ValueError("the directory reaches too far")
            offset -= self._before
        return super().seek(offset, whence) + self._before

    def tell(self) -> int:
        """The position in the whole file."""
        return super().tell() + self._before
