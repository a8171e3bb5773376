"""The backend that trains a fleet on a Ray cluster: Ray tasks train blocks on the nodes.

A finished folder comes back as bytes through Ray's object store, and only this process writes
below --out.  So the nodes need no shared storage (--out may still be on one) and no lock across
machines.  If Ray gives up a node that is merely cut off and another node trains its block again,
one of the two results counts.  Ray alone decides which node trains what, and when.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mico_competition.fleets.fleet import Block, Outcome
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.ray.link import (
    LOOK_SECONDS,
    Watch,
    checked_address,
    connected,
    import_ray,
)
from mico_competition.fleets.ray.task import (
    Files,
    Job,
    Result,
    SharedFolder,
    call,
    train,
    try_memory,
)
from mico_competition.models.inputs import Data
from mico_competition.support.files import PRIVATE, written_aside
from mico_competition.training.accounting import Mechanism
from mico_competition.training.checkpoint import MINUTES

_WAITING = 16  # tasks queued beyond those that run, so that an autoscaler adds nodes

_log = logging.getLogger(__name__)


class RayCluster:
    """Trains blocks as tasks of a Ray cluster that this machine is a node of.

    Args:
        ledger: the fleet's ledger.
        data: the whole dataset, on the CPU.
        tokenizer: is written beside the weights of text models.
        address: HOST:PORT of the cluster's head, or `auto` for the cluster of this machine.
        threads: the CPUs of each task, >= 1; by default 1.
        gpus_per_task: the GPUs of each task, in [0, 1]; a fraction lets tasks share a GPU.  By
            default 1 if the cluster has GPUs when the fleet starts, else 0.
        checkpoint_minutes: the time between two checkpoints of a model; 0 writes none.  Nodes that
            do not see the ledger's folder write none either, and report nothing.
        track: one of `training.trackers.TRACKERS`, to which runs report.

    Raises:
        ImportError: if Ray is not installed.
        ValueError: for an argument out of range; and from `run`, if no cluster answers.
    """

    def __init__(
        self,
        ledger: Ledger,
        data: Data,
        tokenizer: Any = None,
        *,
        address: str,
        threads: int | None = None,
        gpus_per_task: float | None = None,
        checkpoint_minutes: float = MINUTES,
        track: str | None = None,
    ) -> None:
        if gpus_per_task is not None and not 0 <= gpus_per_task <= 1:
            raise ValueError(f"Expected --gpus_per_task {gpus_per_task:g} in [0, 1].")
        self._address = checked_address(address)
        self._ray = import_ray()
        self._ledger = ledger
        self._gpus, self._minutes, self._track = gpus_per_task, checkpoint_minutes, track
        self._blind: set[str] = set()  # nodes that do not see the checkpoints
        code = ledger.architecture_fingerprint, ledger.training_fingerprint
        self._job = Job.of(ledger.settings, data, tokenizer, threads or 1, *code)

    def run(self, blocks: deque[Block]) -> Generator[Outcome | float | None, None, None]:
        """See `fleet.Backend`."""
        if not blocks:
            return
        folder = Path(os.path.abspath(self._ledger.folder))
        shared = SharedFolder.create(folder, self._minutes, self._track)
        job = replace(self._job, shared=shared)
        with connected(self._ray, self._address), Watch(self._ray) as watch:
            tasks = _Tasks(self._ray, job, self._gpus, watch)
            running: dict[Any, Block] = {}
            try:
                fault = yield from self._memory_fault(blocks, running, tasks, watch)
                if fault:
                    yield Outcome(blocks[0], fault, fatal=True)
                else:
                    yield from self._spread(blocks, running, tasks, watch)
            finally:
                for reference in running:
                    self._ray.cancel(reference, force=True)
                shared.remove()

    def _memory_fault(
        self, blocks: deque[Block], running: dict[Any, Block], tasks: _Tasks, watch: Watch
    ) -> Generator[None, None, str | None]:
        """Try on one node, before any task trains, whether training fits; the fault, if any."""
        stack = max(len(block.entries) for block in blocks)
        reference = tasks.submit_trial(stack, self._ledger.mechanism)
        running[reference] = blocks[0]
        while not watch.gone and not self._ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            tasks.room()  # warns if none has room
            yield None
        if watch.gone:
            return watch.sentence
        del running[reference]
        errors = self._ray.exceptions
        try:
            fault: str | None = self._ray.get(reference)
        except errors.RayError:  # it says so again when it is to train
            return None
        return fault

    def _spread(
        self, blocks: deque[Block], running: dict[Any, Block], tasks: _Tasks, watch: Watch
    ) -> Iterator[Outcome | None]:
        """Keep the cluster busy until no block is left."""
        while blocks or running:
            for _ in range(min(tasks.room() - len(running), len(blocks))):
                block = blocks.popleft()
                running[tasks.submit(block)] = block
            ready, _ = self._ray.wait(list(running), timeout=LOOK_SECONDS)
            if not ready:
                yield None
            for reference in ready:
                yield self._outcome(reference, running.pop(reference), watch)
            if watch.gone:
                waiting = [*blocks, *running.values()]
                if waiting:
                    yield Outcome(waiting[0], watch.sentence, fatal=True)
                return

    def _outcome(self, reference: Any, block: Block, watch: Watch) -> Outcome:
        """Fetch the result of a task, and write its models' folders."""
        errors = self._ray.exceptions
        try:
            result: Result = self._ray.get(reference)
        except errors.LocalRayletDiedError as error:  # every later task would fail the same way
            return Outcome(block, f"{error}\n{watch.sentence}", fatal=True)
        except errors.RayTaskError as error:
            # `train_block` reports errors of training itself, so this node could not even begin:
            # it lacks the package, say.  It would fail all other blocks within seconds.
            cause = " ".join(str(error.cause).split())
            sentence = f"A node of the Ray cluster cannot train: {cause}"
            return Outcome(block, f"{error}\n{sentence}", fatal=True)
        except errors.RayError as error:
            sentence = f"The task was lost with its process or machine ({type(error).__name__})."
            return Outcome(block, f"{error}\n{sentence}", lost=True)
        try:
            for model_id, files in result.folders.items():
                _write(files, self._ledger.folder_of(model_id))
        except OSError as error:
            return Outcome(block, f"Models could not be written: {error}", fatal=True)
        if not result.shared and result.node not in self._blind:
            self._blind.add(result.node)
            _log.warning(
                "%s does not see %s, so it writes neither checkpoints nor reports: a model that is "
                "lost with its process there begins anew.",
                result.node,
                self._ledger.folder,
            )
        return Outcome(block, result.error, lost=result.lost, fatal=result.fatal)


