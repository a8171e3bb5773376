"""Lists repositories of the Hugging Face Hub, by `huggingface_hub`.

Errors of the client become a sentence that names the repository and the fix.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mico_competition.data.downloads import DownloadError
from mico_competition.scoring.printable import printable
from mico_competition.support.files import PathLike

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAX_ENTRIES = 200_000
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 10
_REFUSALS = {
    401: "the Hub does not accept your token; `hf auth login` stores a new one.",
    403: "your token may not do this; `hf auth login` with one that may write to it.",
    429: "the Hub asks for fewer requests; wait five minutes and run again, it resumes.",
}


class HubError(DownloadError):
    """The Hub cannot be reached, refuses, or does not have the requested files."""


class WrongFileError(HubError):
    """A file of a repository is missing or differs from the Hub's list; others may be right."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its path, size in bytes, and checksum in hex.

    `checksum` is a SHA-256 (64 digits) for files in large file storage, and otherwise git's hash
    of the content (40 digits).  If the file lies in an archive of the repository, `start` is the
    position of its first byte there.
    """

    path: str
    size: int
    checksum: str
    archive: HubFile | None = None
    start: int = 0

    @property
    def end(self) -> int:
        """The position behind its last byte."""
        return self.start + self.size

    @property
    def source(self) -> HubFile:
        """The file of the repository that has the bytes."""
        return self.archive or self

    def fits(self, path: PathLike) -> bool:
        """Whether the file at `path` exists and has this content."""
        try:
            return (
                os.stat(path).st_size == self.size
                and checksum_of(path, len(self.checksum)) == self.checksum
            )
        except FileNotFoundError:
            return False

    def part(self, path: Path) -> Path:
        """The path of a partial download of this content; `path` is that of the complete file."""
        return path.with_name(f"{path.name}.{self.checksum[:16]}.part")

    def bytes_at(self, path: Path) -> int:
        """How many bytes of the file an earlier download left at `path`, by length alone."""
        for candidate in (path, self.part(path)):
            if candidate.is_file() and candidate.stat().st_size <= self.size:
                return candidate.stat().st_size
        return 0


def checksum_of(path: PathLike, digits: int = 64) -> str:
    """The SHA-256 of a file's content (64 hex digits), or git's hash of it (40)."""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        if digits != 64:
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def megabytes(size: float) -> str:
    """A number of bytes as text: `12.3 MB`."""
    return f"{size / 1e6:,.1f} MB"


def hub_api(endpoint: str | None = None) -> HfApi:
    """The client; `endpoint` is the Hub's address (default: HF_ENDPOINT, or huggingface.co)."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint.rstrip("/") if endpoint else None)


def list_files(api: HfApi, repo: str, revision: str | None = None) -> tuple[str, list[HubFile]]:
    """List the commit of `revision` of a dataset repository, and all its files.

    It takes two requests, and one more for every further thousand entries.  (A single request
    could return both, but the Hub truncates that list for repositories with many files.)

    Args:
        api: the client.
        repo: OWNER/NAME.
        revision: a branch, tag or commit (default: the main branch).

    Raises:
        HubError: if the Hub cannot be reached, refuses, or does not know the repository.
    """
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(repo, api.endpoint, revision):
        commit = api.dataset_info(repo, revision=revision, timeout=_TIMEOUT_SECONDS).sha
        entries = api.list_repo_tree(repo, repo_type="dataset", revision=commit, recursive=True)
        files = [
            HubFile(
                entry.path,
                entry.lfs.size if entry.lfs else entry.size,
                entry.lfs.sha256 if entry.lfs else entry.blob_id,
            )
            for entry in islice(entries, MAX_ENTRIES + 1)
            if isinstance(entry, RepoFile)
        ]
    if len(files) > MAX_ENTRIES:
        raise HubError(f"{repo} lists over {MAX_ENTRIES:,} files: is it the right repository?")
    return commit or "main", files


@contextmanager
def hub_errors(repo: str, endpoint: str, revision: str | None = None) -> Iterator[None]:
    """Turn errors of the client in the block into a HubError of one sentence.

    Errors of this machine, such as missing permissions, are not changed.
    """
    from huggingface_hub import errors

    # The root of what the transport raises: httpx's, or requests', as the client's version has it.
    transport = cast("type[Exception]", errors.HfHubHTTPError.__bases__[0])
    try:
        yield
    except HubError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise HubError(
            f"Could not reach {repo}: HF_HUB_OFFLINE is set; unset it and run again."
        ) from error
    except errors.HfHubHTTPError as error:
        raise HubError(_refusal(error, repo, endpoint, revision)) from error
    except RuntimeError as error:  # from the storage's library, or around what an upload raised
        if isinstance(error.__cause__, (transport, OSError)):
            with hub_errors(repo, endpoint, revision):
                raise error.__cause__ from error
        reason = printable(str(error).partition("\n")[0])
        raise HubError(
            f"The Hub's storage broke off with {repo} ({reason}): run again, it resumes."
        ) from error
    except (transport, OSError) as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC:
            raise HubError("The disk is full: free some and run again; it resumes.") from error
        if number is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            raise
        raise HubError(
            f"Could not reach {repo} at {endpoint} ({type(error).__name__}): check the connection "
            "and run again; it resumes."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(
            f"What {endpoint} answered for {repo} is not of the Hub's form "
            f"({type(error).__name__}): check HF_ENDPOINT and your proxy."
        ) from error


def _refusal(error: Any, repo: str, endpoint: str, revision: str | None) -> str:
    """The error message for an HTTP error."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated: ask for access at {endpoint}/datasets/{repo}, then `hf auth login`."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"There is no dataset repository {repo}, or it is private: check the name, and "
            "`hf auth login` if it is yours."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}: name a branch, a tag or a commit of it."
    code = error.response.status_code
    fix = "try again later, it resumes." if code >= 500 else "check the name."
    return f"The Hub refused {repo} (status {code}): {_REFUSALS.get(code, fix)}"


@contextmanager
def quiet_client() -> Iterator[None]:
    """Switch off the client's bars and warnings, and make it deliver files in small blocks.

    These are settings of the whole process, so enter this context once, in the main thread.  With
    the client's blocks of 10 MB, an interruption would lose more, and progress would be coarse.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    verbosity, block = logging.get_verbosity(), constants.DOWNLOAD_CHUNK_SIZE
    # If the environment controls progress bars, the client warns about other settings.
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    logging.set_verbosity_error()
    constants.DOWNLOAD_CHUNK_SIZE = _BLOCK
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        constants.DOWNLOAD_CHUNK_SIZE = block
        if bars:
            enable_progress_bars()
