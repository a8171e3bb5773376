"""A short trial of a fleet's models, to tell what the fleet will cost (`cost`).

The trial trains in memory, by the code and with the settings of the fleet, and stops after some
steps.  It then writes one model's folder, and what a release holds of it, into a folder for
temporary files, which is removed; nothing else is written.  Only the model's folder counts as time
of the fleet, which writes no release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from mico_competition.competition.challenge import ChallengeDataset
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

TRIAL_SECONDS = 5.0  # of short steps a trial takes as many as these seconds hold
TRIAL_STEPS = 20  # of long ones no fewer, unless they take longer than
LONGEST_SECONDS = 30.0
_EVALUATED = 4096  # records whose evaluation is timed


@dataclass(frozen=True)
class Trial:
    """What a short run of `stack` models at once measured.

    `step_seconds` has a step's share of the draw of its epoch's batches.  `begin_seconds` is what a
    run takes besides its steps: the splits, the model, the checks of its first batch, the
    evaluation and the files, which take `written_seconds` for each model.  `worker_seconds` is what
    each worker needs before its first run.
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
    written_seconds: float = 0.0
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
    longest: float = LONGEST_SECONDS,
    like: Trial | None = None,
    ready: Callable[[], Any] | None = None,
) -> Trial:
    """Train `stack` models for some steps, as a fleet would, and measure.

    Args:
        settings: the settings of the scenario, from `settings.resolve`.
        data: the whole dataset, as `inputs.prepare` returns it.
        tokenizer: is written beside the weights of a text model.
        mechanism: what `mechanism_of(settings)` gives; computed by default.
        stack: models to train together.
        threads: of the process; by default those it has.
        device: by default the CPU.
        seconds: after which the trial ends if it has taken 20 steps.
        longest: seconds after which it ends with fewer; it takes three steps at least, unless a run
            is shorter.
        like: an earlier trial of models of the same size, whose files count; none are written then.
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
    clock = _TrialClock(seconds, longest, device, ready)
    with _threads(threads), seeded(streams[0], deterministic=seed is not None):
        memory = needed(settings, data, device=device, stack=stack, mechanism=mechanism).total
        others = [torch.randperm(len(data))[: settings.len_training] for _ in seeds[1:]]
        begun = time.perf_counter()
        split = splits_of(settings, data, seeds[0])
        indices = split.train_indices
        splitting = time.perf_counter() - begun  # of each model, but the others have other rows
        task = get_task(settings.task)
        models = [new_model(task, base_model=settings.model_name) for _ in seeds]
        models = [model.to(device) for model in models]
        rows = [indices, *others]
        with suppress(Enough):
            _fit(settings, models, data, rows, streams, observer=clock, mechanism=mechanism)
        clock.end()
        results, evaluated = _evaluated(settings, models[0], data, split)
        used = torch.get_num_threads()
    started = time.perf_counter()
    fingerprints = of_training(settings.task, whole, getattr(models[0], "config", None))
    again = time.perf_counter() - started
    if like is None:
        metadata = {
            **describe(settings, mechanism, data.labels, fingerprints),
            **{"model_id": 0, "results": results, "train_seed": seed, "wall_time_seconds": 1.0},
        }
        files, written = _written(settings, models[0], split, metadata, tokenizer)
    else:
        files, written = like.files, like.written_seconds
    return Trial(
        stack=stack,
        steps=clock.steps,
        step_seconds=clock.step_seconds + clock.draw_seconds / settings.steps_per_epoch,
        begin_seconds=max(0.0, clock.checked - begun - clock.drawn - clock.step_seconds)
        + again
        + splitting * (stack - 1)
        + (evaluated + written) * stack,
        worker_seconds=max(0.0, waited - again),
        memory=memory,
        device=device.type,
        threads=used,
        files=files,
        written_seconds=written,
        watts=clock.power.watts(),
    )


class _TrialClock(StepClock):
    """Also times the draw of each epoch's batches, which no step of the trial then contains.

    The batches of an epoch are drawn before its first step.  A trial of a few steps sees one such
    draw, and a run of 30 epochs 30 of them.
    """

    def __init__(
        self,
        seconds: float,
        longest: float,
        device: torch.device,
        ready: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(max(seconds, longest), device, ready)
        self._enough = seconds
        self._since: float | None = None
        self._draws: list[float] = []
        self.drawn = 0.0  # seconds of draws before the second step

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """See `StepClock`; the first batches are drawn next."""
        self._since = self._now()

    def before(self, batch: Any) -> None:
        """See `StepClock`."""
        if self._since is not None:
            took, self._since = self._now() - self._since, None
            self._draws.append(took)
            self._begun += took
            self.drawn += took if self.steps < 2 else 0.0
        if self.steps >= TRIAL_STEPS:
            self._seconds = self._enough
        super().before(batch)

    def end_epoch(self) -> None:
        """See `StepClock`; the batches of the next epoch are drawn next."""
        self._since = self._now()

    @property
    def draw_seconds(self) -> float:
        """What the draw of an epoch's batches takes; without the first one if there are others."""
        return fmean(self._draws[1:] or self._draws or [0.0])


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


def _fit(
    settings: Settings,
    models: list[nn.Module],
    data: Data,
    rows: list[torch.Tensor],
    streams: list[Streams],
    **options: Any,
) -> None:
    """Train models as a worker does, model s on the records in `rows[s]`."""
    if len(models) == 1:
        fit_records(settings, models[0], data, rows[0], streams[0], False, **options)
        return
    on = data.labels.device
    indices = torch.stack([row.to(on) for row in rows])
    fit_stack_records(settings, models, data, indices, streams, False, **options)


def _evaluated(
    settings: Settings, model: nn.Module, data: Data, split: ChallengeDataset
) -> tuple[dict[str, Any], float]:
    """The results of a model on a part of its evaluation records, and the seconds for all."""
    at = evaluation_records(settings, split)
    started = time.perf_counter()
    results = evaluate(model, data, at[:_EVALUATED])
    seconds = time.perf_counter() - started
    return results, seconds * len(at) / max(1, len(at[:_EVALUATED]))


def _written(
    settings: Settings, model: nn.Module, splits: Any, metadata: dict[str, Any], tokenizer: Any
) -> tuple[Mapping[str, Mapping[str, int]], float]:
    """The sizes of a model's files as trained and, in a scenario, as released in each phase.

    Beside them the seconds that those take which a fleet writes: the files as trained.
    """
    with scratch(None, "mico-cost") as folder:
        trained = folder / "model"
        started = time.perf_counter()
        write_model_folder(trained, settings, model, splits, metadata, tokenizer=tokenizer)
        seconds = time.perf_counter() - started
        found = {"trained": _files(trained)}
        for phase in PHASE_NAMES if settings.scenario else ():
            to = folder / phase
            write_public_files(ModelFolder(settings.scenario or "", phase, 0, trained), to)
            found[phase] = _files(to)
    return found, seconds


def _files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
