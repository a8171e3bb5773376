"""Detects damage to finished models: records their files, and compares them later.

files.jsonl, beside the ledger, has a line for each finished model with the size, time and SHA-256
of each of its files; the last line of a model counts.  Only its owner can read it, because short
secrets can be found from their hashes.  A model lacks its line only if the fleet was stopped just
after finishing it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
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
from mico_competition.fleets.events import RENEWED, is_number, last_run, read_events
from mico_competition.fleets.ledger import Entry, Ledger, append_line, fleets_in
from mico_competition.models.architectures import load_model
from mico_competition.release.whole import constant_weight
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import parse_json

_FILES = "files.jsonl"
_READ_BYTES = 1 << 20

Stated = dict[str, dict[str, Any]]


def record_files(ledger: Ledger, model_id: int, files: Stated | None = None) -> None:
    """Add the line of a model that has just been finished; `files` saves reading its files."""
    files = files_in(ledger.folder_of(model_id)) if files is None else files
    append_line(ledger.folder / _FILES, json.dumps({"model_id": model_id, "files": files}))


def forget_files(ledger: Ledger, model_id: int) -> None:
    """Make the line of a model that will be trained anew count no more."""
    append_line(ledger.folder / _FILES, json.dumps({"model_id": model_id, "files": None}))


def files_in(folder: Path) -> Stated:
    """The size, time and SHA-256 of each file in a model's folder, by its name there."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = path.stat()
            times = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
            files[str(path.relative_to(folder))] = {**times, "sha256": _sha256(path)}
    return files


def recorded_files(ledger: Ledger) -> dict[int, Stated]:
    """What files.jsonl says of each model; lines that cannot be read are skipped."""
    return _read(ledger.folder / _FILES)


def damage(
    ledger: Ledger,
    *,
    verify: bool = False,
    write: bool = False,
    seen: Callable[[], object] = lambda: None,
) -> dict[int, str]:
    """Find the faults of the models whose folders exist.

    Args:
        ledger: the fleet to check.
        verify: hash every file, and load models that have no line; by default only files whose
            time has changed are hashed, and of the others the size is compared.
        write: add missing lines of intact models, and the new times of files that were copied;
            only with `verify`.
        seen: is called after each model that was checked.

    Returns:
        A description of the damage for each damaged model, by id.
    """
    stated = recorded_files(ledger)
    task, faults, done = get_task(ledger.settings.task), {}, ledger.done()
    lost = _lost(ledger, done - stated.keys())
    for entry in ledger.entries:
        model_id = entry.model_id
        if model_id not in done:
            continue
        folder = ledger.folder_of(model_id)
        if model_id in stated:
            fault = _difference(folder, stated[model_id], verify) or _missing(folder, task)
        else:
            fault = _missing(folder, task) or (_why(folder, entry) if model_id in lost else None)
            if fault is None and verify:
                fault = _unreadable(folder, task) or _foreign(folder, entry)
                fault = fault or _twin(folder, task, stated)
        if fault is not None:
            faults[model_id] = fault
        elif verify and write and _needs_line(folder, stated.get(model_id), entry):
            record_files(ledger, model_id)
        seen()
    return faults


def unwritten(ledger: Ledger) -> set[int]:
    """The models whose folders exist but which have no line in files.jsonl."""
    return ledger.done() - recorded_files(ledger).keys()


def _lost(ledger: Ledger, without: set[int]) -> set[int]:
    """The models, of those that have a folder but no line, whose line must have been deleted.

    A model's line was deleted if events.jsonl says that the model was done.  So were the lines of
    the others, unless the last run was stopped and they are no more than it trained at once.
    """
    events = read_events(ledger.folder)
    done = {e["model_id"]: e["event"] == "done" for e in events if e["event"] in ("done", RENEWED)}
    lost = {model_id for model_id in without if done.get(model_id)}
    run = last_run(events)
    stopped = bool(run) and (run[-1]["event"] != "end" or run[-1].get("stopped") is True)
    at_once: Any = run[0].get("at_once", run[0].get("models")) if stopped else 0
    if not is_number(at_once) or len(without - lost) > at_once:
        return without
    return lost


def check_finished(ledger: Ledger, **options: Any) -> None:
    """Raise ValueError with a list of the finished models whose files have changed."""
    faults = damage(ledger, verify=True, write=True, **options)
    if faults:
        raise ValueError("\n".join([_HEAD.format(ledger.folder), *listed(faults)]))


