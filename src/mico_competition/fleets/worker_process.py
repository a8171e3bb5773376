"""The process of one worker: it trains blocks, and reports its progress to the fleet."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from mico_competition.data.fingerprint import remember_fingerprint
from mico_competition.fleets.fleet import Block, Outcome, checkpoints_of, train_block
from mico_competition.fleets.ledger import CHECKPOINTS, Ledger
from mico_competition.fleets.lock import hold_shared
from mico_competition.fleets.memory import NotEnoughMemory, check_memory
from mico_competition.fleets.running import reports_of
from mico_competition.fleets.shared_data import Rebuild, map_parts
from mico_competition.support import stopping

REPORT_SECONDS = 1.0  # how often a worker reports to its fleet
_LAST_SECONDS = 40.0  # less than `lock.WAIT_SECONDS`, for which a new run waits
_MESSAGE = 2000  # characters of an error at most, so that a pipe takes a message in one write


@dataclass(frozen=True)
class Job:
    """What every worker of a fleet needs in order to train."""

    ledger: Ledger
    tokenizer: Any
    rebuild: Rebuild
    fingerprint: str | None
    threads: int
    checkpoint_minutes: float
    track: str | None = None


# The state of this process if it is a worker; `begin` sets it once.
_state: dict[str, Any] = {}


def begin(
    job: Job, dataset: Path, device: torch.device, lifeline: Connection, fleet: Connection
) -> None:
    """Make this process a worker, and report to the fleet if that fails."""
    os.umask(0o077)  # a model's folder holds secrets
    os.environ["MICO_QUIET"] = "1"  # the fleet itself shows the progress
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fleet itself handles Ctrl-C
    signal.signal(signal.SIGTERM, _end_politely)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the fork server has it blocked
    threading.Thread(target=_die_with_fleet, args=(lifeline,), daemon=True).start()
    try:
        _state["lock"] = hold_shared(job.ledger.folder)
        torch.set_num_threads(job.threads)
        data = job.rebuild(map_parts(dataset)).to(device)
        if job.fingerprint is not None:
            remember_fingerprint(data, job.fingerprint)
        _state.update(job=job, device=device, data=data, fleet=fleet)
        fleet.send(("started", None))
    except Exception:
        fleet.send(("failed", traceback.format_exc()[-_MESSAGE:]))
        os._exit(1)  # the executor would print the traceback for every worker


def _die_with_fleet(lifeline: Connection) -> None:
    """End this process when the fleet's process ends; a half-written folder is ignored.

    A run of hours may end its step and write a checkpoint first.
    """
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        if stopping.asked() or stopping.ask(signal.SIGTERM):
            stopping.wait(_LAST_SECONDS)
        os._exit(1)


def _end_politely(number: int, frame: Any) -> None:
    """End at SIGTERM, which Slurm sends to all processes; see `_die_with_fleet`."""
    if not (stopping.asked() or stopping.ask(number)):
        os._exit(128 + number)


def train(block: Block) -> Outcome:
    """Train `block` in this worker."""
    job: Job = _state["job"]
    ledger = job.ledger
    code = ledger.training_fingerprint
    try:
        return train_block(
            ledger.settings,
            _state["data"],
            block,
            [ledger.folder_of(model_id) for model_id in block.model_ids],
            checkpoints_of(ledger.folder / CHECKPOINTS, block, job.checkpoint_minutes, code),
            reports_of(ledger.folder, block, ledger.settings, job.track),
            tokenizer=job.tokenizer,
            device=_state["device"],
            progress=_Reporter(_state["fleet"]),
        )
    except stopping.Terminated as stop:  # with a checkpoint, of which the block is tried again
        os._exit(128 + stop.number)


def try_memory(stack: int, sharing: int) -> str | None:
    """Try in this worker whether training fits into memory; if not, a sentence that says so.

    Args:
        stack: models that are trained together.
        sharing: workers that are to use the memory of this one's device.
    """
    ledger: Ledger = _state["job"].ledger
    options = {"device": _state["device"], "mechanism": ledger.mechanism}
    try:
        check_memory(ledger.settings, _state["data"], stack=stack, sharing=sharing, **options)
    except NotEnoughMemory as error:
        return str(error)
    return None


class _Reporter:
    """Reports the finished fraction of a block to the fleet, at most once a second."""

    def __init__(self, fleet: Connection) -> None:
        self._fleet, self._reported = fleet, 0.0

    def __call__(self, part: float) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            with suppress(OSError):  # the fleet is gone, and this process is about to end
                self._fleet.send(("part", part))
