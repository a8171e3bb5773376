"""Signals computed on a Ray cluster: tasks run blocks of models, this process writes the cache.

Weights travel as bytes and arrays come back through Ray's object store, so nodes need no shared
storage.  A task that is lost with its machine is tried again by Ray; there is nothing to undo.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition.fleets.ray.link import (
    LOOK_SECONDS,
    Watch,
    checked_address,
    connected,
    import_ray,
)
from mico_competition.fleets.ray.task import check_versions, versions
from mico_competition.fleets.shared_data import Parts, Rebuild, parts_of
from mico_competition.models.architectures import load_model
from mico_competition.models.text_models import read_config
from mico_competition.signals.cache import weights_files
from mico_competition.signals.forward import Arrays, make_arrays
from mico_competition.signals.points import Points
from mico_competition.signals.signals import Runner, Wanted
from mico_competition.training.fingerprints import model_fingerprint

_BLOCK_BYTES = 2**26  # of what a task takes and gives, so that few of them fit into any memory
_AHEAD = 2  # tasks for each that can run, so that no node waits for this process


@dataclass(frozen=True)
class Job:
    """What every task is told: once in the object store, so that each node holds it once."""

    task_name: str
    parts: Parts
    rebuild: Rebuild
    versions: dict[str, str]
    threads: int
    cuda: bool
    behaviour: str | None = None  # `fingerprints.model_fingerprint` where signals are asked for


@dataclass(frozen=True)
class Model:
    """One model: its place for messages, its files, and the kinds that are wanted of it."""

    place: str
    files: dict[str, np.ndarray]
    kinds: list[str]


def on_ray(address: str) -> Runner:
    """A `runner` for `Signals` that computes on the cluster at `address` (HOST:PORT or `auto`).

    Raises:
        ImportError: if Ray is not installed.
        ValueError: if `address` is of another form; and later, if no cluster answers there, it
            is gone, or one of its nodes cannot compute.
    """
    checked_address(address)
    ray = import_ray()

    def run(points: Points, wanted: Wanted) -> Iterator[tuple[int, Arrays]]:
        with connected(ray, address), Watch(ray) as watch:
            yield from _spread(ray, watch, points, wanted)

    return run


def compute(job: Job, block: list[Model]) -> list[Arrays]:
    """Arrays of each model of a block; runs on a node, and leaves nothing there.

    Raises:
        ValueError: if this node's software is not that of the machine that asks, or a model
            cannot be loaded or gives values that are not finite.
    """
    check_versions(job.versions, "signals are asked for")
    torch.set_num_threads(job.threads)
    data = job.rebuild(job.parts)
    points = Points(job.task_name, data).to(torch.device("cuda" if job.cuda else "cpu"))
    config = None
    found = []
    for model in block:
        with tempfile.TemporaryDirectory(prefix="mico_signals_") as folder:
            for name, content in model.files.items():
                (Path(folder) / name).write_bytes(content.data)
            try:
                loaded = load_model(points.task_name, folder, device=points.device)
            except ValueError as error:  # names a folder that is not there any more
                raise ValueError(str(error).replace(folder, model.place)) from error
        if config is None:
            config = getattr(loaded, "config", {})
            _check_code(job, points, config or None)
        found.append(make_arrays(loaded, points, model.kinds, model.place))
    return found


def _check_code(job: Job, points: Points, config: Any) -> None:
    """ValueError if this node's code computes something else than that of who asks."""
    found = job.behaviour and model_fingerprint(points.task, points.data, config)
    if found != job.behaviour:
        raise ValueError(
            f"The {points.task.architecture} of the code on {os.uname().nodename} computes "
            "something else than where signals are asked for: install the same on every node."
        )


def _spread(ray: Any, watch: Watch, points: Points, wanted: Wanted) -> Iterator[tuple[int, Arrays]]:
    """Keep the cluster at work until no model is left."""
    cuda = any(node.get("GPU") for node in watch.resources())
    folder = wanted[0][0] if wanted else None
    config = read_config(points.task, folder.path) if folder and points.task.text else None
    behaviour = model_fingerprint(points.task, points.data, config)
    job = ray.put(Job(points.task_name, *parts_of(points.data), versions(), 1, cuda, behaviour))
    task = ray.remote(num_cpus=1, num_gpus=int(cuda), max_retries=3)(compute)
    waiting = _blocks(points, wanted)
    running: dict[Any, list[int]] = {}
    try:
        while waiting or running:
            slots = sum(node.get("GPU" if cuda else "CPU", 0) for node in watch.resources())
            while waiting and len(running) < max(1, _AHEAD * int(slots)):
                block = waiting.pop(0)
                running[task.remote(job, [_model(*wanted[i]) for i in block])] = block
            ready, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            if watch.gone:
                raise ValueError(watch.sentence)
            for reference in ready:
                yield from zip(running.pop(reference), _result(ray, reference))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _blocks(points: Points, wanted: Wanted) -> list[list[int]]:
    """Numbers of models, as many in a block as are worth a task and fit into memory."""
    if not wanted:
        return []
    weights = sum(path.stat().st_size for path in weights_files(wanted[0][0]))
    each = weights + len(points) * (points.task.num_classes * 4 + 40)
    size = max(1, min(32, _BLOCK_BYTES // each))
    return [list(range(len(wanted)))[i : i + size] for i in range(0, len(wanted), size)]


def _model(folder: Any, kinds: list[str]) -> Model:
    files = {path.name: np.fromfile(path, np.uint8) for path in weights_files(folder)}
    return Model(folder.place, files, kinds)


def _result(ray: Any, reference: Any) -> list[Arrays]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = " ".join(str(error.cause).split())
        raise ValueError(f"A node of the Ray cluster cannot compute signals: {cause}") from error
    except ray.exceptions.RayError as error:
        raise ValueError(
            f"A task of the Ray cluster was lost ({type(error).__name__}): run again; what was "
            "computed is kept."
        ) from error
