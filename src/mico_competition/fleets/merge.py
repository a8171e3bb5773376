"""Merges parts of fleets, trained in several places, into one folder as if trained in one.

All parts are checked before anything is written.  The models are copied into a hidden folder beside
the new one, which gets its name when it is whole; so a merge that was killed goes on there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import absolute
from mico_competition.fleets.events import EVENTS_FILE, read_events
from mico_competition.fleets.finished import Stated, hashes, record_files, recorded_files
from mico_competition.fleets.ledger import Ledger, fleet_folder, fleets_in
from mico_competition.fleets.lock import no_fleet
from mico_competition.fleets.merge_checks import Part, faults_between, shared_seeds
from mico_competition.support.files import PRIVATE, write_text, written_aside
from mico_competition.support.locks import lock_file
from mico_competition.support.memory_limits import size_in_words
from mico_competition.support.progress import stage

_READ_BYTES = 1 << 20
_LOCK = "lock"


@dataclass(frozen=True)
class Merged:
    """What became of one scenario.

    Attributes:
        scenario: its name.
        models: the number of models in the merged ledger.
        finished: the number of models that are finished.
        parts: for each folder that has the scenario, the number of finished models in it.
    """

    scenario: str
    models: int
    finished: int
    parts: Mapping[Path, int]


def merge_fleets(
    folders: Sequence[Path],
    out: Path,
    *,
    scenarios: Sequence[str] | None = None,
    link: bool = False,
) -> list[Merged]:
    """Merge the fleets in `folders` into the new folder `out`.

    Args:
        folders: what was given as --out when the parts were trained; nothing is written there.
        out: the folder to write; it must be missing or empty.
        scenarios: which to merge; by default all that a folder has a ledger of.
        link: make hard links instead of copies, where the file system and the files' permissions
            allow it.

    Raises:
        ValueError: with all faults, before anything is written; or if a fleet is at work.
    """
    folders, out = [Path(folder) for folder in folders], absolute(out)
    out = out.resolve() if out.is_symlink() else out
    _check_folders(folders, out)
    having = _folders_of(folders, scenarios)
    with ExitStack() as locks:
        for name, places in having.items():
            for folder in places:
                locks.enter_context(no_fleet(fleet_folder(folder, name)))
        parts = _checked(having)
        _check_space(parts, out, link)
        whole = out.parent / f".{out.name}.merging"
        lock = lock_file(whole / _LOCK)
        if lock is None:
            raise ValueError(f"Another merge into {out} is at work: wait for it, or stop it.")
        with lock:
            merged = {name: _merged_ledger(some, whole) for name, some in parts.items()}
            _begin(merged, whole, out)
            models = sum(len(_sources(some)) for some in parts.values())
            with stage("Copying models", models, "model") as shown:
                for name, some in parts.items():
                    _take(merged[name], some, link, shown.update)
            for name, some in parts.items():
                _write_events(merged[name], some)
            (whole / _LOCK).unlink()
            os.rename(whole, out)
    return [
        Merged(
            name,
            len(merged[name].entries),
            len(_sources(some)),
            {part.folder: len(part.files) for part in some},
        )
        for name, some in parts.items()
    ]


def _check_folders(folders: Sequence[Path], out: Path) -> None:
    """ValueError unless there are two folders or more, each once, and `out` is apart and free."""
    if len(folders) < 2:
        raise ValueError("Name two folders or more that `mico fleet` wrote into.")
    real = [folder.resolve() for folder in folders]
    for number, folder in enumerate(real):
        if folder in real[:number]:
            raise ValueError(f"{folders[number]} is named twice: name each folder once.")
        if out.resolve().is_relative_to(folder) or folder.is_relative_to(out.resolve()):
            raise ValueError(
                f"{out} and {folders[number]} lie in each other: choose another --out."
            )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out} exists already, and a merge never changes what is there: choose another --out."
        )


def _folders_of(folders: Sequence[Path], scenarios: Sequence[str] | None) -> dict[str, list[Path]]:
    """The folders that have each scenario; ValueError if a folder, or a scenario, has none."""
    found = {folder: fleets_in(folder) for folder in folders}
    for folder, names in found.items():
        if not names:
            raise ValueError(
                f"There is no fleet in {folder}: name a folder that was given as --out."
            )
    having: dict[str, list[Path]] = {}
    for name in sorted(scenarios or {name for names in found.values() for name in names}):
        having[name] = [folder for folder, names in found.items() if name in names]
        if not having[name]:
            places = " or ".join(map(str, folders))
            raise ValueError(f"There is no fleet of {name} in {places}: leave it out.")
    return having


def _checked(having: Mapping[str, Sequence[Path]]) -> dict[str, list[Part]]:
    """The parts of each scenario, whole and fitting together; ValueError with all faults."""
    faults: list[str] = []
    parts: dict[str, list[Part]] = {}
    with stage("Checking models", None, "model") as shown:
        for name, folders in having.items():
            for folder in folders:
                part, found = Part.read(folder, name, shown.update)
                faults += [f"{name}: {fault}" for fault in found]
                if part is not None:
                    parts.setdefault(name, []).append(part)
    for name, some in parts.items():
        faults += [f"{name}: {fault}" for fault in faults_between(some)]
    faults += shared_seeds(part for some in parts.values() for part in some)
    if faults:
        head = "These fleets do not fit together, and nothing was written:"
        raise ValueError("\n".join([head, *(f"  {fault}" for fault in faults)]))
    return parts


def _sources(parts: Sequence[Part]) -> dict[int, Part]:
    """The part from which each finished model is taken, by id; the first that has it."""
    sources: dict[int, Part] = {}
    for part in parts:
        for model_id in part.files:
            sources.setdefault(model_id, part)
    return dict(sorted(sources.items()))


def _merged_ledger(parts: Sequence[Part], out: Path) -> Ledger:
    """The ledger of all parts, in `out`."""
    entries = {model_id: entry for part in parts for model_id, entry in part.entries.items()}
    stated = next((p.ledger.stated for p in parts if p.ledger.stated is not None), None)
    ordered = tuple(entry for _, entry in sorted(entries.items()))
    return replace(parts[0].ledger, out=out, entries=ordered, stated=stated)


def _check_space(parts: Mapping[str, Sequence[Part]], out: Path, link: bool) -> None:
    """ValueError if the disk of `out` has no room for the copies."""
    if link:
        return
    there = next(folder for folder in out.parents if folder.exists())
    needed = 0
    for some in parts.values():
        for model_id, part in _sources(some).items():
            needed += sum(file["size"] for file in part.files[model_id].values())
    begun = out.parent / f".{out.name}.merging"
    needed -= sum(path.stat().st_size for path in begun.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ValueError(
            f"The copies need {size_in_words(needed)}, and {there} has {size_in_words(free)} free: "
            "make room, choose another --out, or give --link if the parts are on that disk."
        )


def _begin(merged: Mapping[str, Ledger], whole: Path, out: Path) -> None:
    """Write the ledgers, or find those of a merge of the same parts that was killed."""
    for name in {*fleets_in(whole), *merged}:
        there = Ledger.read(whole, name)
        if there is not None and there != merged.get(name):
            raise ValueError(
                f"{whole} holds the beginning of another merge into {out}: remove that folder, or "
                "choose another --out."
            )
    for ledger in merged.values():
        ledger.write()


def _take(ledger: Ledger, parts: Sequence[Part], link: bool, seen: Callable[[], object]) -> None:
    """Copy the finished models into the merged fleet, except for those that an earlier try did."""
    recorded = recorded_files(ledger)
    for model_id, part in _sources(parts).items():
        folder, files = ledger.folder_of(model_id), part.files[model_id]
        if not (folder.is_dir() and hashes(recorded.get(model_id, {})) == hashes(files)):
            shutil.rmtree(folder, ignore_errors=True)
            with written_aside(folder, durable=True, access=PRIVATE) as aside:
                aside.mkdir()
                written = _copied(part.ledger.folder_of(model_id), files, aside, link)
            record_files(ledger, model_id, written)
        seen()


def _copied(source: Path, files: Stated, target: Path, link: bool) -> Stated:
    """Copy the files of a model; their sizes, times and hashes.

    Raises:
        ValueError: if one is not the file that was checked any more.
    """
    written: Stated = {}
    for name, file in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        state = (source / name).stat()
        if not (link and _linked(source / name, target / name)):
            if _copy(source / name, target / name) != file["sha256"]:
                raise ValueError(
                    f"{source / name} was changed while it was copied: give the same command again."
                )
            os.utime(target / name, ns=(state.st_atime_ns, state.st_mtime_ns))
        times = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
        written[name] = {**times, "sha256": file["sha256"]}
    return written


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link, if that is possible and changes no permissions; whether it was made."""
    state = source.lstat()
    if not stat.S_ISREG(state.st_mode) or stat.S_IMODE(state.st_mode) != PRIVATE.file:
        return False
    with suppress(OSError):  # another disk, or a file system without links
        os.link(source, target)
        return True
    return False


def _copy(source: Path, target: Path) -> str:
    """Copy a file; the SHA-256, in hex, of what was read."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "xb") as writer:
        while block := reader.read(_READ_BYTES):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def _write_events(ledger: Ledger, parts: Sequence[Part]) -> None:
    """Write what happened in all parts by time, and that they were merged: a run that is over."""
    events: dict[str, dict[str, Any]] = {}
    for part in parts:
        events |= {json.dumps(event): event for event in read_events(part.ledger.folder)}
    now = round(time.time(), 3)
    ordered = [*sorted(events.values(), key=lambda event: event["time"])]
    done = len(_sources(parts))
    ordered.append({"time": now, "event": "run", "models": 0, "at_once": 0, "merged": len(parts)})
    ordered.append({"time": now, "event": "end", "done": done, "failed": 0, "stopped": False})
    text = "".join(f"{json.dumps(event)}\n" for event in ordered)
    write_text(ledger.folder / EVENTS_FILE, text, access=PRIVATE)
