"""Where an error came from in the user's own code: a competition's modules, or an attack's file."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

from mico_competition.scoring.printable import printable

_LIBRARIES = {"site-packages", "dist-packages"}
_NOT_OWN = (
    Path(__file__).resolve().parents[1],
    Path(printable.__code__.co_filename).resolve().parent,  # the scoring program is elsewhere
    Path(sysconfig.get_path("stdlib")).resolve(),
)

_folder: Path | None = None


def own_code_in(folder: Path | None) -> None:
    """Take the code in `folder`, that of the competition in use, for the user's own."""
    global _folder
    _folder = folder


def own_frame(error: BaseException, folder: Path | None = None) -> traceback.FrameSummary | None:
    """The last line of the user's own code that `error` passed through; None if there is none.

    Args:
        error: an error with its traceback.
        folder: holds the code; by default the folder of the competition in use.
    """
    folder = folder or _folder
    if folder is None:
        return None
    folder = Path(os.path.realpath(folder))
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((f for f in frames if _is_own(Path(f.filename), folder)), None)


def _is_own(file: Path, folder: Path) -> bool:
    """Whether a file lies in `folder` and is no library, since an environment may lie there too."""
    file = Path(os.path.realpath(file))
    if not file.is_relative_to(folder) or _LIBRARIES & set(file.relative_to(folder).parts):
        return False
    return file.is_file() and not any(file.is_relative_to(place) for place in _NOT_OWN)
