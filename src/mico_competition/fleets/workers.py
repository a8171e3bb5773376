"""The backend that trains a fleet on this machine, in processes that share one dataset.

Each worker is a separate executor with one process, so if a process is killed, only its own models
are tried again. All workers end when the fleet's process does.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any, TypeVar

import torch

from mico_competition.data.fingerprint import dataset_fingerprint
from mico_competition.fleets.fleet import Block, Outcome
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.shared_data import parts_of, save_parts
from mico_competition.fleets.worker_process import REPORT_SECONDS, Job, begin, train, try_memory
from mico_competition.models.inputs import Data
from mico_competition.support.cpus import share_cpus
from mico_competition.training.checkpoint import MINUTES

_DATASET = "dataset.pt"
_START_FAILURES = (
    3  # a worker stops after this number of consecutive processes that died at the start
)
_FAILURES = 10  # or that died at work, without finishing a block
_SOCKET_BYTES = 60  # of a temporary folder's path: that of a socket in it has at most 107

_DIED_IN_TRIAL = (
    "A worker died while it tried how much memory a step takes: killed, or out of memory? Give a "
    "smaller --workers, --stack or --max_physical_batch_size."
)

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class LocalWorkers:
    """Trains blocks in processes of this machine.

    Together the processes use no more CPUs than this process may (`cpus.share_cpus`).

    Args:
        ledger: the fleet's ledger.
        data: the whole dataset, on the CPU.
        tokenizer: is written beside the weights of text models.
        workers: the number of processes; by default one for each GPU, or for each CPU if there is
            no GPU.
        threads: the threads of each process; by default OMP_NUM_THREADS, or else the process's
            share of the CPUs.
        checkpoint_minutes: the time between two checkpoints of a model; 0 writes none.
        track: one of `training.trackers.TRACKERS`, to which runs report.
    """

    def __init__(
        self,
        ledger: Ledger,
        data: Data,
        tokenizer: Any = None,
        *,
        workers: int | None = None,
        threads: int | None = None,
        checkpoint_minutes: float = MINUTES,
        track: str | None = None,
    ) -> None:
        self.workers, self.threads = share_cpus(workers, threads, devices=torch.cuda.device_count())
        self._parts, rebuild = parts_of(data)
        fingerprint = dataset_fingerprint(data)
        self._job = Job(
            ledger, tokenizer, rebuild, fingerprint, self.threads, checkpoint_minutes, track
        )

    def run(self, blocks: deque[Block]) -> Generator[Outcome | float | None, None, None]:
        """See `fleet.Backend`."""
        _keep_sockets_short()
        dataset = self._job.ledger.folder / _DATASET
        save_parts(self._parts, dataset)
        reader, writer = multiprocessing.Pipe(duplex=False)
        devices = [_device(i) for i in range(min(self.workers, len(blocks)))]
        workers = [_Worker(self._job, dataset, device, reader) for device in devices]
        try:
            fault = yield from _memory_fault(blocks, workers, devices)
            if fault:
                yield Outcome(blocks[0], fault, fatal=True)
            else:
                yield from _spread(blocks, workers)
        finally:
            writer.close()  # tells every worker to end, as the death of this process would
            for worker in workers:
                worker.close()
            reader.close()
            dataset.unlink(missing_ok=True)


def _device(number: int) -> torch.device:
    """The device of worker `number`."""
    count = torch.cuda.device_count()
    return torch.device("cuda", number % count) if count else torch.device("cpu")


def _keep_sockets_short() -> None:
    """Make multiprocessing put its sockets into a folder whose path is short enough.

    Raises:
        ValueError: if no such folder can be written to.
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
        f"choose a folder whose path has at most {_SOCKET_BYTES} bytes."
    )


