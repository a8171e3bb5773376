"""Adds the labels of a finished phase to an existing release.

All files stay as they are, byte for byte, except release.json, SHA256SUMS and the archives of the
phase.  The new tree, made of hard links to the old one, is checked for leaks before any file moves.
If the process is killed while files move, running it again completes the work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mico_competition.competition.layout import release_folder, walk_challenge
from mico_competition.competition.table import SCORED_PHASES
from mico_competition.release.archive_names import archive_name
from mico_competition.release.archives import (
    ARCHIVES,
    SUMS_FILE,
    files_below,
    files_of_release,
    read_sums,
    set_time,
    settle,
    sha256_of,
    write_sums,
)
from mico_competition.release.check_files import read_summary
from mico_competition.release.commitments import only_release
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.public_files import write_json
from mico_competition.release.release import (
    NOT_TRAINED,
    RELEASE_FILE,
    refuse_leaks,
    summary,
    write_archives,
)
from mico_competition.release.reveal import (
    as_text,
    files_in,
    reveal,
    revealed_file,
    verify,
)
from mico_competition.support.files import PathLike, named_if_full, write_text
from mico_competition.support.progress import tracked
from mico_competition.support.scratch import scratch


def add_labels(root: PathLike, challenge: str, to: PathLike, phase: str) -> int:
    """Add the labels and seeds of `phase` to the release `<to>/<challenge>`.

    Args:
        root: the folder with `<challenge>/...` as training wrote it, and the openings of the
            release.
        challenge: the name of the challenge.
        to: the folder that the challenge was released to.
        phase: the phase to reveal, "dev" or "final".

    Returns:
        The number of models whose labels are now public.

    Raises:
        ValueError: if there is no such release, if its files do not match its SHA256SUMS, if the
            labels are not those that it commits to, or if the leak check finds more than the
            labels of revealed phases.  Then nothing is changed.
    """
    tree = Path(to) / challenge
    side = release_folder(tree)
    if not (side / RELEASE_FILE).is_file():
        raise ValueError(f"There is no release {tree} with {side} beside it: release first.")
    with (
        only_release(root, challenge),
        scratch(to, f".{challenge}.aside") as aside,
        named_if_full(to, aside),
    ):
        revealed = reveal(root, challenge, phase)
        file = aside / revealed_file(phase)
        write_text(file, as_text(revealed))
        count, faults = verify(tree, file)
        if faults:
            raise ValueError(f"{tree} is not the release of these models: {faults[0]}")
        added = {f"{challenge}/{name}": text for name, text in files_in(revealed)}
        added[f"{side.name}/{file.name}"] = as_text(revealed)
        sums = _unchanged(tree, added)
        phases = {*read_summary(tree)["revealed"], phase}
        new = aside / "new"
        _link_tree(tree, new / challenge)
        _link_tree(side, new / side.name)
        for name, text in added.items():
            write_text(new / name, text)
        _describe(new / challenge, Path(root), sorted(phases, key=SCORED_PHASES.index), sums, phase)
        settle(new)
        found = check_release(new, root, [challenge], revealed=phases, checked=sums, links=2)
        refuse_leaks(challenge, found)
        _move(new, Path(to), [*added, *_changed(side, phase)])
    return count


def _unchanged(tree: Path, added: Mapping[str, str]) -> dict[str, str]:
    """Name -> SHA-256 of the files of a release that stay; ValueError if one has changed.

    Files that a killed run has already added are among `added`.
    """
    listed, sums = read_sums(release_folder(tree) / SUMS_FILE), {}
    summary_name = f"{release_folder(tree).name}/{RELEASE_FILE}"
    present = dict(files_of_release(tree))
    if missing := sorted(listed.keys() - present.keys()):
        raise ValueError(f"{missing[0]} of the release is missing: put back what was released.")
    for name, path in tracked(present.items(), "Checksums", "file"):
        if name == summary_name or (name in added and path.read_bytes() == added[name].encode()):
            continue
        sums[name] = sha256_of(path)
        if sums[name] != listed.get(name):
            raise ValueError(f"{path} is not what was released: put back what SHA256SUMS lists.")
    return sums


def _link_tree(source: Path, target: Path) -> None:
    """Copy a tree by hard links, or by copies if the file system has no hard links."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=link)


def _describe(
    tree: Path, root: Path, phases: Sequence[str], sums: dict[str, str], phase: str
) -> None:
    """Write release.json, SHA256SUMS and the phase's archives anew, beside the new `tree`."""
    side, challenge = release_folder(tree), tree.name
    write_json(
        side / RELEASE_FILE,
        summary(challenge, walk_challenge(root / challenge, fix=NOT_TRAINED), phases),
    )
    fresh = [(name, path) for name, path in files_of_release(tree) if name not in sums]
    write_sums(side, {**sums, **{name: sha256_of(path) for name, path in fresh}})
    if (side / ARCHIVES).is_dir():
        models = walk_challenge(tree)
        again = {}
        for name in _archives(side, phase):
            (side / ARCHIVES / name).unlink()  # it is a link: writing would change the old file
            holds = archive_name(name)
            again[name] = [model for model in models if holds and holds.holds(model)]
        write_archives(side, tree, again)


def _archives(side: Path, phase: str) -> list[str]:
    """The names of the archives of a phase, if the release has any."""
    names = files_below(side / ARCHIVES) if (side / ARCHIVES).is_dir() else []
    parsed = {name: archive_name(name) for name in names}
    return [name for name, holds in parsed.items() if holds and holds.phase == phase]


def _changed(side: Path, phase: str) -> list[str]:
    """The names of the files to replace, in the order of replacement."""
    zips = _archives(side, phase)
    names = [f"{ARCHIVES}/{name}" for name in ([*zips, SUMS_FILE] if zips else [])]
    return [f"{side.name}/{name}" for name in (*names, RELEASE_FILE, SUMS_FILE)]


def _move(new: Path, to: Path, names: Sequence[str]) -> None:
    """Move files of the new tree into the old one, and reset the times of their folders."""
    for name in names:
        os.replace(new / name, to / name)
    for folder in {(to / name).parent for name in names}:
        set_time(folder)
