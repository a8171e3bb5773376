"""Trains many models of one scenario: small ones together as a stack, others one after another.

With the same seeds, training as a stack gives the same models as training each alone, up to
rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import METADATA_FILE, get_task
from mico_competition.data.arrays import ArrayDataset
from mico_competition.models.architectures import MLP, new_model
from mico_competition.models.inputs import Data, default_device
from mico_competition.models.precision import check_available
from mico_competition.training.accounting import Mechanism, check_mechanism
from mico_competition.training.accuracy import evaluate
from mico_competition.training.batched_mlp import StackedDPSGD as StackedDPSGD
from mico_competition.training.batched_mlp import (
    StackedMLP,
    StackedPlainTrainer,
)
from mico_competition.training.checkpoint import Checkpoint
from mico_competition.training.fingerprints import of_training
from mico_competition.training.model_folder import describe, free_folder, write_model_folder
from mico_competition.training.run_report import Report, Reports, RunReport
from mico_competition.training.run_state import Position
from mico_competition.training.settings import Settings, check
from mico_competition.training.streams import Streams, generator_of, sampling_of, seeded
from mico_competition.training.train import (
    Observer,
    Show,
    check_weights,
    evaluation_records,
    mechanism_of,
    optimizer_of,
    private_arguments,
    run_epochs,
    splits_of,
    train_model,
)
from mico_competition.training.train import (
    epoch_of as epoch_of,  # audited from here, as is StackedDPSGD
)

# Up to this many multiply-adds in the forward pass of a step, a stack of MLPs is faster on a CPU
# than one model after another (benchmarks/RESULTS.md, "Stacks").
SMALL_STEP = 10_000_000
STACK = 10


@dataclass(frozen=True)
class Run:
    """What distinguishes a model from the others of its scenario, and where it is written."""

    seeds: Seeds
    folder: Path
    model_id: int | None = None
    train_seed: int | None = None
    checkpoint: Checkpoint | None = None
    report: RunReport | None = None


def train_many(
    settings: Settings,
    data: Data,
    runs: Sequence[Run],
    *,
    tokenizer: Any = None,
    stack: int | None = None,
    device: torch.device | None = None,
    progress: Show = True,
    mechanism: Mechanism | None = None,
) -> Iterator[dict[str, Any]]:
    """Train models and write their folders; yield each one's metadata when its folder is complete.

    A model that is trained alone goes on from its checkpoint.  Stacks write none: their models are
    small, and are trained anew.

    Args:
        settings: the settings of the scenario; train_seed comes from each run instead.
        data: the whole dataset, as `inputs.prepare` returns it.
        runs: the seeds and folder of each model.
        tokenizer: is written beside the weights of text models.
        stack: how many models to train together; by default STACK if that is faster, else 1.
        device: by default a GPU if there is one.
        progress: as in `train_model`; a function starts from 0 for each stack or model.
        mechanism: as in `train_model`.

    Raises:
        ValueError: as `train_model`; or if `stack` > 1 and the models cannot be stacked.
    """
    stack = stack or stack_of(settings)
    if stack > 1 and mlp_of(settings) is None:
        raise ValueError(f"Models of task {settings.task} do not stack: train them one by one.")
    for run in runs:  # before hours are spent on the first runs
        if run.checkpoint is not None and (run.folder / METADATA_FILE).is_file():
            run.checkpoint.remove()  # killed when the model was just whole
        free_folder(run.folder)
    for start in range(0, len(runs), stack):
        group = runs[start : start + stack]
        if len(group) > 1:
            yield from _train_stack(settings, data, group, device, progress, mechanism)
            continue
        yield train_model(
            replace(settings, train_seed=group[0].train_seed),
            data,
            group[0].seeds,
            group[0].folder,
            tokenizer=tokenizer,
            model_id=group[0].model_id,
            device=device,
            progress=progress,
            mechanism=mechanism,
            checkpoint=group[0].checkpoint,
            report=group[0].report,
        )


def stack_of(settings: Settings) -> int:
    """How many models of a scenario to train together: STACK if that is faster, else 1."""
    return STACK if _faster_together(settings) else 1


def mlp_of(settings: Settings) -> MLP | None:
    """An untrained MLP of the scenario; None if its models cannot be stacked."""
    task = get_task(settings.task)
    if task.text or settings.grad_sample_mode != "bookkeeping":
        return None
    with torch.random.fork_rng(devices=[]):
        model = new_model(task)
    return model if isinstance(model, MLP) else None


def _faster_together(settings: Settings) -> bool:
    model = mlp_of(settings)
    if model is None:
        return False
    work = settings.batch_size * sum(parameter.numel() for parameter in model.parameters())
    return work <= SMALL_STEP or default_device().type == "cuda"


def _train_stack(
    settings: Settings,
    data: Data,
    runs: Sequence[Run],
    device: torch.device | None,
    progress: Show,
    mechanism: Mechanism | None,
) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    folders = [free_folder(run.folder) for run in runs]
    check(settings, len(data))
    check_mechanism(settings, mechanism)
    fingerprints = of_training(settings.task, data)
    check_available(settings.precision, device or default_device())
    data = data.to(device or default_device())
    splits = [splits_of(settings, data, run.seeds) for run in runs]
    streams = [Streams.of(run.train_seed, run.seeds) for run in runs]
    models = []
    for stream, run in zip(streams, runs):
        with seeded(stream, deterministic=run.train_seed is not None):
            models.append(new_model(get_task(settings.task)).to(data.labels.device))
    indices = torch.stack([split.train_indices for split in splits]).to(data.labels.device)
    repeat = any(run.train_seed is not None for run in runs)
    with seeded(streams[0], deterministic=repeat):
        reports = [run.report for run in runs if run.report]
        options = {"mechanism": mechanism, "report": Reports(reports) if reports else None}
        fit_stack_records(settings, models, data, indices, streams, progress, **options)
    seconds = (time.perf_counter() - started) / len(runs)
    for run, folder, split, model in zip(runs, folders, splits, models):
        metadata = {
            **describe(settings, mechanism or mechanism_of(settings), data.labels, fingerprints),
            "model_id": run.model_id,
            "results": evaluate(model, data, evaluation_records(settings, split)),
            "train_seed": run.train_seed,
            "wall_time_seconds": round(seconds, 3),
            "stack": len(runs),
        }
        write_model_folder(folder, settings, model, split, metadata)
        if run.report:
            run.report.end(metadata)
        yield metadata


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
    """
    assert isinstance(data, ArrayDataset)
    stacked = StackedMLP(models)

    def inputs(positions: torch.Tensor) -> torch.Tensor:
        rows = data.inputs(indices.gather(1, positions).flatten())
        return rows.view(*positions.shape, *rows.shape[1:])

    fit_stack(settings, stacked, inputs, data.labels[indices], streams, progress, **options)
    stacked.copy_to(models)
    for model in models:
        check_weights(model)
        model.eval()


