"""Uploads a release to the Hugging Face Hub, with its page.

The release is checked completely before the first request (`released.check_publishable`).  Models
are uploaded in commits of some two hundred files, and the files that describe the release come
last, so that they are present only if everything is.  After an interruption, run it again: files
that the repository has are skipped.

The client's `upload_folder` would send README.md among the first files, or, without its storage
package, everything in one commit.  `upload_large_folder` was removed from newer clients, and stores
its state inside the folder, which would break the release.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mico_competition.hosting.hub.client import (
    HubError,
    HubFile,
    checksum_of,
    hub_api,
    hub_errors,
    list_files,
    megabytes,
    quiet_client,
)
from mico_competition.hosting.hub.dataset_card import card_text, index_path, index_text
from mico_competition.hosting.hub.listing import check_repository
from mico_competition.hosting.hub.released import CARD_FILE, Released, check_publishable, facts_of
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage
from mico_competition.support.untrusted import JSON_LIMIT, read_limited_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FILES_A_COMMIT = 200
_BYTES_AT_ONCE = 1 << 28
_KEPT = {".gitattributes"}  # the Hub itself writes it


def publish(
    folder: PathLike,
    repo: str,
    *,
    private: bool = False,
    licence: str = "mit",
    page: PathLike | None = None,
    citation: PathLike | None = None,
    endpoint: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Check a release, and upload the files that the repository lacks.

    Args:
        folder: a challenge folder that `mico release` wrote; the files beside it in
            `<challenge>.release` are uploaded too, except the archives.
        repo: OWNER/NAME of a dataset repository, which is created if needed.
        private: create a private repository; HubError if it exists and is public.
        licence: the Hub's identifier of a licence.
        page: a file to use as README.md; by default the page is generated.
        citation: a file with BibTeX of the challenge, for the generated page.
        endpoint: the Hub's address (default: HF_ENDPOINT, or huggingface.co).
        say: called with a sentence before anything is uploaded.

    Returns:
        The address of the page.

    Raises:
        ValueError: if `folder` is not a release, from `check_publishable`; then nothing is sent.
        HubError: if the Hub cannot be reached or refuses, or if the repository is public despite
            `private`, or holds other files.
    """
    check_repository(repo)
    release = check_publishable(folder)
    api = hub_api(endpoint)
    with tempfile.TemporaryDirectory(prefix="mico_page_") as aside, quiet_client():
        ours = _with_page(release, pages(release, repo, licence, page, citation), Path(aside))
        _open(api, repo, private)
        missing = _missing(api, repo, ours)
        size = sum(path.stat().st_size for path, _ in ours.values())
        lacking = sum(ours[name][0].stat().st_size for name in missing)
        say(
            f"Publishing {count_of(len(release.models), 'model')}, {count_of(len(ours), 'file')}, "
            f"{megabytes(size)} to "
            f"{repo}; {megabytes(size - lacking)} are there already"
        )
        _upload(api, repo, {name: ours[name][0] for name in missing}, release.challenge)
        if missing and _missing(api, repo, ours):
            raise HubError(f"{repo} does not hold what was sent: run again, it resumes.")
    return f"{api.endpoint}/datasets/{repo}"


def pages(
    release: Released,
    repo: str,
    licence: str,
    page: PathLike | None = None,
    citation: PathLike | None = None,
) -> dict[str, str]:
    """The files that describe a release on the Hub, by path: README.md and the index.

    `page` is a file to use as README.md, `citation` one with BibTeX for the generated page.
    """
    if page is not None and citation is not None:
        raise ValueError("Write the citation into the page: --citation is for the page of ours.")
    facts = facts_of(release)
    texts = {
        index_path(scenario.name, phase): index_text(scenario, release.index(scenario.name, phase))
        for scenario in facts
        for phase, count in scenario.models.items()
        if count
    }
    if page is not None:
        texts[CARD_FILE] = read_limited_text(page, JSON_LIMIT, "a page", "name a Markdown file")
    else:
        example, bibtex = release.models[0].relative_path, None
        if citation is not None:
            bibtex = read_limited_text(citation, JSON_LIMIT, "a citation", "name a BibTeX file")
        texts[CARD_FILE] = card_text(release.challenge, repo, licence, facts, example, bibtex)
    return texts


def _with_page(
    release: Released, texts: dict[str, str], aside: Path
) -> dict[str, tuple[Path, str]]:
    """All files to publish, by path on the Hub: the local path, and the SHA-256."""
    ours = {name: (release.files[name], digest) for name, digest in release.sums.items()}
    for name, text in texts.items():
        path = aside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        ours[name] = (path, checksum_of(path))
    return ours


def _open(api: HfApi, repo: str, private: bool) -> None:
    """Create the repository if needed; HubError if it is public despite `private`."""
    with hub_errors(repo, api.endpoint):
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.dataset_info(repo, timeout=10).private:
            raise HubError(f"{repo} is there and public: make it private first, or leave it so.")


def _missing(api: HfApi, repo: str, ours: dict[str, tuple[Path, str]]) -> list[str]:
    """The files that the repository lacks or has in another version; HubError for other files."""
    there = {file.path: file for file in list_files(api, repo)[1]}
    if foreign := sorted(set(there) - set(ours) - _KEPT):
        raise HubError(
            f"{repo} holds {foreign[0]}, which is not of this release: choose another repository, "
            "or remove it there."
        )
    return [
        name
        for name, (path, digest) in ours.items()
        if name not in there or not _same(there[name], path, digest)
    ]


def _same(file: HubFile, path: Path, digest: str) -> bool:
    """Whether the repository's file has the content of the local one, by their checksums."""
    return file.checksum == digest if len(file.checksum) == 64 else file.fits(path)


def _upload(api: HfApi, repo: str, files: dict[str, Path], challenge: str) -> None:
    """Commit the files, models first; large files are uploaded to storage before each commit."""
    from huggingface_hub import CommitOperationAdd

    sizes = {name: path.stat().st_size for name, path in files.items()}
    batches = list(_batches(sizes, challenge))
    with stage("Uploading", sum(sizes.values()), "B") as shown:
        for number, batch in enumerate(batches, 1):
            with hub_errors(repo, api.endpoint):
                operations = []
                for names in _by_size(batch, sizes):
                    some = [CommitOperationAdd(name, str(files[name])) for name in names]
                    api.preupload_lfs_files(repo, some, repo_type="dataset", free_memory=False)
                    operations += some
                    shown.update(sum(sizes[name] for name in names))
                api.create_commit(
                    repo,
                    operations,
                    commit_message=f"Add the release, part {number} of {len(batches)}",
                    repo_type="dataset",
                )


def _by_size(names: list[str], sizes: dict[str, int]) -> Iterator[list[str]]:
    """The names in lists of about `_BYTES_AT_ONCE` bytes, so that progress is visible."""
    some: list[str] = []
    for name in names:
        some.append(name)
        if sum(sizes[n] for n in some) >= _BYTES_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _batches(files: Iterable[str], challenge: str) -> Iterator[list[str]]:
    """The names of files, those of models first, in lists of about `_FILES_A_COMMIT`."""
    models: dict[str, list[str]] = {}
    rest = []
    for name in sorted(files):
        if name.startswith(f"{challenge}/"):
            models.setdefault(name.rpartition("/")[0], []).append(name)
        else:
            rest.append(name)
    batch: list[str] = []
    for names in models.values():
        batch += names
        if len(batch) >= _FILES_A_COMMIT:
            yield batch
            batch = []
    if batch:
        yield batch
    if rest:
        yield rest