class _Tasks:
    """Submits blocks as Ray tasks, and computes how many the cluster can take."""

    def __init__(self, ray: Any, job: Job, gpus: float | None, watch: Watch) -> None:
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU") for node in watch.resources()) else 0.0
        self._cpus, self._gpus, self._watch = job.threads, gpus, watch
        self._scenario = job.settings.scenario
        self._job = ray.put(replace(job, cuda=gpus > 0))
        # Ray must not retry: the fleet does, which counts the tries and splits a failed stack.
        with_needs = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)
        # One function for both kinds: Ray would wait for the head again to send another.
        self._task = with_needs(call)
        self._waits = False

    def submit(self, block: Block) -> Any:
        """The reference of a new task that trains `block`."""
        ids = block.model_ids
        name = f"{self._scenario} {ids[0]}" + (f" to {ids[-1]}" if len(ids) > 1 else "")
        return self._task.options(name=name).remote(train, self._job, block)

    def submit_trial(self, stack: int, mechanism: Mechanism | None) -> Any:
        """The reference of a new task that tries whether `stack` models fit into memory."""
        if self._gpus:
            sharing = int(1 / self._gpus + 1e-6)
        else:
            sharing = max([1, *map(self._slots, self._watch.resources())])
        task = self._task.options(name=f"{self._scenario} memory")
        return task.remote(try_memory, self._job, stack, sharing, mechanism)

    def room(self) -> int:
        """How many tasks may be in flight: enough to keep the current nodes busy.

        There is a limit so that a slow disk here does not fill the nodes' memory with results.  If
        no node has room for a task, this logs one warning.
        """
        slots = sum(self._slots(node) for node in self._watch.resources())
        if not slots and not self._waits:
            _log.warning(
                "No node of the Ray cluster has room for a task of %d CPU(s) and %g GPU(s): "
                "waiting for one to join.",
                self._cpus,
                self._gpus,
            )
        self._waits = not slots
        return max(2 * slots, slots + _WAITING)

    def _slots(self, node: dict[str, float]) -> int:
        """How many tasks a node can run at once; no task gets parts of two GPUs."""
        slots = int(node.get("CPU", 0) // self._cpus)
        if self._gpus:
            slots = min(slots, int(node.get("GPU", 0)) * int(1 / self._gpus + 1e-6))
        return slots


def _write(files: Files, folder: Path) -> None:
    """Write a model's folder atomically, unless it exists already."""
    if folder.is_dir():
        return
    with written_aside(folder, durable=True, access=PRIVATE) as aside:
        for name, content in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.data)
