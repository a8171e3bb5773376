"""A folder of submissions -> leaderboard entries: in parallel, whatever some of them do.

What is wrong with a submission ends in `<out>/faults/<name>.faults.txt` and stops no other.
Entries appear whole or not at all, and what has its entries is not scored again, so that the same
command goes on where a killed one stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mico_competition.boards.add import About
from mico_competition.boards.form import parse_time
from mico_competition.boards.leaderboard import (
    FAULTS_FOLDER,
    Entry,
    check_entries,
    name_key,
    write_entry,
)
from mico_competition.boards.score_workers import Found, Job, Terms, run_jobs
from mico_competition.boards.truth_tree import Truth
from mico_competition.cpus import share_cpus
from mico_competition.files import PathLike, write_text
from mico_competition.releases.archives import sha256_of
from mico_competition.scoring.files import shown
from mico_competition.scoring.intervals import RESAMPLES

TIME_LIMIT = 300.0
MEMORY_LIMIT = 2 << 30
MAX_ZIP = 256 << 20
_TOLD = ("name", "authors", "link", "description", "command", "commit", "submitted")


@dataclass(frozen=True)
class Outcome:
    """What became of a submission: its entries were written, or it has faults, or neither, as
    all its entries were there `before`."""

    path: Path
    entries: tuple[Path, ...] = ()
    faults: str = ""
    before: bool = False


@dataclass
class Books:
    """The entries of the folder that is written to: by their zips, and by name and time."""

    out: Path
    by_zip: dict[str, list[Entry]] = field(default_factory=dict)
    by_time: dict[tuple[str, ...], str] = field(default_factory=dict)

    @classmethod
    def of(cls, out: Path) -> Books:
        """What is there; ValueError if some of it is faulty."""
        books = cls(out)
        entries, faults = check_entries(out) if out.is_dir() else ([], [])
        if faults:
            raise ValueError(f"The entries in {out} have faults, such as {faults[0]}")
        for entry in entries:
            books.by_zip.setdefault(str(entry.values["submission_sha256"]), []).append(entry)
            books.by_time[_when(entry.values)] = str(entry.values["submission_sha256"])
        return books

    def of_submission(self, digest: str, name: str) -> list[Entry]:
        """Entries of a zip under a name: two people may have sent the same zip."""
        return [e for e in self.by_zip.get(digest, ()) if e.key == name_key(name)]

    def write(self, values: Mapping[str, Any]) -> Path:
        """Write an entry, in place of an earlier one of the same zip."""
        digest = str(values["submission_sha256"])
        if self.by_time.setdefault(_when(values), digest) != digest:
            raise ValueError(
                f"Another submission is of {values['name']} at {values['submitted']}, and the "
                "latest counts: say when in a JSON file beside the zip."
            )
        return write_entry(self.out, values, replace=True)


def _when(values: Mapping[str, Any]) -> tuple[str, ...]:
    return (values["challenge"], values["phase"], name_key(values["name"]), values["submitted"])


def score_all(
    folder: PathLike,
    truths: Sequence[Truth],
    out: PathLike,
    *,
    workers: int | None = None,
    seconds: float = TIME_LIMIT,
    memory: int = MEMORY_LIMIT,
    resamples: int = RESAMPLES,
    exact: bool = False,
    again: bool = False,
) -> tuple[int, Iterator[Outcome]]:
    """Score every zip in `folder` and write its entries below `out`.

    Args:
        folder: holds zips; `<name>.json` beside `<name>.zip` may say what `About` holds.
        truths: from `read_truth`: the phases to score, of one or more challenges.
        out: folder of entries; faults go to `<out>/faults`.
        workers: processes at a time; by default one a core.
        seconds: how long one submission may take.
        memory: bytes that the scoring of one may take.
        resamples: of the bootstrap that gives intervals.
        exact: see `add.add`.
        again: score also what has its entries already.

    Returns:
        How many zips there are, and what becomes of each, as it does.

    Raises:
        ValueError: if there are no zips, or entries in `out` have faults.
    """
    paths = sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() == ".zip" and not path.name.startswith(".")
    )
    if not paths:
        raise ValueError(f"There are no zips in {folder}: name the folder that submissions are in.")
    count = max(1, min(share_cpus(workers, 1)[0], len(paths)))
    terms = Terms(truths, resamples, exact, seconds, memory)
    return len(paths), _run(paths, Books.of(Path(out)), terms, count, again)


def _run(
    paths: Sequence[Path], books: Books, terms: Terms, workers: int, again: bool
) -> Iterator[Outcome]:
    jobs: deque[Job] = deque()
    for path in paths:
        begun = _begin(path, books, terms.truths, again)
        if isinstance(begun, Job):
            jobs.append(begun)
        else:
            yield _settled(begun, books.out)
    for job, found in run_jobs(jobs, terms, workers):
        yield _settled(_written(job.path, found, books), books.out)


def _begin(path: Path, books: Books, truths: Sequence[Truth], again: bool) -> Job | Outcome:
    """The job that `path` gives, or what became of it, if it needs none or cannot be one."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_ZIP:
            raise ValueError(f"{path} is not a file of at most {MAX_ZIP >> 20} MB.")
        told = read_about(path)
        digest = sha256_of(path)
        earlier = books.of_submission(digest, str(told["name"]))
        about = about_of(path, told, earlier)
        said = about.fields()
    except (ValueError, OSError) as error:
        return Outcome(path, faults=str(error))
    if not again and _is_done(earlier, {name: said[name] for name in told}, truths):
        return Outcome(path, before=True)
    return Job(path, about)


