"""Trains the models of a fleet that are still missing, in spite of failures, over days.

A ledger lists the models before the first is trained, and a model's folder appears only when it is
complete, so the same command, run again, finishes an interrupted fleet.  A backend does the
training: `workers` in processes of this machine, or `ray.cluster` on a cluster.
"""

from __future__ import annotations

import json
import re
import time
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mico_competition.fleets.events import EVENTS_FILE
from mico_competition.fleets.finished import record_files
from mico_competition.fleets.ledger import Entry, Ledger, append_line
from mico_competition.models.inputs import Data
from mico_competition.support.files import PRIVATE, open_private, write_text
from mico_competition.training.checkpoint import BusyError, Checkpoint
from mico_competition.training.model_folder import StorageError
from mico_competition.training.run_report import RunReport
from mico_competition.training.settings import Settings
from mico_competition.training.train_many import Run, check_stacks, stack_of, train_many

RETRIES = 2
LEASE_SECONDS = 120.0  # an NFS server keeps the locks of a machine that died for 90 seconds
PACE_FILE = "pace.json"
_PACE_SECONDS = 5.0


@dataclass(frozen=True)
class Block:
    """Models that are trained together in one piece of work, and how often that was tried."""

    entries: tuple[Entry, ...]
    tries: int = 0

    @property
    def model_ids(self) -> list[int]:
        """The ids of the block's models, in order."""
        return [entry.model_id for entry in self.entries]


@dataclass(frozen=True)
class Outcome:
    """What became of a block: without an `error`, all its models are done.

    `lost` means that the process or machine died, so another try may succeed.  `fatal` means that
    no block can succeed any more: the disk is full, or the cluster is gone.
    """

    block: Block
    error: str | None = None
    lost: bool = False
    fatal: bool = False


class Backend(Protocol):
    """Trains blocks somewhere: on this machine, or on a cluster."""

    def run(self, blocks: deque[Block]) -> Generator[Outcome | float | None, None, None]:
        """Train `blocks`, to which the caller may add more meanwhile.

        Between outcomes it yields how much of the unfinished blocks is done, counted in models, or
        None if that is not known.  Closing the iterator stops the training.
        """


