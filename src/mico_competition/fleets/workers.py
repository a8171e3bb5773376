"""A fleet's workers on this machine: processes that share one dataset and die with their fleet.

Each place for a worker is an executor of one process, so that a process that is killed costs
its own models another try and nobody else's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import torch

from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.fleets.fleet import Block, Outcome
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.shared_data import parts_of, save_parts
from mico_competition.fleets.worker_process import LOOK_SECONDS, Job, begin, train
from mico_competition.models.inputs import Data
from mico_competition.support.cpus import share_cpus

_DATASET = "dataset.pt"
_BIRTHS = 3  # workers in a row that may die at one place before they can work
_DEATHS = 10  # and while they work, without a block that is finished in between
_SOCKET_BYTES = 60  # of a temporary folder's name: a socket's path in it has at most 107

_log = logging.getLogger(__name__)


class LocalWorkers:
    """Trains blocks in processes of this machine.

    Args:
        ledger: of the fleet.
        data: the whole dataset, on the CPU.
        tokenizer: written beside the weights of text models.
        workers: processes; by default one a GPU, or one a CPU where there is none.
        threads: of each process; by default OMP_NUM_THREADS, else the CPUs are shared out.

    Together they take no more CPUs than this process may use (`cpus.share_cpus`).
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
        self.workers, self.threads = share_cpus(workers, threads, devices=torch.cuda.device_count())
        self._parts, rebuild = parts_of(data)
        fingerprint = dataset_fingerprint(data)
        self._job = Job(ledger, tokenizer, rebuild, fingerprint, self.threads)

    def run(self, blocks: deque[Block]) -> Generator[Outcome | float | None, None, None]:
        """See `fleet.Backend`."""
        _keep_sockets_short()
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


def _keep_sockets_short() -> None:
    """Have multiprocessing put its sockets where their paths are short enough.

    Raises:
        ValueError: if there is no such folder.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= _SOCKET_BYTES:
        return
    before = tempfile.tempdir
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            try:
                tempfile.tempdir = folder
                get_temp_dir()  # made once for this process, and removed at its end
            finally:
                tempfile.tempdir = before
            return
    raise ValueError(
        f"TMPDIR={tempfile.gettempdir()} is too long for the sockets that workers are started by: "
        f"name a folder of at most {_SOCKET_BYTES} bytes."
    )


def _spread(blocks: deque[Block], places: list[_Place]) -> Iterator[Outcome | float | None]:
    """Keep every place at work until no block is left, or no place is of use."""
    free = list(reversed(places))
    running: dict[Future[Outcome], tuple[_Place, Block]] = {}
    while blocks or running:
        while blocks and free:
            place, block = free.pop(), blocks.popleft()
            running[place.submit(block)] = (place, block)
        done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
        if not done:
            yield sum(place.part() * len(block.entries) for place, block in running.values())
        for future in done:
            place, block = running.pop(future)
            outcome = place.outcome(future, block)
            if place.usable:
                free.append(place)
            elif not free and not running:
                yield Outcome(block, place.death, fatal=True)
                return
            else:
                _log.warning("%s Going on with fewer workers.", place.death.splitlines()[-1])
            if outcome is not None:
                yield outcome
            else:  # nothing was tried of it
                blocks.appendleft(block)


class _Place:
    """Room for one worker on a device.

    Attributes:
        usable: whether it is worth while to start another worker here.
        death: what is to be said of the worker that died last.
    """

    def __init__(self, job: Job, dataset: Path, device: torch.device, lifeline: Connection) -> None:
        self._arguments = (job, dataset, device, lifeline)
        self._deaths = 0
        self.usable, self.death = True, ""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once, before workers are forked: they start at once and share its memory.
        # Nothing of torch's threads or of CUDA is started by that.
        context.set_forkserver_preload(["mico_competition.fleets.worker_process"])
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self._born, self._part, self._said = False, 0.0, ""
        self._executor = ProcessPoolExecutor(
            1, context, initializer=begin, initargs=(*self._arguments, self._writer)
        )

    def submit(self, block: Block) -> Future[Outcome]:
        """Have the worker train `block`."""
        self._part = 0.0
        try:
            return self._executor.submit(train, block)
        except (OSError, BrokenProcessPool) as error:  # no process could be started, or none lives
            self._said = self._said or str(error)
            failed: Future[Outcome] = Future()
            failed.set_exception(BrokenProcessPool(str(error)))
            return failed

    def outcome(self, future: Future[Outcome], block: Block) -> Outcome | None:
        """What became of a block; None if its worker died before it could begin.

        A worker that died is replaced, unless too many have died here in a row.
        """
        try:
            outcome = future.result()
        except BrokenProcessPool:
            self._hear()
            self._deaths += 1
            self.usable = self._deaths < (_DEATHS if self._born else _BIRTHS)
            self.death = self._epitaph()
            tried = self._born
            self.close()
            if self.usable:
                self._start()
            return Outcome(block, self.death, lost=True) if tried else None
        self._deaths = 0
        return outcome

    def _epitaph(self) -> str:
        if self._born:
            again = "" if self.usable else f" {_DEATHS} did in a row, without a model between them."
            return f"The worker process died: killed, or out of memory?{again}"
        reason = self._said.strip().splitlines()[-1:] or ["killed, or out of memory?"]
        return f"{self._said}\nWorker processes die before they can begin: {reason[0]}".lstrip()

    def part(self) -> float:
        """The part that is done of the block at work, in [0, 1]."""
        self._hear()
        return self._part

    def _hear(self) -> None:
        """Take in what the worker has sent."""
        with suppress(EOFError, OSError):
            while self._reader.poll():
                word, value = self._reader.recv()
                if word == "part":
                    self._part = value
                elif word == "born":
                    self._born = True
                else:
                    self._said = value

    def close(self) -> None:
        """Wait for the worker to leave: it is idle, or has lost its lifeline."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._reader.close()
        self._writer.close()
