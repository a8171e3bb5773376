"""A competition to start from: its file and its module, written into a folder of the user's."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from mico_competition.support.files import PathLike, make_folder, written_aside

FILES = {"competition.toml": "start.toml", "my_competition.py": "start.py"}


def init(folder: PathLike) -> list[Path]:
    """Write competition.toml and my_competition.py into `folder`, which is made if it is missing.

    Returns:
        The two files.

    Raises:
        ValueError: if one of them is there already; nothing is written then.
    """
    paths = [Path(folder) / name for name in FILES]
    for path in paths:
        if path.exists() or path.is_symlink():
            raise ValueError(f"{path} exists already: name another folder, or move it away.")
    make_folder(folder)
    for path in paths:
        text = (files(__package__) / FILES[path.name]).read_bytes()
        with written_aside(path) as aside:
            aside.write_bytes(text)
    return paths
