"""What a worker of a fleet does in its own process: trains blocks, and tells the fleet how far."""

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
from mico_competition.fleets.fleet import Block, Outcome, train_block
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.lock import hold_shared
from mico_competition.fleets.shared_data import Rebuild, map_parts

LOOK_SECONDS = 1.0  # how often the fleet hears of it
_MESSAGE = 2000  # characters at most, so that a message is written at once or not at all


@dataclass(frozen=True)
class Job:
    """What every worker of a fleet is told once."""

    ledger: Ledger
    tokenizer: Any
    rebuild: Rebuild
    fingerprint: str | None
    threads: int


# What this process, if it is a worker, works with; set once by `begin`.
_own: dict[str, Any] = {}


def begin(
    job: Job, dataset: Path, device: torch.device, lifeline: Connection, fleet: Connection
) -> None:
    """Make this process a worker; what goes wrong is told to the fleet."""
    os.umask(0o077)  # what is trained here holds secrets
    os.environ["MICO_QUIET"] = "1"  # the fleet shows how far it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the fleet's to answer
    threading.Thread(target=_die_with_fleet, args=(lifeline,), daemon=True).start()
    try:
        _own["lock"] = hold_shared(job.ledger.folder)
        torch.set_num_threads(job.threads)
        data = job.rebuild(map_parts(dataset)).to(device)
        if job.fingerprint is not None:
            remember_fingerprint(data, job.fingerprint)
        _own.update(job=job, device=device, data=data, fleet=fleet)
        fleet.send(("born", None))
    except Exception:
        fleet.send(("failed", traceback.format_exc()[-_MESSAGE:]))
        os._exit(1)  # the executor would print the traceback for every worker


def _die_with_fleet(lifeline: Connection) -> None:
    """End this process when the fleet's ends, in whatever way; a half-written folder is nothing."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def train(block: Block) -> Outcome:
    """Train the models of a block with this process's own data."""
    job: Job = _own["job"]
    return train_block(
        job.ledger.settings,
        _own["data"],
        block,
        [job.ledger.place(model_id) for model_id in block.model_ids],
        tokenizer=job.tokenizer,
        device=_own["device"],
        progress=_Teller(_own["fleet"]),
    )


class _Teller:
    """Sends the fleet how far a block is, once a second at most."""

    def __init__(self, fleet: Connection) -> None:
        self._fleet, self._said = fleet, 0.0

    def __call__(self, part: float) -> None:
        now = time.monotonic()
        if now - self._said >= LOOK_SECONDS:
            self._said = now
            with suppress(OSError):  # the fleet is gone, and this process about to go
                self._fleet.send(("part", part))
