"""Uploads a release to the Hugging Face Hub, with its page.

The release is checked completely before the first request (`released.check_publishable`).  Models
are uploaded first, in commits of about a hundred files or a gigabyte, and what describes the
release comes last.  The first commit adds a file `unfinished`, which the last one removes, so that
nobody downloads a part for the whole.  After an interruption, run it again: files that the
repository has are skipped.

The client's `upload_folder` sends README.md among the first files, and needs all archives on disk
at once; `upload_large_folder` was removed from newer clients, and stores its state inside the
folder, which would break the release.  So this module uses what they consist of:
`preupload_lfs_files`, and `create_commit` for each part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mico_competition.hosting.hub.client import (
    HubError,
    HubFile,
    hub_api,
    hub_errors,
    list_files,
    megabytes,
    quiet_client,
)
from mico_competition.hosting.hub.contents import (
    Contents,
    contents,
    default_form,
    missing,
    pages,
)
from mico_competition.hosting.hub.listing import UNFINISHED_FILE, check_repository
from mico_competition.hosting.hub.released import check_publishable
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_BYTES_AT_ONCE = 1 << 28
_KEPT = {".gitattributes"}  # the Hub itself writes it
_UNFINISHED = b"Not all of this release is here: its owner runs `mico publish` again.\n"


def publish(
    folder: PathLike,
    repo: str,
    *,
    private: bool = False,
    licence: str = "mit",
    page: PathLike | None = None,
    citation: PathLike | None = None,
    form: str | None = None,
    endpoint: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Check a release, and upload the files that the repository lacks.

    Args:
        folder: a challenge folder that `mico release` wrote; the files beside it in
            `<challenge>.release` are uploaded too.
        repo: OWNER/NAME of a dataset repository, which is created if needed.
        private: create a private repository; HubError if it exists and is public.
        licence: the Hub's identifier of a licence.
        page: a file to use as README.md; by default the page is generated.
        citation: a file with BibTeX of the challenge, for the generated page.
        form: "archives" (a zip for each scenario and phase; those that the release lacks are made
            one after the other) or "files".  Default: that of the repository, or else archives
            if the models have less than 50 MB on average.
        endpoint: the Hub's address (default: HF_ENDPOINT, or huggingface.co).
        say: called with a sentence before anything is uploaded.

    Returns:
        The address of the page.

    Raises:
        ValueError: if `folder` is not a release, from `check_publishable`; then nothing is sent.
        HubError: if the Hub cannot be reached or refuses, or if the repository is public despite
            `private`, or holds other files, or the models in the other form.
    """
    check_repository(repo)
    release = check_publishable(folder)
    api = hub_api(endpoint)
    with tempfile.TemporaryDirectory(prefix="mico_page_") as aside, quiet_client():
        _open(api, repo, private)
        there = {file.path: file for file in list_files(api, repo)[1]}
        form = form or _form_of(there, release.challenge) or default_form(release)
        texts = pages(release, repo, licence, page, citation, form)
        ours = contents(release, form, texts, Path(aside))
        mark = f"{release.side.name}/{UNFINISHED_FILE}"
        _check_foreign(there, {*ours.names, mark}, repo, form, release.challenge)
        _say(say, ours, there, repo)
        if _upload(api, repo, ours, there, mark, Path(aside)):
            there = {file.path: file for file in list_files(api, repo)[1]}
            if mark in there or ours.lacking(there, ours.last(Path(aside))):
                raise HubError(f"{repo} does not hold what was sent: run again, it resumes.")
    return f"{api.endpoint}/datasets/{repo}"


