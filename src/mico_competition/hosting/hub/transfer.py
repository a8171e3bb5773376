"""Downloads files of a repository, and parts of the archives in it, by `huggingface_hub`.

A file appears only when it is complete and has its checksum.  Until then it is beside its place
with the ending `.part`, from which an interrupted download resumes.  Archives are never stored:
their files are not compressed, so that the bytes of a file are a range of the archive's bytes,
and the files that lie together in an archive are requested together.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from mico_competition.hosting.hub.client import HubError, HubFile, WrongFileError, hub_errors

_GAP = 1 << 16  # bytes between two files of an archive for which no second request is made
Wanted = tuple[HubFile, Path]


def fetch_files(
    endpoint: str,
    repo: str,
    commit: str,
    files: Sequence[Wanted],
    on_bytes: Callable[[int], None],
) -> None:
    """Download files, and resume from partial downloads beside them.

    Args:
        endpoint: the Hub's address.
        repo, commit: the repository, and its commit as `list_files` returned it.
        files: each file with the path to write it to.
        on_bytes: called with the length of every block that arrived; it may raise to stop.

    Raises:
        WrongFileError: if the repository lacks a file, or has other content (which is deleted);
            all other files are downloaded.
        HubError: if the connection breaks or the Hub refuses; partial downloads are kept.
    """
    missing = [(file, path) for file, path in files if not file.fits(path)]
    for _, path in missing:
        path.unlink(missing_ok=True)
    wrong: list[WrongFileError] = []
    for run in _runs(missing):
        try:
            _fetch_run(endpoint, repo, commit, run, on_bytes)
        except WrongFileError as error:
            wrong.append(error)
    if wrong:
        raise wrong[0]


def read_bytes(endpoint: str, repo: str, commit: str, file: HubFile, start: int, end: int) -> bytes:
    """The bytes of a file from position `start` to `end`, which must be few.

    Raises:
        WrongFileError: if the repository does not hold them.
        HubError: if the connection breaks or the Hub refuses.
    """
    out = _Memory(end - start)
    with hub_errors(repo, endpoint), suppress(_TooLong):
        _receive(endpoint, repo, commit, file, cast(BinaryIO, out), start, end)
    if len(out.getvalue()) != end - start:
        raise WrongFileError(f"{repo} holds only a part of {file.path}: tell its owner.")
    return out.getvalue()


def _runs(files: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """The files in lists that take one request each."""
    run: list[Wanted] = []
    for file, path in files:
        together = (
            run
            and file.archive is not None
            and file.archive == run[-1][0].archive
            and 0 <= file.start - run[-1][0].end <= _GAP
            and not file.part(path).exists()
        )
        if run and not together:
            yield run
            run = []
        run.append((file, path))
    if run:
        yield run


def _fetch_run(
    endpoint: str, repo: str, commit: str, run: list[Wanted], on_bytes: Callable[[int], None]
) -> None:
    """Download files that follow each other, in one request."""
    source, end = run[0][0].source, run[-1][0].end
    with hub_errors(repo, endpoint):
        out = _Files(repo, run, on_bytes)
        try:
            if out.position < end:
                _receive(endpoint, repo, commit, source, cast(BinaryIO, out), out.position, end)
            out.finish()
        except _TooLong:
            out.finish(whole=False)
        finally:
            out.close()
    if out.wrong:
        raise WrongFileError(
            f"What {repo} sent as {out.wrong[0]} has not the checksum that the Hub lists: it was "
            "deleted; run again, and tell its owner if that does not help."
        )


def _receive(
    endpoint: str, repo: str, commit: str, file: HubFile, out: BinaryIO, start: int, end: int
) -> None:
    """Write the bytes of the file from position `start` to `end` into `out`."""
    from huggingface_hub import errors, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(repo, file.path, repo_type="dataset", revision=commit, endpoint=endpoint)
    # A compressed transfer could not be resumed in the middle.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    part = end < file.size
    if part:
        headers["Range"] = f"bytes=0-{end - 1}"  # the client puts `start` into it
    try:
        http_get(url, out, resume_size=start, headers=headers, expected_size=end if part else None)
    except errors.EntryNotFoundError as error:
        raise WrongFileError(
            f"{repo} lists {file.path} but does not hold it: run again, or tell its owner."
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code != 416:  # the file ends before what the Hub lists
            raise
    except OSError as error:
        if not (part and type(error) is OSError and error.errno is None):
            raise  # otherwise the answer was whole, and shorter than what was asked for


class _TooLong(Exception):
    """A file is longer than the Hub lists."""


class _Memory(io.BytesIO):
    """Bytes in memory, at most `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def write(self, block: bytes) -> int:  # type: ignore[override]
        """Write a block; _TooLong if that makes too many bytes."""
        if self.tell() + len(block) > self._size:
            raise _TooLong
        return super().write(block)


class _Files:
    """An output that distributes the bytes of a source to files, each at its place there.

    `position` is that of the next byte in the source.  `wrong` are the paths of files that did
    not get the content with their checksum.
    """

    def __init__(self, repo: str, files: list[Wanted], on_bytes: Callable[[int], None]) -> None:
        self._repo, self._left, self._on_bytes = repo, list(files), on_bytes
        self._file: BinaryIO | None = None
        self.wrong: list[str] = []
        for file, path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = file.part(path)
            if part.exists() and part.stat().st_size > file.size:
                part.unlink()
        first, path = files[0]
        part = first.part(path)
        self.position = first.start + (part.stat().st_size if part.exists() else 0)

    def write(self, block: bytes) -> int:
        """Write a block into the files that it is of."""
        at, end, taken = self.position, self.position + len(block), 0
        while self._left and self._left[0][0].start < end:
            file, path = self._left[0]
            if end > file.end and file.archive is None:
                raise _TooLong
            if self._file is None:
                self._file = open(file.part(path), "ab")  # noqa: SIM115
            some = block[max(file.start - at, 0) : file.end - at]
            self._file.write(some)
            taken += len(some)
            if end < file.end:
                break
            self._finish_first()
        self.position = end
        self._on_bytes(taken)
        return len(block)

    def finish(self, whole: bool = True) -> None:
        """End the files for which no more bytes come; unless `whole`, they are wrong."""
        while self._left:
            self._finish_first(whole)

    def _finish_first(self, whole: bool = True) -> None:
        """Put the first file into its place, or delete it."""
        file, path = self._left.pop(0)
        part = file.part(path)
        with self._file or open(part, "ab") as out:
            out.flush()
            os.fsync(out.fileno())  # so that a power failure cannot leave an incomplete file
        self._file = None
        if whole and file.fits(part):
            os.replace(part, path)
        else:
            part.unlink()
            self.wrong.append(file.path)

    def close(self) -> None:
        """Close the file that is open; its bytes stay for the next download."""
        if self._file is not None:
            self._file.close()

    def tell(self) -> int:
        """The position of the next byte in the source."""
        return self.position

    def seek(self, position: int) -> int:
        """Refuse, as the client seeks only if it got a whole file where it asked for a part."""
        file, path = self._left[0]
        file.part(path).unlink(missing_ok=True)
        raise HubError(
            f"The server of {self._repo} sends whole files only, and cannot resume {file.path}: "
            "run again; it starts this file anew."
        )