@dataclass
class Progress:
    """How far a fleet has come.

    `failed` maps ids to the last line of the error, and `under_way` counts the finished fractions
    of unfinished models.
    """

    total: int
    done: int
    under_way: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)
    retries: int = 0
    stopped: str | None = None
    newly_done: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Models that are neither done nor failed."""
        return self.total - self.done - len(self.failed)


def run_fleet(
    ledger: Ledger, backend: Backend, *, stack: int | None = None, retries: int = RETRIES
) -> Generator[Progress, None, None]:
    """Train the models of `ledger` that are missing, and yield progress as they are finished.

    If a stack fails, each of its models is tried alone.  A model that fails leaves its traceback
    in failures.log, and the others continue.  A `fatal` outcome ends the run and sets `stopped`.

    Args:
        ledger: the ledger as it was written; its models that have no folder yet are trained.
        backend: what trains them.
        stack: how many models are trained together; by default `train_many` decides.
        retries: how often a block is tried again if its process or machine dies, >= 0.
    """
    stack = stack or stack_of(ledger.settings)
    if stack > 1:
        check_stacks(ledger.settings)
    blocks = deque(blocks_of(ledger, stack))
    missing = sum(len(block.entries) for block in blocks)
    progress = Progress(len(ledger.entries), len(ledger.entries) - missing)
    workers = getattr(backend, "workers", None)  # where that is known
    at_once = missing if workers is None else min(missing, workers * stack)
    record(ledger, "run", models=missing, stack=stack, at_once=at_once)
    yield progress
    pace = Pace(ledger, progress)
    with closing(backend.run(blocks)) as outcomes:
        for outcome in outcomes:
            progress.newly_done = []
            if isinstance(outcome, Outcome):
                blocks.extend(_account(ledger, outcome, progress, retries))
            else:
                progress.under_way = outcome or 0.0
            pace.note(progress)
            yield progress
            if progress.stopped:
                break
    stopped = progress.stopped is not None
    record(ledger, "end", done=progress.done, failed=len(progress.failed), stopped=stopped)


class Pace:
    """Writes the speed of a run to pace.json, where `mico fleet-status` reads it."""

    def __init__(self, ledger: Ledger, progress: Progress) -> None:
        self._path = ledger.folder / PACE_FILE
        self._begun, self._written = time.time(), 0.0
        self._before = progress.done

    def note(self, progress: Progress) -> None:
        """Write the time, the run's begin and the models trained, if that is due.

        The training does not need this file, so a full disk is not an error here.
        """
        now = time.time()
        if now - self._written < _PACE_SECONDS and not progress.newly_done:
            return
        self._written = now
        trained = progress.done - self._before + progress.under_way
        values = {"time": now, "begun": self._begun, "trained": trained}
        with suppress(OSError):
            text = json.dumps({**values, "under_way": progress.under_way})
            write_text(self._path, f"{text}\n", access=PRIVATE)


def blocks_of(ledger: Ledger, stack: int) -> list[Block]:
    """The models that have no folder, in blocks of neighbouring ids.

    A model's block depends on its id alone, so it is trained with the same neighbours in every
    run, except for those that are done already.
    """
    done = ledger.done()
    blocks: dict[int, list[Entry]] = {}
    for entry in ledger.entries:
        if entry.model_id not in done:
            blocks.setdefault(entry.model_id // stack, []).append(entry)
    return [Block(tuple(entries)) for _, entries in sorted(blocks.items())]


def _account(ledger: Ledger, outcome: Outcome, progress: Progress, retries: int) -> list[Block]:
    """Record an outcome in the fleet's files, and return the blocks to try again."""
    done = {e.model_id for e in outcome.block.entries if ledger.folder_of(e.model_id).is_dir()}
    progress.newly_done = sorted(done)
    progress.done += len(done)
    for model_id in sorted(done):
        record_files(ledger, model_id)
        ledger.remove_checkpoint(model_id)
        ledger.forget_running(model_id)
        record(ledger, "done", model_id=model_id)
    progress.under_way = max(0.0, progress.under_way - len(outcome.block.entries))
    rest = tuple(e for e in outcome.block.entries if e.model_id not in done)
    if not rest:
        return []
    error = outcome.error or "No error was given, and no folder either."
    block = replace(outcome.block, entries=rest)
    _log_failure(ledger, block, error)
    if outcome.fatal:
        progress.stopped = _message(error)
        return []
    if outcome.lost and block.tries < retries:
        progress.retries += 1
        record(ledger, "lost", model_ids=block.model_ids, tries=block.tries + 1)
        return [replace(block, tries=block.tries + 1)]
    if len(rest) > 1:  # one model of the stack may be at fault: try each alone
        return [Block((entry,)) for entry in rest]
    progress.failed[rest[0].model_id] = _message(error)
    ledger.forget_running(rest[0].model_id)
    record(ledger, "failed", model_id=rest[0].model_id, error=_message(error))
    return []


def _message(error: str) -> str:
    """The last line of a traceback, without the name of this package's own class."""
    return re.sub(r"\Amico_competition\.[\w.]+: ", "", error.strip().splitlines()[-1])


def _log_failure(ledger: Ledger, block: Block, error: str) -> None:
    ids = ", ".join(f"model_{i}" for i in block.model_ids)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with open_private(ledger.folder / "failures.log") as log:
        log.write(f"== {ids}, {when} UTC, try {block.tries + 1}\n{error.strip()}\n\n")


def record(ledger: Ledger, event: str, **values: Any) -> None:
    """Add a line to events.jsonl."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
    append_line(ledger.folder / EVENTS_FILE, line)


def checkpoints_of(
    folder: Path, block: Block, minutes: float, code: str | None, *, keep: bool = False
) -> list[Checkpoint]:
    """The checkpoints, below `folder`, of the models of a block.

    A process that dies may hold its lock for a while where a file server keeps it.
    """
    options: dict[str, Any] = {"code": code, "keep": keep, "wait_seconds": LEASE_SECONDS}
    return [Checkpoint(folder / f"model_{i}", minutes, **options) for i in block.model_ids]


def train_block(
    settings: Settings,
    data: Data,
    block: Block,
    folders: list[Path],
    checkpoints: Sequence[Checkpoint | None],
    reports: Sequence[RunReport | None],
    **arguments: Any,
) -> Outcome:
    """Train the models of a block into `folders`, and report any error in the outcome.

    Every backend calls this in the process that trains.  `arguments` go to `train_many`.
    """
    runs = [
        Run(entry.seeds, folder, entry.model_id, entry.train_seed, checkpoint, report)
        for entry, folder, checkpoint, report in zip(
            block.entries, folders, checkpoints, reports, strict=True
        )
    ]
    try:
        for _ in train_many(settings, data, runs, stack=len(runs), **arguments):
            pass
    except Exception as error:
        full, busy = isinstance(error, StorageError), isinstance(error, BusyError)
        return Outcome(block, traceback.format_exc(), lost=busy, fatal=full)
    return Outcome(block)
