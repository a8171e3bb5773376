"""Scores a folder of submissions in parallel, and writes their leaderboard entries.

The faults of a submission are written to `<out>/faults/<name>.faults.txt`, and do not affect other
submissions, whatever reading or scoring it raises.  A failure of the machine, such as a full disk,
stops all.  Entries are written atomically, and submissions that have entries are not scored again,
so running the same command again continues.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mico_competition.competition.in_use import InUse
from mico_competition.hosting.leaderboard.add import About
from mico_competition.hosting.leaderboard.entries import (
    FAULTS_FOLDER,
    Entry,
    check_entries,
    write_entry,
)
from mico_competition.hosting.leaderboard.form import check_submitted, parse_time
from mico_competition.hosting.leaderboard.names import Taken, in_one_form, name_key
from mico_competition.hosting.leaderboard.score_workers import Found, Job, Terms, run_jobs
from mico_competition.hosting.leaderboard.truth_tree import Truth
from mico_competition.release.archives import sha256_of
from mico_competition.scoring.intervals import RESAMPLES
from mico_competition.scoring.printable import is_plain, printable, printable_lines, shown
from mico_competition.support.cpus import share_cpus
from mico_competition.support.files import PathLike, write_text
from mico_competition.support.untrusted import check_file, hosts_folder, is_hosts, read_limited_json

TIME_LIMIT = 300.0
MEMORY_LIMIT = 2 << 30
MAX_ZIP = 256 << 20
MAX_ABOUT = 20_000
_TOLD = ("name", "authors", "link", "description", "command", "commit", "submitted")


@dataclass(frozen=True)
class Outcome:
    """The result for a submission: its entries were written, existed `before`, or it has faults."""

    path: Path
    entries: tuple[Path, ...] = ()
    faults: str = ""
    before: bool = False


@dataclass
class Books:
    """The entries of the output folder, by zip, by name and time, and by similar names."""

    out: Path
    by_zip: dict[str, list[Entry]] = field(default_factory=dict)
    by_time: dict[tuple[str, ...], str] = field(default_factory=dict)
    taken: Taken = field(default_factory=Taken)

    @classmethod
    def of(cls, out: Path) -> Books:
        """Read the entries of a folder; ValueError if one has a fault."""
        books = cls(out)
        entries, faults = check_entries(out) if out.is_dir() else ([], [])
        if faults:
            raise ValueError(f"The entries in {out} have faults, such as {faults[0]}")
        for entry in entries:
            books.by_zip.setdefault(str(entry.values["submission_sha256"]), []).append(entry)
            books.by_time[_when(entry.values)] = str(entry.values["submission_sha256"])
            books.taken.add(entry.values["name"])
        return books

    def of_submission(self, digest: str, name: str) -> list[Entry]:
        """The entries of a zip under a name, since two people may submit the same zip."""
        return [e for e in self.by_zip.get(digest, ()) if e.key == name_key(name)]

    def write(self, values: Mapping[str, Any]) -> Path:
        """Write an entry, replacing an earlier one of the same zip."""
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
    """Score every zip in `folder`, and write its entries below `out`.

    Args:
        folder: the folder of zips; `<name>.json` beside `<name>.zip` may have the fields of
            `About`.
        truths: the solutions, from `read_truth`, of the phases of one or more challenges.
        out: the folder of entries; faults are written to `<out>/faults`.
        workers: the number of processes; by default one for each core.
        seconds: the time limit of a submission.
        memory: the memory limit of a submission, in bytes.
        resamples: the number of resamples of the bootstrap for intervals.
        exact: see `add.add`.
        again: also score submissions that have entries already.

    Returns:
        The number of zips, and an iterator over their outcomes.

    Raises:
        ValueError: if there are no zips, or entries in `out` have faults.
        OSError: from the iterator, if the machine fails.
        ValueError: from the iterator, if the competition's file was changed.
    """
    paths = sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() == ".zip" and not path.name.startswith(".")
    )
    if not paths:
        raise ValueError(f"There are no zips in {folder}: name the folder that submissions are in.")
    count = max(1, min(share_cpus(workers, 1)[0], len(paths)))
    terms = Terms(InUse.here(), truths, resamples, exact, seconds, memory)
    return len(paths), _run(paths, Books.of(Path(out)), terms, count, again)


def _run(
    paths: Sequence[Path], books: Books, terms: Terms, workers: int, again: bool
) -> Iterator[Outcome]:
    jobs: list[Job] = []
    for path in paths:
        begun = _apart(path, partial(_begin, path, books, terms.truths, again))
        if isinstance(begun, Job):
            jobs.append(begun)
        else:
            yield _settled(begun, books.out)
    ready: deque[Job] = deque()
    for job in sorted(jobs, key=lambda job: (job.about.submitted, job.path)):
        # In the order of their times: a name belongs to its first user.
        if other := books.taken.add(job.about.name):
            fault = f"its name {shown(job.about.name)} looks like {shown(other)}; choose another."
            yield _settled(Outcome(job.path, faults=fault), books.out)
        else:
            ready.append(job)
    for job, found in run_jobs(ready, terms, workers):
        written = _apart(job.path, partial(_written, job.path, found, books))
        yield _settled(written, books.out)


def _apart(path: Path, step: Callable[[], Job | Outcome]) -> Any:
    """Call `step`, and turn its errors into a fault of `path`, except failures of the machine."""
    try:
        return step()
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and is_hosts(error):
            raise
        return Outcome(path, faults=str(error))
    except MemoryError:
        raise
    except Exception as error:
        # The type alone: a message may quote what participants must not see.
        problem = f"{type(error).__name__} while it was read; tell the organisers"
        return Outcome(path, faults=problem)


def _begin(path: Path, books: Books, truths: Sequence[Truth], again: bool) -> Job | Outcome:
    """The job of `path`, or its outcome if it needs none; raises if it is not a submission."""
    _check_place(path)
    check_file(path, MAX_ZIP, "a submission", "send the zip that `mico submit` wrote")
    told = read_about(path)
    digest = sha256_of(path)
    earlier = books.of_submission(digest, in_one_form(str(told["name"])))
    about = about_of(path, told, earlier)
    said = about.fields()
    about = replace(about, name=said["name"], authors=tuple(said["authors"]))
    if not again and _is_done(earlier, {name: said[name] for name in told}, truths):
        return Outcome(path, before=True)
    return Job(path, about)


def _check_place(path: Path) -> None:
    """Raise ValueError if `path` leads out of its folder, perhaps to files of the organiser."""
    try:
        inside = path.resolve(strict=True).is_relative_to(path.parent.resolve())
    except (RuntimeError, OSError):  # a link that leads to itself, before and since Python 3.13
        inside = False
    if not inside:
        raise ValueError(f"{printable(path)} is a link that leads elsewhere: send the file itself.")


def _is_done(entries: Sequence[Entry], told: Mapping[str, Any], truths: Sequence[Truth]) -> bool:
    """Whether a zip has all its entries, with the texts given for it."""
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
    """Read `<name>.json` beside `<name>.zip`; without one, the fields are the name alone.

    Raises:
        ValueError: if it is not a JSON object, or has an unknown field.
    """
    beside = path.with_suffix(".json")
    told: Any = {}
    if os.path.lexists(beside):
        _check_place(beside)
        told = read_limited_json(beside, MAX_ABOUT, "a JSON object", "write it again")
        if not isinstance(told, dict) or not set(told) <= set(_TOLD):
            raise ValueError(
                f"{printable(beside)} should be a JSON object with any of {', '.join(_TOLD)}."
            )
    return {"name": path.stem, **told}


def about_of(path: Path, told: Mapping[str, Any], earlier: Sequence[Entry] = ()) -> About:
    """The texts of `path`'s entries, with the given time, their own, or the file's."""
    authors, when = told.get("authors", []), told.get("submitted")
    if not isinstance(authors, list) or not isinstance(when, (str, type(None))):
        raise ValueError(
            f"Beside {printable(path)}, authors should be a list, and submitted a time."
        )
    if when is None and earlier:
        when = min(entry.submitted for entry in earlier)
    submitted = _time_of_file(path) if when is None else parse_time(when)
    return About(**{**told, "authors": tuple(authors), "submitted": submitted})


def _time_of_file(path: Path) -> datetime:
    """The time of a zip's file; ValueError if it is not a plausible time of submission."""
    try:
        modified = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        return check_submitted(modified)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"The time of {printable(path)} is not that of a submission: say when it was sent, as "
            f'"submitted" in {printable(path.with_suffix(".json").name)}.'
        ) from None


def _written(path: Path, found: Found, books: Books) -> Outcome:
    """Write the entries of a submission."""
    if found.faults:
        return Outcome(path, faults=found.faults)
    with hosts_folder(books.out):
        return Outcome(path, tuple(books.write(values) for values in found.entries))


def _settled(outcome: Outcome, out: Path) -> Outcome:
    """Write the faults of a submission to a file, or remove those of an earlier run."""
    name = outcome.path.name
    path = out / FAULTS_FOLDER / f"{_plain(name.removesuffix('.zip'))}.faults.txt"
    with hosts_folder(path.parent):
        if outcome.faults:
            write_text(path, printable_lines(outcome.faults.rstrip()) + "\n")
        else:
            path.unlink(missing_ok=True)
    return outcome


def _plain(name: str) -> str:
    """A zip's name, changed if it cannot be the name of a text file."""
    if is_plain(name) and len(os.fsencode(name)) <= 200:
        return name
    return f"{shown(name)[1:-1]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
