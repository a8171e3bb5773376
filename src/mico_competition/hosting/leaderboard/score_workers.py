"""Scores submissions in processes of their own, each with a limit on its time and memory.

A process that dies costs its own submission another try, and nobody else's; all of them end when
the process that started them does, in whatever way.
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

from mico_competition.competition.table import use
from mico_competition.hosting.leaderboard.add import About, add
from mico_competition.hosting.leaderboard.truth_tree import Truth

RETRIES = 1
_LOOK_SECONDS = 0.5
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One submission to score; `tries` it already had."""

    path: Path
    about: About
    tries: int = 0


@dataclass(frozen=True)
class Terms:
    """What every submission of a run is scored by, and within: seconds, bytes.

    `competition` is the file of the competition in use, None for the package's own.
    """

    truths: Sequence[Truth]
    resamples: int
    exact: bool
    seconds: float
    memory: int
    competition: Path | None = None


@dataclass(frozen=True)
class Found:
    """What a process found: values of entries, or faults; `lost` if it died before it could.

    `host` is what this machine could not do: no fault of the submission, and no other will do
    better.
    """

    entries: Sequence[dict[str, Any]] = ()
    faults: str = ""
    lost: bool = False
    host: OSError | None = None


@dataclass
class _Running:
    """A process at work; `deadline` is when it is ended."""

    job: Job
    process: BaseProcess
    receiver: Connection
    deadline: float


def run_jobs(jobs: deque[Job], terms: Terms, workers: int) -> Iterator[tuple[Job, Found]]:
    """Do all `jobs`, `workers` at a time; yields what was found, in the order of their ends.

    Raises:
        OSError: as soon as this machine cannot go on; what was yielded before is sound.
    """
    running: list[_Running] = []
    # Workers wait at the reading end: it ends when this process does.
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
    # Imported once, before processes are forked from it: each then starts in a moment.
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
    """Start the process that others are forked from, with what they shall have of it.

    One thread for numpy, as there is a process a core; and no ear for Ctrl-C, from their first
    moment on: that is the first process' to answer.
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
    """Score one submission in a process of its own, and send what came of it."""
    tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_first, args=(lifeline,), daemon=True).start()
    _limit_memory(terms.memory)
    try:
        use(terms.competition)  # the server that forked this process may have begun with another
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
    """Let this process take `size` bytes more than it has; where that cannot be said, any."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        return


def _die_with_first(lifeline: Connection) -> None:
    """End this process when the one that started it ends, in whatever way."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _look(one: _Running) -> Found | None:
    """What a process found, or why it found nothing; None while it is at work."""
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
