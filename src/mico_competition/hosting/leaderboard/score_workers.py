"""Scores each submission in a separate process, with limits on its time and memory.

If a process dies, only its submission is tried again.  All processes end when the one that started
them ends.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mico_competition.competition.in_use import InUse
from mico_competition.hosting.leaderboard.add import About, add
from mico_competition.hosting.leaderboard.truth_tree import Truth

RETRIES = 1
_LOOK_SECONDS = 0.5
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A submission to score, and how often that was tried."""

    path: Path
    about: About
    tries: int = 0


@dataclass(frozen=True)
class Terms:
    """The competition, solutions, options and limits (seconds, bytes) of a run's submissions."""

    competition: InUse
    truths: Sequence[Truth]
    resamples: int
    exact: bool
    seconds: float
    memory: int


@dataclass(frozen=True)
class Found:
    """The result of a process: values of entries, or faults; `lost` if the process died.

    `host` is a failure of the machine or of the organiser's, for which no submission is at fault.
    """

    entries: Sequence[dict[str, Any]] = ()
    faults: str = ""
    lost: bool = False
    host: OSError | ValueError | None = None


@dataclass
class _Running:
    """A running process, which is ended at `deadline`."""

    job: Job
    process: BaseProcess
    receiver: Connection
    deadline: float


def run_jobs(jobs: deque[Job], terms: Terms, workers: int) -> Iterator[tuple[Job, Found]]:
    """Run all `jobs`, `workers` at a time, and yield results as processes end.

    Raises:
        OSError: if the machine fails; earlier results are valid.
        ValueError: if the competition's file was changed; likewise.
    """
    running: list[_Running] = []
    # Workers read from this pipe, which is closed when this process ends.
    lifeline, held = multiprocessing.Pipe(duplex=False)
    scratch = tempfile.mkdtemp(prefix="mico_score_all_")  # a process that is killed cleans nothing
    try:
        while jobs or running:
            while jobs and len(running) < workers:
                running.append(_start(jobs.popleft(), terms, scratch, lifeline))
            wait([one.receiver for one in running], timeout=_LOOK_SECONDS)
            for one in list(running):
                found = _look(one)
                if found is None:
                    continue
                running.remove(one)
                if found.host:
                    raise found.host
                if found.lost and one.job.tries < RETRIES:
                    jobs.append(replace(one.job, tries=one.job.tries + 1))
                else:
                    yield one.job, found
    finally:
        for one in running:
            _end(one)
        held.close()
        lifeline.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _start(job: Job, terms: Terms, scratch: str, lifeline: Connection) -> _Running:
    context = multiprocessing.get_context("forkserver")
    # The server imports this once, so that the processes it forks start fast.
    context.set_forkserver_preload([__name__])
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(job, terms, scratch, sender, lifeline), daemon=True
    )
    _start_server()
    process.start()
    sender.close()  # so that the receiver sees the end if the process dies
    return _Running(job, process, receiver, time.monotonic() + terms.seconds)


def _start_server() -> None:
    """Start the server process that forks the workers.

    It limits numpy to one thread, as there is a process for each core, and ignores Ctrl-C, which
    the first process handles.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    alone = threading.current_thread() is threading.main_thread()
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN) if alone else None
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if alone:
            signal.signal(signal.SIGINT, heard)


def _work(job: Job, terms: Terms, scratch: str, sender: Connection, lifeline: Connection) -> None:
    """Score one submission in this process, and send the result."""
    tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_first, args=(lifeline,), daemon=True).start()
    try:
        terms.competition.use()  # the server that forked this process may have begun with another
    except ValueError as error:
        sender.send(Found(host=error))
        return
    _limit_memory(terms.memory)
    try:
        entries = add(
            job.path, terms.truths, job.about, resamples=terms.resamples, exact=terms.exact
        )
        found = Found(entries)
    except ValueError as error:
        found = Found(faults=str(error))
    except OSError as error:
        found = Found(host=OSError(error.errno, error.strerror, error.filename or scratch))
    except MemoryError:
        found = Found(faults=f"it needs more than {terms.memory >> 20} MB of memory")
    except Exception as error:
        # The type alone: a message may quote what participants must not see.
        found = Found(faults=f"{type(error).__name__} while it was scored; tell the organisers")
    sender.send(found)


def _limit_memory(size: int) -> None:
    """Limit this process to `size` bytes more than it has, if the system supports that."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        return


def _die_with_first(lifeline: Connection) -> None:
    """End this process when the one that started it ends."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _look(one: _Running) -> Found | None:
    """The result of a process, or why there is none; None while it is running."""
    found = None
    try:
        if one.receiver.poll():
            found = one.receiver.recv()
        elif time.monotonic() > one.deadline:
            found = Found(faults="it took too long, and was ended")
    except (EOFError, OSError):
        found = Found(faults="its process died twice: killed, or out of memory", lost=True)
    if found is not None:
        _end(one)
    return found


def _end(one: _Running) -> None:
    with suppress(ValueError):  # it was ended before, and Ctrl-C came in the same moment
        one.process.kill()
        one.process.join()
        one.process.close()
    one.receiver.close()
