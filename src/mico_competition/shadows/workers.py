"""Runs a job's shadow models in this process, in processes of this machine, or on an executor."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

from mico_competition.shadows.one_shadow import Job
from mico_competition.support.scratch import scratch

_log = logging.getLogger(__name__)

_PARENT_SECONDS = 0.5  # between two looks at whether the parent is alive


def trained(
    job: Job, indices: Sequence[int], workers: int, executor: Any
) -> Iterator[tuple[int, bytes]]:
    """Train the shadow models `indices`, and yield each with its bytes when it is ready.

    Args:
        job: what to train.
        indices: the shadow models that are wanted.
        workers: processes of this machine, if there is no executor; 1 for this process.
        executor: an object with `submit(function, *arguments)`, or "ray", or None.

    Raises:
        OSError: if a process dies.
    """
    if not indices:
        return
    if executor is None and workers > 1:
        content = _sendable(job)
        if content is not None:
            yield from _in_processes(content, indices, min(workers, len(indices)))
            return
    if executor is None:
        for index in indices:
            yield index, job.run(index)
        return
    content = _pickled(job)
    if executor == "ray":
        executor = RayTasks(job.threads)
    yield from _completed({executor.submit(run_pickled, content, i): i for i in indices})


def _in_processes(
    content: bytes, indices: Sequence[int], workers: int
) -> Iterator[tuple[int, bytes]]:
    """Processes read the job from a file once, and not from a pipe for each shadow model."""
    from joblib.externals.loky import ProcessPoolExecutor

    with scratch(None, "mico_shadows") as folder:
        path = folder / "job.pickle"
        path.write_bytes(content)
        # Unlike multiprocessing's, these processes do not run the user's script again, so that it
        # needs no `if __name__ == "__main__"`.
        executor = ProcessPoolExecutor(workers, initializer=_begin, initargs=(os.getpid(),))
        try:
            yield from _completed({executor.submit(run_file, path, i): i for i in indices})
        finally:
            executor.shutdown(wait=True, kill_workers=True)


def _completed(running: dict[Future[bytes], int]) -> Iterator[tuple[int, bytes]]:
    try:
        for future in as_completed(running):
            index = running.pop(future)
            try:
                content = future.result()
            except BrokenProcessPool as error:
                raise OSError(
                    "A process that trained shadow models died, perhaps for lack of memory: give "
                    "fewer workers, and a folder, from which the next call goes on."
                ) from error
            yield index, content
    finally:
        for future in running:
            future.cancel()


def _begin(parent: int) -> None:
    """Make this process a worker, which ends when its parent does, even if that is killed."""
    os.environ["MICO_QUIET"] = "1"  # the caller shows the progress
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def run_file(path: Path, index: int) -> bytes:
    """Train shadow model `index` of the job in a file."""
    return _read(path).run(index)


@lru_cache(maxsize=1)
def _read(path: Path) -> Job:
    return _unpickled(path.read_bytes())


@lru_cache(maxsize=1)
def _unpickled(content: bytes) -> Job:
    job: Job = _cloudpickle().loads(content)
    return job


def run_pickled(content: bytes, index: int) -> bytes:
    """Train shadow model `index` of a pickled job."""
    return _unpickled(content).run(index)


def _sendable(job: Job) -> bytes | None:
    """The job as bytes; None, with a warning, if it cannot be sent to another process."""
    try:
        return _pickled(job)
    except ValueError as error:
        _log.warning("%s Training in this process.", error)
        return None


def _pickled(job: Job) -> bytes:
    try:
        content: bytes = _cloudpickle().dumps(job)
    except Exception as error:  # pickle's errors have many types
        raise ValueError(
            "make_model, train or dataset cannot be sent to another process "
            f"({type(error).__name__}: {str(error)[:200]})."
        ) from error
    return content


def _cloudpickle() -> Any:
    """The pickle that also takes lambdas and functions of a notebook; joblib brings it."""
    try:
        import cloudpickle
    except ImportError:  # joblib before 1.6
        from joblib.externals import cloudpickle
    return cloudpickle


class RayTasks(Executor):
    """Submits functions as tasks of Ray, with `threads` CPUs each; the job is sent once."""

    def __init__(self, threads: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise ValueError(
                'executor="ray" needs Ray: pip install "mico_competition[cluster]".'
            ) from error
        if not ray.is_initialized():
            ray.init()
        self._ray = ray
        self._task = ray.remote(num_cpus=threads)(run_pickled)
        self._sent: dict[int, Any] = {}

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        """Start `run_pickled(content, index)` on the cluster."""
        content, index = arguments
        if id(content) not in self._sent:
            self._sent[id(content)] = self._ray.put(content)
        reference: Future[Any] = self._task.remote(self._sent[id(content)], index).future()
        return reference
