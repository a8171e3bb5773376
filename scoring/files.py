"""Lists folders and reads small text files of an untrusted submission.

The functions raise no errors for what they find, do not follow links or wait for pipes, and read
only a bounded part of a folder or file.  Quoted text goes through `printable`.  Only failures of
the machine (of its disk, or too many open files) are raised, as an OSError, because the submission
is not at fault.
"""

import errno
import os
import stat
from typing import Iterable, List, NamedTuple, Optional, Tuple

from .printable import shown

__all__ = ["Listing", "few", "list_folder", "read_text", "shown"]

MAX_BYTES = 1_000_000
MAX_ENTRIES = 10_000

HOSTS_ERRORS = (
    *(errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS),
    *(getattr(errno, name, errno.EIO) for name in ("EDQUOT", "ESTALE")),
)
"""Numbers of errors that are this machine's fault, whatever file they are met with."""

IGNORED = ("__MACOSX",)
"""Folders that operating systems leave behind; so are all names with a leading dot."""


class Listing(NamedTuple):
    """The content of a folder; `folders` is None, and `problem` says why, if it is unknown."""

    folders: Optional[List[str]]
    files: List[str]
    problem: str = ""


def _raise_if_hosts(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno in HOSTS_ERRORS:
        raise error


def few(names: Iterable[str]) -> str:
    """Names as a short phrase: "a, b, c and 47 more"."""
    ordered = sorted(names, key=lambda name: (len(name), name))
    phrase = ", ".join(ordered[:3])
    return phrase if len(ordered) <= 3 else "%s and %d more" % (phrase, len(ordered) - 3)


def list_folder(path: str) -> Listing:
    """The sorted names of the subfolders and of the files of `path`.

    Links count as files.  Names with a leading dot and `__MACOSX`, which operating systems and
    platforms create, are left out.
    """
    folders: List[str] = []
    files: List[str] = []
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return Listing(None, [], "is missing or not a folder")
        with os.scandir(path) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_ENTRIES:
                    # Half a listing would call the other half missing.
                    return Listing(None, [], "holds over %d files and folders" % MAX_ENTRIES)
                if entry.name.startswith(".") or entry.name in IGNORED:
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                (folders if is_folder else files).append(entry.name)
    except FileNotFoundError:
        return Listing(None, [], "is missing or not a folder")
    except (OSError, ValueError) as error:
        _raise_if_hosts(error)
        return Listing(None, [], "cannot be opened")
    return Listing(sorted(folders), sorted(files))


def read_text(path: str) -> Tuple[Optional[str], str]:
    """The text of a small regular file, or None and what is wrong with it."""
    # Without O_NONBLOCK the program would wait for a named pipe for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        # Asked first, as opening alone is enough to make some devices act.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None, "is not a regular file; links and folders are not read"
        with os.fdopen(os.open(path, flags), "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None, "is missing"
    except (OSError, ValueError) as error:
        _raise_if_hosts(error)
        return None, "cannot be read"
    if len(content) > MAX_BYTES:
        return None, "is larger than the %d bytes that are read" % MAX_BYTES
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return None, "is not text in UTF-8"