def _say(
    say: Callable[[str], None], ours: Contents, there: Mapping[str, HubFile], repo: str
) -> None:
    """Say what will be published."""
    known = ours.models | ours.described
    lacking = set(missing(known, there))
    size = sum(path.stat().st_size for name, (path, _) in known.items() if name not in lacking)
    packed = f" in {count_of(ours.archives, 'archive')}" if ours.archives else ""
    say(
        f"Publishing {count_of(len(ours.release.models), 'model')}{packed}, "
        f"{count_of(len(ours.names), 'file')}, {megabytes(ours.size)} to {repo}; "
        + (
            "archives are made one at a time, and those that are there are not sent again"
            if ours.unmade
            else f"{megabytes(size)} are there already"
        )
    )


def _form_of(there: Mapping[str, HubFile], challenge: str) -> str | None:
    """The form in which a repository has models of the challenge; None if it has none."""
    for name in there:
        if name.startswith(f"{challenge}/"):
            return "files"
        if name.startswith(f"{challenge}.release/archives/"):
            return "archives"
    return None


def _check_foreign(
    there: Mapping[str, HubFile], ours: set[str], repo: str, form: str, challenge: str
) -> None:
    """Raise HubError if the repository has other files, or the models in the other form."""
    if not (foreign := sorted(set(there) - ours - _KEPT)):
        return
    found = _form_of(dict.fromkeys(foreign), challenge)  # type: ignore[arg-type]
    if found not in (None, form):
        raise HubError(
            f"{repo} holds {foreign[0]}, so it has the models as {found}: publish with --form "
            f"{found}, or choose another repository."
        )
    raise HubError(
        f"{repo} holds {foreign[0]}, which is not of this release: choose another repository, "
        "or remove it there."
    )


def _open(api: HfApi, repo: str, private: bool) -> None:
    """Create the repository if needed; HubError if it is public despite `private`."""
    with hub_errors(repo, api.endpoint):
        api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.dataset_info(repo, timeout=10).private:
            raise HubError(f"{repo} is there and public: make it private first, or leave it so.")


def _upload(
    api: HfApi,
    repo: str,
    ours: Contents,
    there: Mapping[str, HubFile],
    mark: str,
    aside: Path,
) -> bool:
    """Commit what the repository lacks, models first; return whether there was anything."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    marked, number = mark in there, 0
    with stage("Uploading", ours.size, "B") as shown:
        for number, group in enumerate(ours.groups(there), 1):
            first = [] if marked else [CommitOperationAdd(mark, _UNFINISHED)]
            files = _uploaded(api, repo, group, shown.update)
            _commit(api, repo, [*first, *files], f"Add the release, part {number}")
            marked = True
        last = ours.last(aside)
        group = {name: last[name][0] for name in missing(last, there)}
        if not group and not marked:
            return False
        files = _uploaded(api, repo, group, shown.update)
        removed = [CommitOperationDelete(mark)] if marked else []
        _commit(api, repo, [*files, *removed], f"Complete the release, part {number + 1}")
    return True


def _uploaded(
    api: HfApi, repo: str, files: Mapping[str, Path], on_bytes: Callable[[int], object]
) -> list[CommitOperationAdd]:
    """Upload large files to the Hub's storage; return what adds all of them in a commit."""
    from huggingface_hub import CommitOperationAdd

    operations = []
    sizes = {name: path.stat().st_size for name, path in files.items()}
    with hub_errors(repo, api.endpoint):
        for names in _by_size(sizes):
            some = [CommitOperationAdd(name, str(files[name])) for name in names]
            api.preupload_lfs_files(repo, some, repo_type="dataset", free_memory=False)
            operations += some
            on_bytes(sum(sizes[name] for name in names))
    return operations


def _commit(api: HfApi, repo: str, operations: list[object], message: str) -> None:
    """Make one commit."""
    with hub_errors(repo, api.endpoint):
        api.create_commit(repo, operations, commit_message=message, repo_type="dataset")  # type: ignore[arg-type]


def _by_size(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The names in lists of about `_BYTES_AT_ONCE` bytes, so that progress is visible."""
    some: list[str] = []
    for name in sizes:
        some.append(name)
        if sum(sizes[n] for n in some) >= _BYTES_AT_ONCE:
            yield some
            some = []
    if some:
        yield some
