"""The files of finished models as they were when they were finished, so that damage is noticed.

files.jsonl beside the ledger has a line for each model: size, time and SHA-256 of each of its
files.  It is its owner's alone, as the ledger is: hashes of short secrets can be searched.
A model has no line yet only if its fleet was stopped just after the model was finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import (
    METADATA_FILE,
    SEED_FILES,
    SOLUTION_FILE,
    Task,
    get_scenario,
    get_task,
)
from mico_competition.fleets.events import is_number, last_run, read_events
from mico_competition.fleets.ledger import Entry, Ledger, append_line, fleets_in
from mico_competition.models.architectures import load_model
from mico_competition.release.whole import constant_weight
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import parse_json

_FILES = "files.jsonl"
_READ_BYTES = 1 << 20

Stated = dict[str, dict[str, Any]]


def record_files(ledger: Ledger, model_id: int) -> None:
    """Write down the files of a model that has just been finished."""
    found = {}
    for path in sorted(ledger.place(model_id).rglob("*")):
        if path.is_file():
            state = path.stat()
            name = str(path.relative_to(ledger.place(model_id)))
            times = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
            found[name] = {**times, "sha256": _sha256(path)}
    append_line(ledger.folder / _FILES, json.dumps({"model_id": model_id, "files": found}))


def damage(
    ledger: Ledger,
    *,
    verify: bool = False,
    write: bool = False,
    seen: Callable[[], object] = lambda: None,
) -> dict[int, str]:
    """What is wrong with models whose folders are there, by id.

    Args:
        ledger: its models are looked at.
        verify: hash every file, and load models that were never written down; by default a file
            is hashed only if its time has changed, and the others' sizes are looked at.
        write: write down whole models that were not, and new times of files that were copied;
            only with `verify`.
        seen: is called for each model that was looked at.
    """
    stated = _read(ledger.folder / _FILES)
    task, found, done = get_task(ledger.settings.task), {}, ledger.done()
    lost = _lost(ledger, done - stated.keys())
    for entry in ledger.entries:
        model_id = entry.model_id
        if model_id not in done:
            continue
        place = ledger.place(model_id)
        if model_id in stated:
            fault = _difference(place, stated[model_id], verify)
        else:
            fault = _missing(place, task) or (_why(place, entry) if model_id in lost else None)
            if fault is None and verify:
                fault = _unreadable(place, task) or _twin(place, task, stated)
        if fault is not None:
            found[model_id] = fault
        elif verify and write and _is_news(place, stated.get(model_id), entry):
            record_files(ledger, model_id)
        seen()
    return found


def unwritten(ledger: Ledger) -> set[int]:
    """The models whose folders are there, and of which files.jsonl has no line."""
    return ledger.done() - _read(ledger.folder / _FILES).keys()


def _lost(ledger: Ledger, without: set[int]) -> set[int]:
    """Of the models whose folders are there without a line, those that had one.

    That is all of which events.jsonl says that they were done; and all the others unless the last
    run was stopped, with no more of them than it had in work at once.
    """
    if ledger.architecture_fingerprint is None:  # of an earlier version, which wrote no lines
        return set()
    events = read_events(ledger.folder)
    lost = without & {e["model_id"] for e in events if e["event"] == "done"}
    run = last_run(events)
    stopped = bool(run) and (run[-1]["event"] != "end" or run[-1].get("stopped") is True)
    at_once: Any = run[0].get("at_once", run[0].get("models")) if stopped else 0
    if not is_number(at_once) or len(without - lost) > at_once:
        return without
    return lost


def check_finished(ledger: Ledger, **options: Any) -> None:
    """ValueError naming every finished model of a fleet whose files are not what they were."""
    found = damage(ledger, verify=True, write=True, **options)
    if found:
        raise ValueError("\n".join([_HEAD.format(ledger.folder), *listed(found)]))


def check_fleets(root: PathLike, challenge: str) -> None:
    """The same for all fleets of `challenge` below `root`, in one listing."""
    lines = []
    for name in fleets_in(root):
        if get_scenario(name).challenge == challenge:
            ledger = Ledger.read(root, name)
            assert ledger is not None
            lines += [f"  {name}/{line.strip()}" for line in listed(damage(ledger, verify=True))]
    if lines:
        raise ValueError("\n".join([_HEAD.format(Path(root) / "fleet"), *lines]))


_HEAD = (
    "Finished models are not what the fleet in {} wrote: put back copies of their folders, or move "
    "the folders away and run the fleet again, which trains these models anew."
)
_LOST = (
    f"its line in {_FILES} is lost, so that nothing says whether its files are those that were "
    f"trained (put back a copy of {_FILES})"
)


def _why(place: Path, entry: Entry) -> str:
    """What is wrong with a model without a line that should have one."""
    try:
        ours = read_seeds(place) == entry.seeds
    except ValueError:
        ours = True
    return _LOST if ours else "it does not have the seeds of the ledger: another run trained it"


def listed(found: dict[int, str]) -> list[str]:
    """A line for each damaged model."""
    return [f"  model_{model_id}: {fault}" for model_id, fault in sorted(found.items())]


def _read(path: Path) -> dict[int, Stated]:
    """What files.jsonl says of each model, the last line first; odd lines count as none."""
    found: dict[int, Stated] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        try:
            row = parse_json(line)
            values = {
                name: {"size": file["size"], "mtime_ns": file["mtime_ns"], "sha256": file["sha256"]}
                for name, file in row["files"].items()
            }
            found[int(row["model_id"])] = values
        except (ValueError, OverflowError, KeyError, TypeError, AttributeError):
            continue
    return found


def _difference(place: Path, stated: Stated, verify: bool) -> str | None:
    """How the files in `place` differ from what was written down of them."""
    faults = []
    for name, file in stated.items():
        path = place / name
        if not path.is_file():
            faults.append(f"{name} is missing")
            continue
        state = path.stat()
        if state.st_size != file["size"]:
            size = f"has {state.st_size} bytes instead of {file['size']}"
            faults.append(f"{name} {size if state.st_size else 'is empty'}")
        elif (verify or state.st_mtime_ns != file["mtime_ns"]) and _sha256(path) != file["sha256"]:
            faults.append(f"{name} has other content")
    return ", ".join(faults) or None


def _is_news(place: Path, stated: Stated | None, entry: Entry) -> bool:
    """Whether a whole model was never written down, or its files were copied since."""
    if stated is None:  # its fleet was killed just after it was finished
        return read_seeds(place) == entry.seeds
    return any((place / n).stat().st_mtime_ns != f["mtime_ns"] for n, f in stated.items())


def _missing(place: Path, task: Task) -> str | None:
    """Which of the files that every model has are not there, or empty."""
    faults = []
    for names in (*task.weights, *SEED_FILES, SOLUTION_FILE, METADATA_FILE):
        paths = [place / name for name in names.split("|") if (place / name).is_file()]
        if not paths:
            faults.append(f"{names.split('|')[0]} is missing")
        elif not paths[0].stat().st_size:
            faults.append(f"{paths[0].name} is empty")
    return ", ".join(faults) or None


def _unreadable(place: Path, task: Task) -> str | None:
    try:
        read_seeds(place)
        read_solution(place)
        return constant_weight(load_model(task.name, place).state_dict())
    except ValueError as error:
        return str(error)


def _twin(place: Path, task: Task, stated: Mapping[int, Stated]) -> str | None:
    """Which model has the same weights, by what was written down."""
    path = next(place / n for n in task.weights[-1].split("|") if (place / n).is_file())
    digest = _sha256(path)
    for model_id, files in stated.items():
        if any(file["sha256"] == digest for file in files.values()):
            return f"{path.name} is that of model_{model_id}"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