def _is_done(entries: Sequence[Entry], told: Mapping[str, Any], truths: Sequence[Truth]) -> bool:
    """Whether these entries, of one zip, are all that it would get, and say what was told."""
    if not entries:
        return False
    wanted = {
        (truth.phase, truth.data_version)
        for truth in truths
        if truth.challenge == entries[0].challenge
    }
    have = {
        (entry.phase, entry.values["data_version"])
        for entry in entries
        if all(entry.values[name] == value for name, value in told.items())
    }
    return wanted <= have


def read_about(path: Path) -> dict[str, Any]:
    """What `<name>.json` beside `<name>.zip` says; by default the name alone.

    Raises:
        ValueError: if it is not a JSON object, or has a field that no entry takes from it.
    """
    beside = path.with_suffix(".json")
    told: dict[str, Any] = {}
    if beside.is_file():
        try:
            told = json.loads(beside.read_text(encoding="utf-8"))
            sound = isinstance(told, dict) and set(told) <= set(_TOLD)
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            raise ValueError(f"{beside} should be a JSON object with any of {', '.join(_TOLD)}.")
    return {"name": path.stem, **told}


def about_of(path: Path, told: Mapping[str, Any], earlier: Sequence[Entry] = ()) -> About:
    """What an entry says of `path`: what it is told, at the time told, known, or of the file."""
    authors, when = told.get("authors", []), told.get("submitted")
    if not isinstance(authors, list) or not isinstance(when, (str, type(None))):
        raise ValueError(f"Beside {path}, authors should be a list, and submitted a time.")
    if when is None and earlier:
        when = min(entry.submitted for entry in earlier)
    modified = datetime.fromtimestamp(int(path.stat().st_mtime), timezone.utc)
    submitted = modified if when is None else parse_time(when)
    return About(**{**told, "authors": tuple(authors), "submitted": submitted})


def _written(path: Path, found: Found, books: Books) -> Outcome:
    """Write what was found of a submission."""
    if found.faults:
        return Outcome(path, faults=found.faults)
    try:
        return Outcome(path, tuple(books.write(values) for values in found.entries))
    except ValueError as error:
        return Outcome(path, faults=str(error))


def _settled(outcome: Outcome, out: Path) -> Outcome:
    """Keep the faults of a submission in a file, or remove those of an earlier run."""
    path = out / FAULTS_FOLDER / f"{_plain(outcome.path.stem)}.faults.txt"
    if outcome.faults:
        write_text(path, outcome.faults.rstrip() + "\n")
    else:
        path.unlink(missing_ok=True)
    return outcome


def _plain(stem: str) -> str:
    """A zip's name as it is, or, if that is no name for a file of text, one like it."""
    if stem.isprintable() and len(os.fsencode(stem)) <= 200:
        return stem
    return f"{shown(stem)[1:-1]}-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
