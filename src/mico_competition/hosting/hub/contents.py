"""What a publication holds: models as single files or in archives, and what describes them.

Archives are the default for small models, because the Hub limits requests: 300 models of nine
files are 2,700 requests, and in archives some twenty.  Large models are published as single
files, which need no space to make archives in, and which other programs can fetch one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mico_competition.hosting.hub.client import HubFile
from mico_competition.hosting.hub.dataset_card import card_text, index_path, index_text
from mico_competition.hosting.hub.released import CARD_FILE, Released, facts_of
from mico_competition.release.archive_names import archive_name, archives_of
from mico_competition.release.archives import (
    ARCHIVES,
    SUMS_FILE,
    read_sums,
    sha256_of,
    write_sums,
)
from mico_competition.support.files import PathLike
from mico_competition.support.scratch import scratch
from mico_competition.support.untrusted import JSON_LIMIT, read_limited_text
from mico_competition.support.zips import write_zip

FORMS = ("archives", "files")
_SMALL_MODEL = 50_000_000  # bytes
_FILES_A_COMMIT = 100  # as the Hub recommends
_BYTES_A_COMMIT = 1 << 30
Local = tuple[Path, str]
"""A local file and its SHA-256."""


def default_form(release: Released) -> str:
    """`archives` if the models have less than 50 MB on average, or else `files`."""
    size = sum(path.stat().st_size for path in release.files.values())
    return "archives" if size < _SMALL_MODEL * len(release.models) else "files"


@dataclass
class Contents:
    """The files to publish, by their path on the Hub.

    `models` have the bytes of models, and `described` describe the release.  `unmade` are archives
    that the release does not have, with the files that each holds; once `groups` has made them,
    `made` has their sizes and SHA-256.  `sums` is the path for the checksums of all archives.
    """

    release: Released
    models: dict[str, Local]
    described: dict[str, Local]
    unmade: dict[str, tuple[str, ...]] = field(default_factory=dict)
    made: dict[str, tuple[int, str]] = field(default_factory=dict)
    sums: str = ""

    @property
    def names(self) -> set[str]:
        """The paths of all files."""
        return {*self.models, *self.unmade, *self.described, *filter(None, [self.sums])}

    @property
    def archives(self) -> int:
        """The number of archives."""
        return sum(name.endswith(".zip") for name in self.names)

    @property
    def size(self) -> int:
        """The bytes of all files; of archives that are not made yet, those of their content."""
        packed = (self.release.files[name] for names in self.unmade.values() for name in names)
        single = (path for path, _ in (*self.models.values(), *self.described.values()))
        return sum(path.stat().st_size for path in (*packed, *single))

    def groups(self, there: Mapping[str, HubFile]) -> Iterator[dict[str, Path]]:
        """The files of models that the repository lacks, in groups for one commit each.

        Archives are made for their group, beside the release, and removed after it.
        """
        lacking = missing(self.models, there)
        yield from _groups((name, self.models[name][0]) for name in lacking)
        parent = self.release.folder.parent
        if self.unmade:
            place = parent if os.access(parent, os.W_OK) else None
            with scratch(place, f".{self.release.challenge}.archives.aside") as aside:
                for group in _groups(self._made(aside, there)):
                    yield group
                    for path in group.values():
                        path.unlink()

    def _made(self, aside: Path, there: Mapping[str, HubFile]) -> Iterator[tuple[str, Path]]:
        """Make one archive after the other, and keep those that the repository lacks."""
        for name, files in self.unmade.items():
            path = aside / name.rpartition("/")[2]
            write_zip(path, {file: self.release.files[file] for file in files})
            digest = sha256_of(path)
            self.made[name] = path.stat().st_size, digest
            if missing({name: (path, digest)}, there):
                yield name, path
            else:
                path.unlink()

    def last(self, aside: Path) -> dict[str, Local]:
        """The files that describe the release, with the checksums of archives that were made."""
        if not self.sums:
            return self.described
        digests = {name.rpartition("/")[2]: digest for name, (_, digest) in self.made.items()}
        write_sums(aside, digests)
        path = aside / SUMS_FILE
        return self.described | {self.sums: (path, sha256_of(path))}

    def lacking(self, there: Mapping[str, HubFile], last: Mapping[str, Local]) -> list[str]:
        """The files that the repository lacks, when all archives have been made."""
        wrong = [
            name
            for name, (size, digest) in self.made.items()
            if name not in there
            or there[name].size != size
            or (len(there[name].checksum) == 64 and there[name].checksum != digest)
        ]
        return missing(self.models, there) + wrong + missing(last, there)


def contents(release: Released, form: str, texts: Mapping[str, str], aside: Path) -> Contents:
    """What to publish of a release in a form; the texts of `pages` are written below `aside`."""
    local = {name: (release.files[name], digest) for name, digest in release.sums.items()}
    top = f"{release.challenge}/"
    models = {name: file for name, file in local.items() if name.startswith(top)}
    described = {name: file for name, file in local.items() if not name.startswith(top)}
    for name, text in texts.items():
        path = aside / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        described[name] = (path, sha256_of(path))
    if form == "files":
        return Contents(release, models, described)
    folder, start = release.side / ARCHIVES, f"{release.side.name}/{ARCHIVES}"
    if not folder.is_dir():
        unmade = {}
        for name, some in archives_of(release.models).items():
            tops = tuple(f"{top}{model.relative_path}/" for model in some)
            unmade[f"{start}/{name}"] = tuple(file for file in models if file.startswith(tops))
        return Contents(release, {}, described, unmade, sums=f"{start}/{SUMS_FILE}")
    sums = read_sums(folder / SUMS_FILE)
    described[f"{start}/{SUMS_FILE}"] = (folder / SUMS_FILE, sha256_of(folder / SUMS_FILE))
    zips = {f"{start}/{name}": (folder / name, digest) for name, digest in sums.items()}
    return Contents(release, zips, described)


def pages(
    release: Released,
    repo: str,
    licence: str,
    page: PathLike | None = None,
    citation: PathLike | None = None,
    form: str = "files",
) -> dict[str, str]:
    """The files that describe a release on the Hub, by path: README.md and the index.

    `page` is a file to use as README.md, `citation` one with BibTeX for the generated page.
    """
    if page is not None and citation is not None:
        raise ValueError("Write the citation into the page: --citation is for the page of ours.")
    facts = facts_of(release)
    archives = _archives_by_model(release) if form == "archives" else None
    texts = {
        index_path(scenario.name, phase): index_text(
            scenario, release.index(scenario.name, phase, archives)
        )
        for scenario in facts
        for phase, count in scenario.models.items()
        if count
    }
    if page is not None:
        texts[CARD_FILE] = read_limited_text(page, JSON_LIMIT, "a page", "name a Markdown file")
        return texts
    example, bibtex = release.models[0].relative_path, None
    if citation is not None:
        bibtex = read_limited_text(citation, JSON_LIMIT, "a citation", "name a BibTeX file")
    known = (release.challenge, repo, licence, facts, example, bibtex)
    texts[CARD_FILE] = card_text(*known, archives=form == "archives")
    return texts


def _archives_by_model(release: Released) -> dict[str, str]:
    """The published path of the archive with each model, by the model's `relative_path`."""
    folder, start = release.side / ARCHIVES, f"{release.side.name}/{ARCHIVES}"
    if not folder.is_dir():
        archives = archives_of(release.models)
    else:
        names = {name: archive_name(name) for name in read_sums(folder / SUMS_FILE)}
        archives = {
            name: [model for model in release.models if holds.holds(model)]
            for name, holds in names.items()
            if holds
        }
    return {
        model.relative_path: f"{start}/{name}"
        for name, models in archives.items()
        for model in models
    }


def missing(files: Mapping[str, Local], there: Mapping[str, HubFile]) -> list[str]:
    """The files that the repository lacks or has with other content, by their checksums."""
    return [
        name
        for name, (path, digest) in files.items()
        if name not in there or not _same(there[name], path, digest)
    ]


def _same(file: HubFile, path: Path, digest: str) -> bool:
    return file.checksum == digest if len(file.checksum) == 64 else file.fits(path)


def _groups(files: Iterable[tuple[str, Path]]) -> Iterator[dict[str, Path]]:
    """The files, by path on the Hub, in groups of as many as one commit has."""
    group: dict[str, Path] = {}
    size = 0
    for name, path in files:
        group[name] = path
        size += path.stat().st_size
        if len(group) >= _FILES_A_COMMIT or size >= _BYTES_A_COMMIT:
            yield group
            group, size = {}, 0
    if group:
        yield group