def _start_fork_server() -> None:
    """Start the fork server with SIGTERM blocked, so that workers that end politely outlive it.

    So is SIGINT, of which it would print a traceback while it starts; the fleet handles Ctrl-C.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _memory_fault(
    blocks: deque[Block], workers: list[_Worker], devices: list[torch.device]
) -> Generator[float, None, str | None]:
    """Try in the first worker of each device whether all its workers fit; the fault, if any.

    The other workers are started afterwards, so what they take is not there yet.
    """
    stack = max((len(block.entries) for block in blocks), default=1)
    sharing = Counter(devices)
    first = dict(reversed([*zip(devices, workers)]))
    tried = {w.submit(try_memory, stack, sharing[device]): w for device, w in first.items()}
    while wait(tried, timeout=REPORT_SECONDS).not_done:
        yield 0.0
    faults = [worker.memory_fault(future) for future, worker in tried.items()]
    return next((fault for fault in faults if fault), None)


def _spread(blocks: deque[Block], workers: list[_Worker]) -> Iterator[Outcome | float | None]:
    """Keep every worker busy until no block is left, or no worker is usable."""
    free = list(reversed(workers))
    running: dict[Future[Outcome], tuple[_Worker, Block]] = {}
    while blocks or running:
        while blocks and free:
            worker, block = free.pop(), blocks.popleft()
            running[worker.submit(train, block)] = (worker, block)
        done, _ = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_COMPLETED)
        if not done:
            yield sum(worker.part() * len(block.entries) for worker, block in running.values())
        for future in done:
            worker, block = running.pop(future)
            outcome = worker.outcome(future, block)
            if worker.usable:
                free.append(worker)
            elif not free and not running:
                yield Outcome(block, worker.failure, fatal=True)
                return
            else:
                _log.warning("%s Going on with fewer workers.", worker.failure.splitlines()[-1])
            if outcome is not None:
                yield outcome
            else:  # the worker had not begun with it
                blocks.appendleft(block)


class _Worker:
    """One worker on a device: a process, which is replaced if it dies.

    Attributes:
        usable: whether another process may be started.
        failure: why the last process died.
    """

    def __init__(self, job: Job, dataset: Path, device: torch.device, lifeline: Connection) -> None:
        self._arguments = (job, dataset, device, lifeline)
        self._failures = 0
        self.usable, self.failure = True, ""
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        # The fork server imports this once, so that workers start fast and share its memory.  The
        # import starts neither torch's threads nor CUDA.
        context.set_forkserver_preload(["mico_competition.fleets.worker_process"])
        _start_fork_server()
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self._started, self._part, self._error = False, 0.0, ""
        self._executor = ProcessPoolExecutor(
            1, context, initializer=begin, initargs=(*self._arguments, self._writer)
        )

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Call a function in the process."""
        self._part = 0.0
        try:
            return self._executor.submit(function, *arguments)
        except (OSError, BrokenProcessPool) as error:  # it could not be started, or has died
            self._error = self._error or str(error)
            failed: Future[Result] = Future()
            failed.set_exception(BrokenProcessPool(str(error)))
            return failed

    def memory_fault(self, future: Future[str | None]) -> str | None:
        """What `try_memory` found; a process that cannot begin says so when it is to train."""
        try:
            return future.result()
        except BrokenProcessPool:
            self._receive()
            tried = self._started
            self.close()
            self._start()
            return _DIED_IN_TRIAL if tried else None

    def outcome(self, future: Future[Outcome], block: Block) -> Outcome | None:
        """What became of a block; None if the process died before it could begin.

        A process that died is replaced, unless too many have died in a row.
        """
        try:
            outcome = future.result()
        except BrokenProcessPool:
            self._receive()
            self._failures += 1
            self.usable = self._failures < (_FAILURES if self._started else _START_FAILURES)
            self.failure = self._describe_failure()
            tried = self._started
            self.close()
            if self.usable:
                self._start()
            return Outcome(block, self.failure, lost=True) if tried else None
        self._failures = 0
        return outcome

    def _describe_failure(self) -> str:
        """Why the process died, as far as that is known."""
        if self._started:
            again = "" if self.usable else f" {_FAILURES} did in a row, without finishing a model."
            return f"The worker process died: killed, or out of memory?{again}"
        reason = self._error.strip().splitlines()[-1:] or ["killed, or out of memory?"]
        return f"{self._error}\nWorker processes die before they can begin: {reason[0]}".lstrip()

    def part(self) -> float:
        """The finished fraction of the current block, in [0, 1]."""
        self._receive()
        return self._part

    def _receive(self) -> None:
        """Read the messages that the process has sent."""
        with suppress(EOFError, OSError):
            while self._reader.poll():
                word, value = self._reader.recv()
                if word == "part":
                    self._part = value
                elif word == "started":
                    self._started = True
                else:
                    self._error = value

    def close(self) -> None:
        """Wait for the process to end: it is idle, or has lost its lifeline."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._reader.close()
        self._writer.close()
