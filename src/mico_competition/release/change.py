"""Changes a release that exists: builds the new tree beside it, and moves files into place.

The new tree consists of hard links to the old one, so that only what changes takes space.  It is
checked for leaks before any file moves.  SHA256SUMS moves last: until then the old one describes
the release, and the same change, made again, completes what a killed run began.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from mico_competition.competition.layout import release_folder, walk_challenge
from mico_competition.release.archive_names import archive_name, archives_of
from mico_competition.release.archives import (
    ARCHIVES,
    SUMS_FILE,
    files_of_release,
    read_sums,
    set_time,
    sha256_of,
    write_sums,
)
from mico_competition.release.public_files import write_json
from mico_competition.release.release import RELEASE_FILE, summary, write_archives
from mico_competition.support.files import PUBLIC, make_folder
from mico_competition.support.progress import tracked

Pairs = Collection[tuple[str, str]]  # scenario and phase


def side_of(tree: Path) -> Path:
    """The folder beside a release; ValueError if there is no release `tree`."""
    side = release_folder(tree)
    if not (side / RELEASE_FILE).is_file():
        raise ValueError(f"There is no release {tree} with {side} beside it: release first.")
    return side


def unchanged(tree: Path, changes: Callable[[str, Path | None], bool]) -> dict[str, str]:
    """Name -> SHA-256 of the files of a release that stay.

    Args:
        tree: the released challenge folder.
        changes: whether a file, by its name in SHA256SUMS and its path, is one that the change
            writes or removes, and that a killed run may have written or removed before.

    Raises:
        ValueError: if a file that stays is missing, or is not what SHA256SUMS lists.
    """
    listed, sums = read_sums(release_folder(tree) / SUMS_FILE), {}
    summary_name = f"{release_folder(tree).name}/{RELEASE_FILE}"
    present = dict(files_of_release(tree))
    missing = sorted(name for name in listed.keys() - present.keys() if not changes(name, None))
    if missing:
        raise ValueError(f"{missing[0]} of the release is missing: put back what was released.")
    for name, path in tracked(present.items(), "Checksums", "file"):
        if name == summary_name or changes(name, path):
            continue
        sums[name] = sha256_of(path)
        if sums[name] != listed.get(name):
            raise ValueError(f"{path} is not what was released: put back what SHA256SUMS lists.")
    return sums


def link_release(tree: Path, new: Path) -> Path:
    """Copy a release into the folder `new` by hard links; returns the new challenge folder.

    If the file system has no hard links, files are copied.
    """

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    for folder in (tree, release_folder(tree)):
        shutil.copytree(folder, new / folder.name, copy_function=link)
    return new / tree.name


def describe(
    tree: Path,
    root: Path,
    revealed: Sequence[str],
    sums: Mapping[str, str],
    pairs: Pairs,
    amendments: int,
) -> list[str]:
    """Write release.json, SHA256SUMS and archives anew, beside the new `tree`.

    Args:
        tree: the new challenge folder.
        root: the folder with `<challenge>/...` as training wrote it.
        revealed: the phases whose labels are public.
        sums: the SHA-256, by name, of files that stay.
        pairs: scenario and phase of the archives that change.
        amendments: how many amendments there are.

    Returns:
        The names of the files that were written, or that must go, in the order in which they must
        move.
    """
    side, challenge = release_folder(tree), tree.name
    models = walk_challenge(root / challenge, fix="name the folder that was released.")
    write_json(side / RELEASE_FILE, summary(challenge, models, revealed, amendments))
    fresh = [(name, path) for name, path in files_of_release(tree) if name not in sums]
    write_sums(side, {**sums, **{name: sha256_of(path) for name, path in fresh}})
    zips = _write_archives(side, tree, pairs) if (side / ARCHIVES).is_dir() else []
    return [f"{side.name}/{name}" for name in (*zips, RELEASE_FILE, SUMS_FILE)]


def _write_archives(side: Path, tree: Path, pairs: Pairs) -> list[str]:
    """Write the archives of `pairs` anew; the names, below `side`, of those that change or go.

    They keep their names if these still say which models they hold.
    """
    found = (archive_name(path.name) for path in (side / ARCHIVES).iterdir())
    old = [name for name in found if name and (name.scenario, name.phase) in pairs]
    for name in old:  # it is a link: writing would change the old file
        (side / ARCHIVES / str(name)).unlink()
    models = [model for model in walk_challenge(tree) if (model.scenario, model.phase) in pairs]
    again = {str(name): [model for model in models if name.holds(model)] for name in old}
    if sorted(model for some in again.values() for model in some) != sorted(models) or not all(
        again.values()
    ):
        again = archives_of(models)
    write_archives(side, tree, again)
    return [f"{ARCHIVES}/{name}" for name in (*sorted({*map(str, old), *again}), SUMS_FILE)]


def move(new: Path, to: Path, names: Iterable[str]) -> None:
    """Move files of the new tree into the old one, and reset the times of their folders.

    A file that the new tree lacks is removed from the old one, with folders that become empty.
    """
    try:
        _move(new, to, names)
    except KeyboardInterrupt as stop:
        stop.add_note(f"{to} is changed in part, and the same command completes it")
        raise


def _move(new: Path, to: Path, names: Iterable[str]) -> None:
    folders: dict[Path, None] = {}
    for name in names:
        target = to / name
        folders |= dict.fromkeys(to / parent for parent in Path(name).parents if parent != Path())
        if (new / name).is_file():
            make_folder(target.parent, PUBLIC)
            os.replace(new / name, target)
        else:
            target.unlink(missing_ok=True)
            if target.parent.is_dir() and not any(target.parent.iterdir()):
                target.parent.rmdir()
    for folder in folders:
        if folder.is_dir():
            set_time(folder)