def check_fleets(root: PathLike, challenge: str, *, amended: Collection[str] = ()) -> None:
    """Do the same as `check_finished` for all fleets of `challenge` below `root`, in one list.

    Models in `amended`, by their relative paths, were replaced after the fleet had trained them.
    """
    lines = []
    for name in fleets_in(root):
        if get_scenario(name).challenge == challenge:
            ledger = Ledger.read(root, name)
            assert ledger is not None
            found = damage(ledger, verify=True)
            faults = {i: fault for i, fault in found.items() if _path_of(ledger, i) not in amended}
            lines += [f"  {name}/{line.strip()}" for line in listed(faults)]
    if lines:
        raise ValueError("\n".join([_HEAD.format(Path(root) / "fleet"), *lines]))


def _path_of(ledger: Ledger, model_id: int) -> str:
    """`<scenario>/<phase>/model_<i>` of a model."""
    return "/".join(ledger.folder_of(model_id).parts[-3:])


_HEAD = (
    "Finished models are not what the fleet in {} wrote: put back copies of their folders, or move "
    "the folders away and run the fleet again, which trains these models anew."
)
_LOST = (
    f"its line in {_FILES} is lost, so nothing shows whether its files are those that were "
    f"trained (put back a copy of {_FILES})"
)


def _why(folder: Path, entry: Entry) -> str:
    """Why a model that should have a line has none."""
    try:
        return _foreign(folder, entry) or _LOST
    except ValueError:
        return _LOST


def _foreign(folder: Path, entry: Entry) -> str | None:
    """That a model is not that of its entry, if it is not; ValueError if it has no seeds."""
    if read_seeds(folder) == entry.seeds:
        return None
    return (
        "it does not have the seeds of the ledger: another run trained it, or `mico fleet "
        "--new_seeds` was stopped (then give that command again)"
    )


def listed(faults: dict[int, str]) -> list[str]:
    """A line of text for each damaged model."""
    return [f"  model_{model_id}: {fault}" for model_id, fault in sorted(faults.items())]


def hashes(files: Stated) -> dict[str, str]:
    """The SHA-256 of each file, by its name."""
    return {name: file["sha256"] for name, file in files.items()}


def _read(path: Path) -> dict[int, Stated]:
    """The last line of files.jsonl for each model; lines that cannot be read are skipped."""
    stated: dict[int, Stated] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        try:
            row = parse_json(line)
            if row["files"] is None:
                stated.pop(int(row["model_id"]), None)
                continue
            values = {
                name: {"size": file["size"], "mtime_ns": file["mtime_ns"], "sha256": file["sha256"]}
                for name, file in row["files"].items()
            }
            stated[int(row["model_id"])] = values
        except (ValueError, OverflowError, KeyError, TypeError, AttributeError):
            continue
    return stated


def _difference(folder: Path, stated: Stated, verify: bool) -> str | None:
    """How the files in `folder` differ from those that were recorded."""
    faults = []
    for name, file in stated.items():
        path = folder / name
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


def _needs_line(folder: Path, stated: Stated | None, entry: Entry) -> bool:
    """Whether an intact model has no line yet, or its files were copied since."""
    if stated is None:  # the fleet was killed just after it finished the model
        return read_seeds(folder) == entry.seeds
    return any((folder / n).stat().st_mtime_ns != f["mtime_ns"] for n, f in stated.items())


def _missing(folder: Path, task: Task) -> str | None:
    """Which of the files that every model has are missing or empty."""
    faults = []
    for names in (*task.weights, *SEED_FILES, SOLUTION_FILE, METADATA_FILE):
        paths = [folder / name for name in names.split("|") if (folder / name).is_file()]
        if not paths:
            faults.append(f"{names.split('|')[0]} is missing")
        elif not paths[0].stat().st_size:
            faults.append(f"{paths[0].name} is empty")
    return ", ".join(faults) or None


def _unreadable(folder: Path, task: Task) -> str | None:
    """Why a model's files cannot be used, if they cannot."""
    try:
        read_seeds(folder)
        read_solution(folder)
        return constant_weight(load_model(task.name, folder).state_dict())
    except ValueError as error:
        return str(error)


def _twin(folder: Path, task: Task, stated: Mapping[int, Stated]) -> str | None:
    """Which of the recorded models has the same weights, if any."""
    path = next(folder / n for n in task.weights[-1].split("|") if (folder / n).is_file())
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
