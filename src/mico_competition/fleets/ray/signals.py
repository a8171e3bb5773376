"""Computes signals on a Ray cluster: tasks run blocks of models, and this process fills the cache.

Weights and arrays travel through Ray's object store, so the nodes need no shared storage.  Ray
itself retries a task whose machine is lost.
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

_BLOCK_BYTES = 2**26  # the most bytes that go into and come out of a task
_AHEAD = 2  # tasks in flight for each that can run, so that no node waits for this process


@dataclass(frozen=True)
class Job:
    """What all tasks share; each node keeps one copy in its object store."""

    task_name: str
    parts: Parts
    rebuild: Rebuild
    versions: dict[str, str]
    threads: int
    cuda: bool
    behaviour: str | None = None  # `fingerprints.model_fingerprint` on the submitting machine


@dataclass(frozen=True)
class Model:
    """One model: its path in messages, its files, and the kinds of arrays to compute."""

    relative_path: str
    files: dict[str, np.ndarray]
    kinds: list[str]


def on_ray(address: str) -> Runner:
    """Make a `runner` for `Signals` that computes on the cluster at `address`.

    Args:
        address: HOST:PORT or `auto`.

    Raises:
        ImportError: if Ray is not installed.
        ValueError: if `address` has another form; and later, from the runner, if no cluster
            answers, the cluster is gone, or a node cannot compute.
    """
    checked_address(address)
    ray = import_ray()

    def run(points: Points, wanted: Wanted) -> Iterator[tuple[int, Arrays]]:
        with connected(ray, address), Watch(ray) as watch:
            yield from _spread(ray, watch, points, wanted)

    return run


def compute(job: Job, block: list[Model]) -> list[Arrays]:
    """Compute the arrays of each model of a block, on a node, leaving no files there.

    Raises:
        ValueError: if this node's software differs from the submitting machine's, or a model
            cannot be loaded or gives values that are not finite.
    """
    check_versions(job.versions, "the command runs")
    torch.set_num_threads(job.threads)
    data = job.rebuild(job.parts)
    points = Points(job.task_name, data).to(torch.device("cuda" if job.cuda else "cpu"))
    config = None
    arrays = []
    for model in block:
        with tempfile.TemporaryDirectory(prefix="mico_signals_") as folder:
            for name, content in model.files.items():
                (Path(folder) / name).write_bytes(content.data)
            try:
                loaded = load_model(points.task_name, folder, device=points.device)
            except ValueError as error:  # name the model instead of the temporary folder
                raise ValueError(str(error).replace(folder, model.relative_path)) from error
        if config is None:
            config = getattr(loaded, "config", {})
            _check_code(job, points, config or None)
        arrays.append(make_arrays(loaded, points, model.kinds, model.relative_path))
    return arrays


def _check_code(job: Job, points: Points, config: Any) -> None:
    """Raise ValueError if this node's code computes other outputs than the submitting machine's."""
    behaviour = job.behaviour and model_fingerprint(points.task, points.data, config)
    if behaviour != job.behaviour:
        raise ValueError(
            f"The {points.task.architecture} of the code on {os.uname().nodename} computes "
            "something else than where the command runs: install the same on every node."
        )


def _spread(ray: Any, watch: Watch, points: Points, wanted: Wanted) -> Iterator[tuple[int, Arrays]]:
    """Keep the cluster busy until no model is left."""
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
    """Blocks of indices into `wanted`, each of as many models as fit into _BLOCK_BYTES."""
    if not wanted:
        return []
    weights = sum(path.stat().st_size for path in weights_files(wanted[0][0]))
    each = weights + len(points) * (points.task.num_classes * 4 + 40)
    size = max(1, min(32, _BLOCK_BYTES // each))
    return [list(range(len(wanted)))[i : i + size] for i in range(0, len(wanted), size)]


def _model(folder: Any, kinds: list[str]) -> Model:
    files = {path.name: np.fromfile(path, np.uint8) for path in weights_files(folder)}
    return Model(folder.relative_path, files, kinds)


def _result(ray: Any, reference: Any) -> list[Arrays]:
    try:
        found: list[Arrays] = ray.get(reference)
        return found
    except ray.exceptions.RayTaskError as error:
        cause = " ".join(str(error.cause).split())
        raise ValueError(f"A node of the Ray cluster cannot compute signals: {cause}") from error
    except ray.exceptions.RayError as error:
        raise ValueError(
            f"A task of the Ray cluster was lost ({type(error).__name__}): run the command again; "
            "computed signals are kept."
        ) from error
