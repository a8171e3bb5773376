"""Upload a release to the Hugging Face Hub, with its page.

The release is checked to the last byte before the first request (`released.check_publishable`).
Models go up in commits of some two hundred files, and what describes the release comes last, so
that its presence means that all of it is there.  A run that is broken off is simply repeated:
files that the repository has are left out, and of the others the storage takes what it lacks.

The client's `upload_folder` would send README.md among the first, or, without its storage
package, everything in one commit; `upload_large_folder` is gone from newer clients, and keeps
its notes inside the folder, which a release must not hold.
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
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage
from mico_competition.support.untrusted import JSON_LIMIT, read_limited_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FILES_A_COMMIT = 200
_BYTES_AT_ONCE = 1 << 28
_KEPT = {".gitattributes"}  # the Hub's own


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
    progress: bool = True,
) -> str:
    """Check a release and upload what the repository lacks of it; gives the page's address.

    Args:
        folder: a challenge folder that `mico release` wrote; what lies beside it in
            `<challenge>.release` goes up too, but for the archives.
        repo: OWNER/NAME of a dataset repository; it is made if there is none.
        private: make it private; refused if it is there and public.
        licence: the Hub's identifier of a licence.
        page: a page of one's own for README.md; by default one is written.
        citation: a file with BibTeX of the challenge, for the page that is written.
        endpoint: the Hub's address (default: HF_ENDPOINT, or huggingface.co).
        say: called with a sentence before anything is uploaded.
        progress: whether to show how far it is (see `mico_competition.support.progress`).

    Raises:
        ValueError: if `folder` is not a release, from `check_publishable`; nothing is sent then.
        HubError: if the Hub cannot be reached or refuses; if the repository is public against
            `private`, or holds files of something else.
    """
    check_repository(repo)
    release = check_publishable(folder, progress=progress)
    api = hub_api(endpoint)
    with tempfile.TemporaryDirectory(prefix="mico_page_") as aside, quiet_client():
        ours = _with_page(release, pages(release, repo, licence, page, citation), Path(aside))
        _open(api, repo, private)
        missing = _missing(api, repo, ours)
        size = sum(path.stat().st_size for path, _ in ours.values())
        lacking = sum(ours[name][0].stat().st_size for name in missing)
        say(
            f"Publishing {len(release.models)} models, {len(ours)} files, {megabytes(size)} to "
            f"{repo}; {megabytes(size - lacking)} are there already"
        )
        _upload(api, repo, {name: ours[name][0] for name in missing}, release.challenge, progress)
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
    """The files that describe a release on the Hub, by path there: README.md and the index.

    `page` is a file to take for README.md as it is, `citation` one with BibTeX for ours.
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
        example, bibtex = release.models[0].place, None
        if citation is not None:
            bibtex = read_limited_text(citation, JSON_LIMIT, "a citation", "name a BibTeX file")
        texts[CARD_FILE] = card_text(release.challenge, repo, licence, facts, example, bibtex)
    return texts


def _with_page(
    release: Released, texts: dict[str, str], aside: Path
) -> dict[str, tuple[Path, str]]:
    """All files of the publication, by path there: where each lies here, and its sha256."""
    ours = {name: (release.files[name], digest) for name, digest in release.sums.items()}
    for name, text in texts.items():
        path = aside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        ours[name] = (path, checksum_of(path))
    return ours


def _open(api: HfApi, repo: str, private: bool) -> None:
    """Make the repository if there is none; HubError if it is public against `private`."""
    with hub_errors(repo, api.endpoint):
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.dataset_info(repo, timeout=10).private:
            raise HubError(f"{repo} is there and public: make it private first, or leave it so.")


def _missing(api: HfApi, repo: str, ours: dict[str, tuple[Path, str]]) -> list[str]:
    """What the repository lacks or has otherwise; HubError if it holds anything else."""
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
    """Whether the repository's file has the content that is here; large ones are not read."""
    return file.checksum == digest if len(file.checksum) == 64 else file.fits(path)


def _upload(api: HfApi, repo: str, files: dict[str, Path], challenge: str, progress: bool) -> None:
    """Commit the files, models first; what is large goes to the storage before each commit."""
    from huggingface_hub import CommitOperationAdd

    sizes = {name: path.stat().st_size for name, path in files.items()}
    batches = list(_batches(sizes, challenge))
    with stage("Uploading", sum(sizes.values()), "B", show=progress) as shown:
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
    """The names in lists of about `_BYTES_AT_ONCE`, so that the bar moves now and then."""
    some: list[str] = []
    for name in names:
        some.append(name)
        if sum(sizes[n] for n in some) >= _BYTES_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _batches(files: Iterable[str], challenge: str) -> Iterator[list[str]]:
    """The names of files, models' first, in lists of about `_FILES_A_COMMIT`."""
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