def in_one_copy(batches: Sequence[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
    """The batches on `device`, moved together, since each copy to a GPU takes as long."""
    if all(batch.device == device for batch in batches):
        return batches
    moved = torch.cat(list(batches)).to(device)
    parts: Sequence[torch.Tensor] = moved.split([len(batch) for batch in batches])
    return parts


def fit_stack(
    settings: Settings,
    stacked: torch.nn.Module,
    inputs: Callable[[torch.Tensor], Any],
    labels: torch.Tensor,
    streams: Sequence[Streams],
    progress: Show = False,
    *,
    observer: Observer | None = None,
    make_trainer: Callable[..., StackedDPSGD] | None = None,
    epoch: Callable[..., Iterator[torch.Tensor]] | None = None,
    mechanism: Mechanism | None = None,
    report: Report | None = None,
) -> None:
    """Train a stack in place; `mico audit-train` audits this function by an observer.

    Args:
        settings: the settings of the scenario.
        stacked: maps what `inputs` returns to logits [S, b, classes].
        inputs: maps positions [S, b] among each model's training records to the model's inputs.
        labels: int64[S, n], labels by position.
        streams: the seeds of each model's batches and noise.
        progress: as in `train_model`.
        observer, make_trainer, epoch, mechanism, report: as in `train.fit`, for `StackedDPSGD`.
    """
    device = labels.device
    epoch = epoch or epoch_of
    optimizer = optimizer_of(settings, stacked.train())
    samplings = [sampling_of(settings, stream) for stream in streams]
    trainer: StackedPlainTrainer | StackedDPSGD
    if settings.disable_dp:
        size = settings.max_physical_batch_size
        trainer = StackedPlainTrainer(stacked, optimizer, size, settings.precision)
    else:
        noises = [generator_of(settings, stream.noise, device) for stream in streams]
        trainer = (make_trainer or StackedDPSGD)(
            stacked, optimizer, noise_generators=noises, **private_arguments(settings, mechanism)
        )
    run_epochs(
        settings,
        lambda batches: trainer.step(batches, inputs, labels),
        lambda: (
            in_one_copy(batches, device)
            for batches in zip(*(epoch(settings, sampling) for sampling in samplings))
        ),
        optimizer,
        progress,
        observer,
        Position(settings.steps_per_epoch, report),
    )
