"""Many models of one scenario, over days, on machines that fail: what is missing gets trained.

The ledger comes first, a model's folder appears when it is whole, and so a second run of the
same command finishes what the first left.  Where models are trained is a backend's business:
`workers` (processes of this machine) or `ray_cluster` (a cluster).
"""

from __future__ import annotations

import json
import time
import traceback
from collections import deque
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mico_competition.fleets.events import EVENTS_FILE
from mico_competition.fleets.finished import record_files
from mico_competition.fleets.ledger import Entry, Ledger, append_line
from mico_competition.models.inputs import Data
from mico_competition.support.files import PRIVATE, open_private, write_text
from mico_competition.training.model_folder import StorageError
from mico_competition.training.settings import Settings
from mico_competition.training.train_many import Run, stack_of, train_many

RETRIES = 2
PACE_FILE = "pace.json"
_PACE_SECONDS = 5.0


@dataclass(frozen=True)
class Block:
    """Models that are trained together, as one piece of work; `tries` it already had."""

    entries: tuple[Entry, ...]
    tries: int = 0

    @property
    def model_ids(self) -> list[int]:
        """Ids of the block's models, in order."""
        return [entry.model_id for entry in self.entries]


@dataclass(frozen=True)
class Outcome:
    """What became of a block: all its models are done where there is no `error`.

    `lost` says that its process or machine died, which another try may mend; `fatal` that no try
    of any block will do: the disk takes no more, or the cluster is gone.
    """

    block: Block
    error: str | None = None
    lost: bool = False
    fatal: bool = False


class Backend(Protocol):
    """Where blocks are trained."""

    def run(self, blocks: deque[Block]) -> Generator[Outcome | float | None, None, None]:
        """Train `blocks`, to which more may be added meanwhile.

        Between outcomes it yields how many models' worth of training is done in the blocks that
        are not finished, or None where that is not known.  Closing the iterator stops what is
        being trained.
        """


@dataclass
class Progress:
    """How far a fleet is.  `failed` maps ids to the last line of what went wrong.

    `under_way` is the part that is done of models that are not.
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
    """Train what is missing of `ledger`; yields progress after every block, and now and then.

    Args:
        ledger: as written; the models in it that have no folder yet are trained.
        backend: where to train.
        stack: models trained together; by default as `train_many` has it.
        retries: how often the models of a process or machine that died are tried again, >= 0.

    A model that fails is kept with its traceback in failures.log, and the others go on; of a
    stack that fails each model is tried alone.  A `fatal` outcome ends the run, with
    `stopped` saying so.
    """
    stack = stack or stack_of(ledger.settings)
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
    """Writes how fast a run is to pace.json, for whoever asks for the status."""

    def __init__(self, ledger: Ledger, progress: Progress) -> None:
        self._path = ledger.folder / PACE_FILE
        self._begun, self._written = time.time(), 0.0
        self._before = progress.done

    def note(self, progress: Progress) -> None:
        """Write it if that is due: time, when the run began, models trained since, and under way.

        Nobody needs it to go on, so a disk that takes no more is no fault here.
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
    """The models without a folder, in blocks of neighbouring ids.

    Ids alone say which block a model is in, so that it has the same neighbours wherever and
    whenever it is trained, unless some of them were done before.
    """
    done = ledger.done()
    blocks: dict[int, list[Entry]] = {}
    for entry in ledger.entries:
        if entry.model_id not in done:
            blocks.setdefault(entry.model_id // stack, []).append(entry)
    return [Block(tuple(entries)) for _, entries in sorted(blocks.items())]


def _account(ledger: Ledger, outcome: Outcome, progress: Progress, retries: int) -> list[Block]:
    """Enter an outcome in the books; gives the blocks to try again."""
    done = {e.model_id for e in outcome.block.entries if ledger.place(e.model_id).is_dir()}
    progress.newly_done = sorted(done)
    progress.done += len(done)
    for model_id in sorted(done):
        record_files(ledger, model_id)
        record(ledger, "done", model_id=model_id)
    progress.under_way = max(0.0, progress.under_way - len(outcome.block.entries))
    rest = tuple(e for e in outcome.block.entries if e.model_id not in done)
    if not rest:
        return []
    error = outcome.error or "No error was given, and no folder either."
    block = replace(outcome.block, entries=rest)
    _log_failure(ledger, block, error)
    if outcome.fatal:
        progress.stopped = error.strip().splitlines()[-1]
        return []
    if outcome.lost and block.tries < retries:
        progress.retries += 1
        record(ledger, "lost", model_ids=block.model_ids, tries=block.tries + 1)
        return [replace(block, tries=block.tries + 1)]
    if len(rest) > 1:  # one model of a stack is at fault: find out which
        return [Block((entry,)) for entry in rest]
    progress.failed[rest[0].model_id] = error.strip().splitlines()[-1]
    record(ledger, "failed", model_id=rest[0].model_id)
    return []


def _log_failure(ledger: Ledger, block: Block, error: str) -> None:
    ids = ", ".join(f"model_{i}" for i in block.model_ids)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with open_private(ledger.folder / "failures.log") as log:
        log.write(f"== {ids}, {when} UTC, try {block.tries + 1}\n{error.strip()}\n\n")


def record(ledger: Ledger, event: str, **values: Any) -> None:
    """Add a line to events.jsonl."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
    append_line(ledger.folder / EVENTS_FILE, line)


def train_block(
    settings: Settings, data: Data, block: Block, folders: list[Path], **arguments: Any
) -> Outcome:
    """Train the models of a block into `folders`; whatever goes wrong is in the outcome.

    Called where the training is, by every backend.  `arguments` go to `train_many`.
    """
    runs = [
        Run(entry.seeds, folder, entry.model_id, entry.train_seed)
        for entry, folder in zip(block.entries, folders, strict=True)
    ]
    try:
        for _ in train_many(settings, data, runs, stack=len(runs), **arguments):
            pass
    except Exception as error:
        return Outcome(block, traceback.format_exc(), fatal=isinstance(error, StorageError))
    return Outcome(block)
