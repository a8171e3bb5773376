"""Downloads a file by http or https, resumes interrupted downloads, and checks the checksum.

The file is written to `<file>.part`, from which a later call resumes, and gets its final name only
once it is complete and its checksum is right.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage

TIMEOUT_SECONDS = 30
LARGEST = 16 << 30
_BLOCK = 1 << 20


class MissingDataError(FileNotFoundError, ValueError):
    """There is no copy of the data in the expected folders."""


class DownloadError(OSError, ValueError):
    """A file could not be downloaded, or is not the expected file."""


def download(
    url: str,
    path: PathLike,
    *,
    md5: str | None = None,
    sha256: str | None = None,
) -> Path:
    """Download `url` to `path`, resuming from `<path>.part` if an earlier call left it.

    Args:
        url: an http or https address.
        path: the file to write; its folder is created if needed, an existing file is replaced.
        md5, sha256: checksums, in hex, that the complete file must have.

    Returns:
        `path`, which is complete.

    Raises:
        ValueError: if `url` has another scheme.
        DownloadError: if the server cannot be reached, refuses, or closes the connection early
            (the next call then resumes), or if a checksum is wrong (the part is then deleted).
    """
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"Cannot download {url}: only http and https addresses are fetched.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _fetch(url, part, path)
    for algorithm, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None:
            _check(url, part, algorithm, expected)
    os.replace(part, path)
    return path


def _fetch(url: str, part: Path, path: Path) -> None:
    """Download until `part` is complete."""
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "mico_competition"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as response:
            _receive(response, url, part, offset)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:
            # The server has nothing beyond `offset`: `part` is complete, or of another file.
            if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
                return
            part.unlink()
            _fetch(url, part, path)
            return
        raise DownloadError(
            f"Could not download {url}: the server answered {error.code} {error.reason}; "
            f"fetch the file by hand and put it at {path}."
        ) from error
    except urllib.error.URLError as error:
        raise DownloadError(
            f"Could not download {url} ({error.reason}): check the connection and run again, or "
            f"put the file at {path} by hand."
        ) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _interrupted(url, part, f"{type(error).__name__}: {error}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Like urllib's own opener, without its handlers for file:, ftp: and data: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _receive(response: Any, url: str, part: Path, offset: int) -> None:
    """Write the body of `response` to `part`, from `offset` if the server agreed to that."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not (response.status == 206 and start and int(start.group(1)) == offset):
        offset = 0  # the server ignored the range and sends the whole file
    length = response.headers.get("Content-Length")
    total = offset + int(length) if length is not None else None
    have = offset
    shown = stage(part.stem, total, "B", initial=offset)
    with shown as received, open(part, "ab" if offset else "wb") as file:
        while block := response.read(_BLOCK):
            have += len(block)
            if have > LARGEST:
                raise DownloadError(
                    f"{url} sends more than {LARGEST:,} bytes: fetch the file from elsewhere."
                )
            file.write(block)
            received.update(len(block))
    if total is not None and have < total:
        raise _interrupted(url, part, f"{have:,} of {total:,} bytes arrived")


def _interrupted(url: str, part: Path, why: str) -> DownloadError:
    return DownloadError(
        f"The download of {url} was interrupted ({why}): run again to resume from {part}."
    )


def _check(url: str, part: Path, algorithm: str, expected: str) -> None:
    """Delete `part` and raise if its checksum is not `expected`."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(part, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        part.unlink()
        raise DownloadError(
            f"What {url} sent has {algorithm} {digest.hexdigest()}, not {expected}: it was "
            "deleted; run again, or fetch the file from elsewhere."
        )
