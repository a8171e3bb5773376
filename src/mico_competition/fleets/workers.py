"""A fleet's workers on this machine: processes that share one dataset and die with their fleet.

Each place for a worker is an executor of one process, so that a process that is killed costs
its own models another try and nobody else's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from mico_competition.fleets.fleet import Block, Outcome, train_block
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.lock import hold_shared
from mico_competition.fleets.shared_data import Rebuild, map_parts, parts_of, save_parts
from mico_competition.inputs import Data

_DATASET = "dataset.pt"
_LOOK_SECONDS = 1.0  # how often a caller hears that nothing happened


@dataclass(frozen=True)
class _Job:
    """What every worker of a fleet is told once."""

    ledger: Ledger
    tokenizer: Any
    rebuild: Rebuild
    threads: int


class LocalWorkers:
    """Trains blocks in processes of this machine.

    Args:
        ledger: of the fleet.
        data: the whole dataset, on the CPU.
        tokenizer: written beside the weights of text models.
        workers: processes; by default one a GPU, or one a core where there is none.
        threads: of each process; by default the cores are shared out.
    """

    def __init__(
        self,
        ledger: Ledger,
        data: Data,
        tokenizer: Any = None,
        *,
        workers: int | None = None,
        threads: int | None = None,
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        self.workers = workers or torch.cuda.device_count() or cores
        parts, rebuild = parts_of(data)
        self._parts = parts
        self._job = _Job(ledger, tokenizer, rebuild, threads or max(1, cores // self.workers))

    def run(self, blocks: deque[Block]) -> Generator[Outcome | None, None, None]:
        """See `fleet.Backend`."""
        dataset = self._job.ledger.folder / _DATASET
        save_parts(self._parts, dataset)
        reader, writer = multiprocessing.Pipe(duplex=False)
        devices = [_device(i) for i in range(min(self.workers, len(blocks)))]
        places = [_Place(self._job, dataset, device, reader) for device in devices]
        try:
            yield from _spread(blocks, places)
        finally:
            writer.close()  # every worker sees this end, whether it is closed or this process dies
            for place in places:
                place.close()
            reader.close()
            dataset.unlink(missing_ok=True)


def _device(number: int) -> torch.device:
    """The device of the worker at place `number`."""
    count = torch.cuda.device_count()
    return torch.device("cuda", number % count) if count else torch.device("cpu")


def _spread(blocks: deque[Block], places: list[_Place]) -> Iterator[Outcome | None]:
    """Keep every place at work until no block is left."""
    free = list(reversed(places))
    running: dict[Future[Outcome], tuple[_Place, Block]] = {}
    while blocks or running:
        while blocks and free:
            place, block = free.pop(), blocks.popleft()
            running[place.submit(block)] = (place, block)
        done, _ = wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
        if not done:
            yield None
        for future in done:
            place, block = running.pop(future)
            try:
                outcome = future.result()
            except BrokenProcessPool:
                place.restart()
                outcome = Outcome(block, "The worker process died: killed, or out of memory?", True)
            free.append(place)
            yield outcome


class _Place:
    """Room for one worker on a device."""

    def __init__(
        self, job: _Job, dataset: Path, device: torch.device, lifeline: Connection
    ) -> None:
        self._begin = (job, dataset, device, lifeline)
        self._executor = self._new()

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        # Imported once, before workers are forked: they start at once and share its memory.
        # Nothing of torch's threads or of CUDA is started by that.
        context.set_forkserver_preload(["mico_competition.fleets.workers"])
        return ProcessPoolExecutor(1, context, initializer=_begin, initargs=self._begin)

    def submit(self, block: Block) -> Future[Outcome]:
        """Have the worker train `block`."""
        return self._executor.submit(_train, block)

    def restart(self) -> None:
        """A new worker in place of one that died."""
        self.close()
        self._executor = self._new()

    def close(self) -> None:
        """Wait for the worker to leave: it is idle, or has lost its lifeline."""
        self._executor.shutdown(wait=True, cancel_futures=True)


# What this process, if it is a worker, works with; set once by `_begin`.
_own: dict[str, Any] = {}


def _begin(job: _Job, dataset: Path, device: torch.device, lifeline: Connection) -> None:
    """Make this process a worker."""
    os.umask(0o077)  # what is trained here holds secrets
    os.environ["MICO_QUIET"] = "1"  # the fleet shows how far it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the fleet's to answer
    threading.Thread(target=_die_with_fleet, args=(lifeline,), daemon=True).start()
    _own["lock"] = hold_shared(job.ledger.folder)
    torch.set_num_threads(job.threads)
    _own.update(job=job, device=device, data=job.rebuild(map_parts(dataset)).to(device))


def _die_with_fleet(lifeline: Connection) -> None:
    """End this process when the fleet's ends, in whatever way; a half-written folder is nothing."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _train(block: Block) -> Outcome:
    job: _Job = _own["job"]
    return train_block(
        job.ledger.settings,
        _own["data"],
        block,
        [job.ledger.place(model_id) for model_id in block.model_ids],
        tokenizer=job.tokenizer,
        device=_own["device"],
    )
