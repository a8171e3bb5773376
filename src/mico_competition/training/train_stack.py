"""Trains a stack of models of one scenario together: splits, trains, evaluates, and writes folders.

It is to many small models what `train` is to one; see `train_many` for which models are stacked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import get_task
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data, default_device
from mico_competition.models.precision import check_available
from mico_competition.training.accounting import Mechanism, check_mechanism
from mico_competition.training.accuracy import evaluate
from mico_competition.training.checkpoint import Checkpoint, OpenCheckpoint, opened
from mico_competition.training.checkpoint_facts import facts_of
from mico_competition.training.epochs import Observer, Show, run_epochs
from mico_competition.training.fingerprints import of_training
from mico_competition.training.model_folder import describe, free_folder, write_model_folder
from mico_competition.training.run_report import Report, Reports, RunReport
from mico_competition.training.run_state import Position, RunState
from mico_competition.training.sentence_order import ALL, OrderedRecords
from mico_competition.training.settings import Settings, check
from mico_competition.training.stack_memory import check_memory
from mico_competition.training.stacked_batches import stacked_batches
from mico_competition.training.stacked_checkpoint import StackedCheckpoint, load_common
from mico_competition.training.stacked_model import EXAMPLES, check_stacking, stacked, unstack
from mico_competition.training.stacked_step import StackedDPSGD as StackedDPSGD
from mico_competition.training.stacked_step import StackedPlainTrainer
from mico_competition.training.streams import Streams, generator_of, sampling_of, seeded
from mico_competition.training.train import (
    check_weights,
    evaluation_records,
    mechanism_of,
    optimizer_of,
    positions_of,
    private_arguments,
    splits_of,
)
from mico_competition.training.train import (
    epoch_of as epoch_of,  # audited from here, as is StackedDPSGD
)


@dataclass(frozen=True)
class Run:
    """What distinguishes a model from the others of its scenario, and where it is written."""

    seeds: Seeds
    folder: Path
    model_id: int | None = None
    train_seed: int | None = None
    checkpoint: Checkpoint | None = None
    report: RunReport | None = None


@dataclass
class _Model:
    """A model of a stack, with its splits and random streams, before its training."""

    run: Run
    folder: Path
    splits: ChallengeDataset
    streams: Streams
    module: Any
    checkpoint: OpenCheckpoint | None = None


def train_stack(
    settings: Settings,
    data: Data,
    runs: Sequence[Run],
    tokenizer: Any,
    device: torch.device | None,
    progress: Show,
    mechanism: Mechanism | None,
) -> list[dict[str, Any]]:
    """Train models together and write their folders; return their metadata in the order of `runs`.

    Models whose checkpoints are of different steps are trained in a stack for each of these steps.
    See `train_many` for the arguments and errors.
    """
    check(settings, len(data))
    check_mechanism(settings, mechanism)
    check_available(settings.precision, device or default_device())
    whole, data = data, data.to(device or default_device())
    on, spent = data.labels.device, mechanism or mechanism_of(settings)
    models = [_begun(settings, data, run) for run in runs]
    config = getattr(models[0].module, "config", None)
    fingerprints = of_training(settings.task, whole, config)
    described = describe(settings, spent, data.labels, fingerprints)
    told: dict[int, dict[str, Any]] = {}
    with ExitStack() as stack:
        for model in models:
            own = replace(settings, train_seed=model.run.train_seed)
            facts = partial(facts_of, own, model.run.seeds, on, fingerprints, spent)
            place = opened(model.run.checkpoint, facts, load=False)
            model.checkpoint = stack.enter_context(place)
        load_common([model.checkpoint for model in models if model.checkpoint])
        for numbers in _by_step(models):
            part = [models[number] for number in numbers]
            shown = _of_all(progress, len(told), len(part), len(models))
            seconds = _fit(settings, data, part, shown, spent)
            for number, model in zip(numbers, part):
                told[number] = _written(
                    settings, data, model, described, tokenizer, len(part), seconds
                )
    return [told[number] for number in range(len(models))]


def _begun(settings: Settings, data: Data, run: Run) -> _Model:
    """A model with its first weights, on the device of `data`."""
    folder = free_folder(run.folder)
    splits = splits_of(settings, data, run.seeds)
    streams = Streams.of(run.train_seed, run.seeds)
    with seeded(streams, deterministic=run.train_seed is not None):
        module = new_model(get_task(settings.task), base_model=settings.model_name)
    return _Model(run, folder, splits, streams, module.to(data.labels.device))


def _by_step(models: Sequence[_Model]) -> list[list[int]]:
    """The numbers of the models that stand at one step, for each step; the farthest come first."""
    found: dict[int, list[int]] = {}
    for number, model in enumerate(models):
        steps = model.checkpoint.steps if model.checkpoint else 0
        found.setdefault(steps, []).append(number)
    return [found[steps] for steps in sorted(found, reverse=True)]


def _of_all(progress: Show, done: int, count: int, total: int) -> Show:
    """`progress` of `count` models that are trained after `done` others, of `total`."""
    if not callable(progress):
        return progress
    return lambda part: progress((done + part * count) / total)


def _fit(
    settings: Settings,
    data: Data,
    models: Sequence[_Model],
    progress: Show,
    mechanism: Mechanism | None,
) -> float:
    """Train models that stand at one step; return the seconds that each of them took."""
    started = time.perf_counter()
    indices = torch.stack([model.splits.train_indices for model in models])
    reports = [model.run.report for model in models if model.run.report]
    streams = [model.streams for model in models]
    repeat = any(model.run.train_seed is not None for model in models)
    with seeded(streams[0], deterministic=repeat):
        fit_stack_records(
            settings,
            [model.module for model in models],
            data,
            indices.to(data.labels.device),
            streams,
            progress,
            mechanism=mechanism,
            checkpoints=[model.checkpoint for model in models if model.checkpoint],
            report=Reports(reports) if reports else None,
        )
    return (time.perf_counter() - started) / len(models)


def _written(
    settings: Settings,
    data: Data,
    model: _Model,
    described: Mapping[str, Any],
    tokenizer: Any,
    stack: int,
    seconds: float,
) -> dict[str, Any]:
    """Evaluate a model that was trained, and write its folder; return its metadata."""
    run, checkpoint = model.run, model.checkpoint
    earlier = checkpoint.seconds if checkpoint else 0.0
    metadata = {
        **described,
        "model_id": run.model_id,
        "results": evaluate(model.module, data, evaluation_records(settings, model.splits)),
        "train_seed": run.train_seed,
        "wall_time_seconds": round(seconds + earlier, 3),
        "stack": stack,
        **({"resumed": checkpoint.resumed} if checkpoint and checkpoint.resumed else {}),
    }
    write_model_folder(
        model.folder, settings, model.module, model.splits, metadata, tokenizer=tokenizer
    )
    if checkpoint:
        checkpoint.done()
    if run.report:
        run.report.end(metadata)
    return metadata


def fit_stack_records(
    settings: Settings,
    models: Sequence[Any],
    data: Data,
    indices: torch.Tensor,
    streams: Sequence[Streams],
    progress: Show,
    **options: Any,
) -> None:
    """Train `models` in place; model s is trained on the records in row s of `indices` [S, n].

    `options` go to `fit_stack`.

    Raises:
        ValueError: if the models do not stack, or a stack of so many does not fit into memory.
    """
    check_memory(settings, models[0], data.inputs(indices[0, :1]), len(models))
    check_stacking(models[0], data.inputs(indices[0, :EXAMPLES]))
    whole = stacked(models)
    records = OrderedRecords(whole, data, indices.flatten(), positions_of(settings, ALL))
    first = torch.arange(len(indices)) * indices.shape[1]
    starts = {device.type: first.to(device) for device in (first.device, indices.device)}

    def inputs(positions: torch.Tensor) -> Any:
        own = starts[positions.device.type]
        return records.inputs((positions + own.unsqueeze(1)).flatten())

    def order(batches: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return [records.order(batch + start) - start for batch, start in zip(batches, first)]

    options = {"order": order if records.ordered else None, **options}
    fit_stack(settings, whole, inputs, data.labels[indices], streams, progress, **options)
    unstack(whole, models)
    for model in models:
        check_weights(model)
        model.eval()


def fit_stack(
    settings: Settings,
    whole: torch.nn.Module,
    inputs: Callable[[torch.Tensor], Any],
    labels: torch.Tensor,
    streams: Sequence[Streams],
    progress: Show = False,
    *,
    order: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]] | None = None,
    observer: Observer | None = None,
    make_trainer: Callable[..., StackedDPSGD] | None = None,
    epoch: Callable[..., Iterator[torch.Tensor]] | None = None,
    mechanism: Mechanism | None = None,
    checkpoints: Sequence[OpenCheckpoint] = (),
    report: Report | None = None,
) -> None:
    """Train a stack in place; `mico audit-train` audits this function by an observer.

    Args:
        settings: the settings of the scenario.
        whole: the models, as `stacked` makes one module of them.
        inputs: maps positions [S, b] among each model's training records to the inputs of `whole`.
        labels: int64[S, n], labels by position.
        streams: the seeds of each model's batches and noise.
        progress: as in `train_model`.
        order: puts the batches of the models in the order in which they are split, on the host; by
            default they stay as drawn, and are moved to the device.
        observer, make_trainer, epoch, mechanism, report: as in `train.fit`, for `StackedDPSGD`.
        checkpoints: those of the models, at one step; they have the state to go on from, and take
            later ones.
    """
    device = labels.device
    epoch = epoch or epoch_of
    optimizer = optimizer_of(settings, whole.train())
    samplings = [sampling_of(settings, stream) for stream in streams]
    noises = [generator_of(settings, stream.noise, device) for stream in streams]
    trainer: StackedPlainTrainer | StackedDPSGD
    if settings.disable_dp:
        size = settings.max_physical_batch_size
        graphs = settings.cuda_graphs
        trainer = StackedPlainTrainer(
            whole, optimizer, size, settings.precision, cuda_graphs=graphs
        )
    else:
        trainer = (make_trainer or StackedDPSGD)(
            whole, optimizer, noise_generators=noises, **private_arguments(settings, mechanism)
        )
    position = Position(settings.steps_per_epoch, report)
    if checkpoints:
        names = [name for name, _ in whole.named_parameters()]
        position = RunState(
            whole,
            optimizer,
            noise=noises,
            sampling=samplings,
            checkpoint=StackedCheckpoint(checkpoints, names),
            num_steps=settings.num_steps,
            steps_per_epoch=settings.steps_per_epoch,
            report=report,
        )
    run_epochs(
        settings,
        lambda batches: trainer.step(order(batches) if order else batches, inputs, labels),
        lambda: stacked_batches(
            zip(*(epoch(settings, sampling) for sampling in samplings)),
            torch.device("cpu") if order else device,
        ),
        optimizer,
        progress,
        observer,
        position,
    )
