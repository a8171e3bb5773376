"""A short trial of a fleet's models, to tell what the fleet will cost (`cost`).

The trial trains in memory, by the code and with the settings of the fleet, and stops after some
seconds.  It then writes one model's folder, and what a release holds of it, into a folder for
temporary files, which is removed; nothing else is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.splits import draw_seeds
from mico_competition.competition.table import PHASE_NAMES, get_task
from mico_competition.fleets.clock import Enough, StepClock
from mico_competition.fleets.memory import needed
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data
from mico_competition.models.text_models import base_config
from mico_competition.release.public_files import write_public_files
from mico_competition.support.scratch import scratch
from mico_competition.training.accounting import Mechanism
from mico_competition.training.accuracy import evaluate
from mico_competition.training.fingerprints import of_training
from mico_competition.training.model_folder import describe, write_model_folder
from mico_competition.training.settings import Settings
from mico_competition.training.streams import Streams, seeded
from mico_competition.training.train import (
    evaluation_records,
    fit_records,
    mechanism_of,
    splits_of,
)
from mico_competition.training.train_stack import fit_stack_records

TRIAL_SECONDS = 5.0
_EVALUATED = 4096  # records whose evaluation is timed


@dataclass(frozen=True)
class Trial:
    """What a short run of `stack` models at once measured.

    `begin_seconds` is what a run takes besides its steps: the model, the checks of its first batch,
    the evaluation and the files.  `worker_seconds` is what each worker needs before its first run.
    `memory` is what a process holds at most, in bytes, or takes of a GPU.  `files` maps "trained"
    and each phase of a release to the sizes of a model's files, by name.  `watts` is the power that
    the GPU drew during the steps, if nvidia-smi could read it.  If `sharing` processes were
    measured at once, `gain` is how many times as many models an hour they train as one alone.
    """

    stack: int
    steps: int
    step_seconds: float
    begin_seconds: float
    worker_seconds: float
    memory: int
    device: str
    threads: int
    files: Mapping[str, Mapping[str, int]]
    watts: float | None = None
    sharing: int = 1
    gain: float | None = None


def trial(
    settings: Settings,
    data: Data,
    *,
    tokenizer: Any = None,
    mechanism: Mechanism | None = None,
    stack: int = 1,
    threads: int | None = None,
    device: torch.device | None = None,
    seconds: float = TRIAL_SECONDS,
    ready: Callable[[], Any] | None = None,
) -> Trial:
    """Train `stack` models for some seconds, as a fleet would, and measure.

    Args:
        settings: the settings of the scenario, from `settings.resolve`.
        data: the whole dataset, as `inputs.prepare` returns it.
        tokenizer: is written beside the weights of a text model.
        mechanism: what `mechanism_of(settings)` gives; computed by default.
        stack: models to train together.
        threads: of the process; by default those it has.
        device: by default the CPU.
        seconds: after which the trial ends; it takes three steps at least, unless a run is shorter.
        ready: is called after the first step, and returns when the others are to begin.

    Raises:
        ValueError: as training would; or if the memory does not suffice.
    """
    device = device or torch.device("cpu")
    mechanism = mechanism or mechanism_of(settings)
    waited = time.perf_counter()
    of_training(settings.task, data, _config(settings))
    waited = time.perf_counter() - waited
    whole, data = data, data.to(device)
    seeds = [draw_seeds() for _ in range(stack)]
    seed = None if settings.secure_mode else 0
    streams = [Streams.of(seed, one) for one in seeds]
    clock = StepClock(seconds, device, ready)
    with _threads(threads), seeded(streams[0], deterministic=seed is not None):
        memory = needed(settings, data, device=device, stack=stack, mechanism=mechanism).total
        begun = time.perf_counter()
        splits = [splits_of(settings, data, one) for one in seeds]
        task = get_task(settings.task)
        models = [new_model(task, base_model=settings.model_name) for _ in seeds]
        models = [model.to(device) for model in models]
        options: dict[str, Any] = {"observer": clock, "mechanism": mechanism}
        with suppress(Enough):
            if stack > 1:
                rows = torch.stack([split.train_indices for split in splits]).to(device)
                fit_stack_records(settings, models, data, rows, streams, False, **options)
            else:
                indices = splits[0].train_indices
                fit_records(settings, models[0], data, indices, streams[0], False, **options)
        clock.end()
        at = evaluation_records(settings, splits[0])
        started = time.perf_counter()
        results = evaluate(models[0], data, at[:_EVALUATED])
        evaluated = (time.perf_counter() - started) * len(at) / max(1, len(at[:_EVALUATED]))
        used = torch.get_num_threads()
    started = time.perf_counter()
    fingerprints = of_training(settings.task, whole, getattr(models[0], "config", None))
    again = time.perf_counter() - started
    metadata = {
        **describe(settings, mechanism, data.labels, fingerprints),
        **{"model_id": 0, "results": results, "train_seed": seed, "wall_time_seconds": 1.0},
    }
    started = time.perf_counter()
    files = _sizes(settings, models[0], splits[0], metadata, tokenizer)
    written = time.perf_counter() - started
    return Trial(
        stack=stack,
        steps=clock.steps,
        step_seconds=clock.step_seconds,
        begin_seconds=max(0.0, clock.checked - begun - clock.step_seconds)
        + again
        + (evaluated + written) * stack,
        worker_seconds=max(0.0, waited - again),
        memory=memory,
        device=device.type,
        threads=used,
        files=files,
        watts=clock.power.watts(),
    )


def _config(settings: Settings) -> Any:
    """The configuration of a text model, of which its fingerprint is taken."""
    task = get_task(settings.task)
    return base_config(task, settings.model_name) if task.text else None


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


def _sizes(
    settings: Settings, model: nn.Module, splits: Any, metadata: dict[str, Any], tokenizer: Any
) -> dict[str, dict[str, int]]:
    """The sizes of a model's files as trained and, in a scenario, as released in each phase."""
    with scratch(None, "mico-cost") as folder:
        trained = folder / "model"
        write_model_folder(trained, settings, model, splits, metadata, tokenizer=tokenizer)
        found = {"trained": _files(trained)}
        for phase in PHASE_NAMES if settings.scenario else ():
            to = folder / phase
            write_public_files(ModelFolder(settings.scenario or "", phase, 0, trained), to)
            found[phase] = _files(to)
    return found


def _files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
