"""Many models of one scenario: small ones together, as a stack; others one after another.

Training together gives what training each alone gives, with the same seeds, up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import get_task
from mico_competition.data.arrays import ArrayDataset
from mico_competition.models.architectures import MLP, new_model
from mico_competition.models.inputs import Data, default_device
from mico_competition.training.accounting import Mechanism
from mico_competition.training.batched_mlp import (
    StackedMLP,
    StackedPlainTrainer,
    StackedPrivateTrainer,
)
from mico_competition.training.fingerprints import of_training
from mico_competition.training.model_folder import describe, write_model_folder
from mico_competition.training.settings import Settings, check
from mico_competition.training.streams import Streams, generator_of, seeded
from mico_competition.training.train import (
    Observer,
    Show,
    check_weights,
    epoch_of,
    evaluate,
    evaluation_records,
    free_folder,
    mechanism_of,
    optimizer_of,
    private_arguments,
    run_epochs,
    splits_of,
    train_model,
)

# Multiply-adds of a step's forward pass up to which a stack of MLPs is faster than one after
# another on a CPU (benchmarks/RESULTS.md, "Stacks"); beyond, arithmetic fills the time anyway.
SMALL_STEP = 10_000_000
STACK = 10


@dataclass(frozen=True)
class Run:
    """What tells one model from the others of its scenario."""

    seeds: Seeds
    folder: Path
    model_id: int | None = None
    train_seed: int | None = None


def train_many(
    settings: Settings,
    data: Data,
    runs: Sequence[Run],
    *,
    tokenizer: Any = None,
    stack: int | None = None,
    device: torch.device | None = None,
    progress: Show = True,
) -> Iterator[dict[str, Any]]:
    """Train models and write their folders; yields each one's metadata when its folder is whole.

    Args:
        settings: of the scenario; each run's own train_seed counts.
        data: the whole dataset, as `inputs.prepare` gives it.
        runs: seeds and folder of each model.
        tokenizer: written beside the weights of text models.
        stack: how many to train together; by default STACK where that is faster, else 1.
        device: by default a GPU where there is one.
        progress: whether to show how far it is (see `mico_competition.support.progress`); or, as in
            `train_model`, a function, which is told of each stack or model anew.

    Raises:
        ValueError: as `train_model`; or if a stack is asked for of models that do not stack.
    """
    stack = stack or stack_of(settings)
    if stack > 1 and mlp_of(settings) is None:
        raise ValueError(f"Models of task {settings.task} do not stack: train them one by one.")
    for run in runs:  # at the door, not after hours of the runs before it
        free_folder(run.folder)
    for start in range(0, len(runs), stack):
        group = runs[start : start + stack]
        if len(group) > 1:
            yield from _train_stack(settings, data, group, device, progress)
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
        )


def stack_of(settings: Settings) -> int:
    """How many models of a scenario to train together: STACK where that is faster, else 1."""
    return STACK if _faster_together(settings) else 1


def mlp_of(settings: Settings) -> MLP | None:
    """An MLP such as the scenario trains, if it is one that stacks: plain or by book-keeping."""
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
) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    folders = [free_folder(run.folder) for run in runs]
    check(settings, len(data))
    fingerprints = of_training(settings.task, data)
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
        fit_stack_records(settings, models, data, indices, streams, progress)
    seconds = (time.perf_counter() - started) / len(runs)
    for run, folder, split, model in zip(runs, folders, splits, models):
        metadata = {
            **describe(settings, mechanism_of(settings), data.labels, fingerprints),
            "model_id": run.model_id,
            "results": evaluate(model, data, evaluation_records(settings, split)),
            "train_seed": run.train_seed,
            "wall_time_seconds": round(seconds, 3),
            "stack": len(runs),
        }
        write_model_folder(folder, settings, model, split, metadata)
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
    """Train `models` in place; row s of `indices` [S, n] is what model s is trained on.

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


def fit_stack(
    settings: Settings,
    stacked: torch.nn.Module,
    inputs: Callable[[torch.Tensor], Any],
    labels: torch.Tensor,
    streams: Sequence[Streams],
    progress: Show = False,
    *,
    observer: Observer | None = None,
    make_trainer: Callable[..., StackedPrivateTrainer] | None = None,
    epoch: Callable[..., Iterator[torch.Tensor]] | None = None,
    mechanism: Mechanism | None = None,
) -> None:
    """Train a stack in place; `mico audit-train` runs this same function, and watches.

    Args:
        settings: of the scenario.
        stacked: gives logits [S, b, classes] of what `inputs` gives.
        inputs: takes positions [S, b] among each model's training records.
        labels: int64[S, n], by position.
        streams: one a model.
        progress: whether to show a bar when standard error is a terminal.
        observer, make_trainer, epoch, mechanism: as in `train.fit`, for `StackedPrivateTrainer`.
    """
    device = labels.device
    epoch = epoch or epoch_of
    optimizer = optimizer_of(settings, stacked.train())
    samplings = [generator_of(settings, stream.sampling, device) for stream in streams]
    trainer: StackedPlainTrainer | StackedPrivateTrainer
    if settings.disable_dp:
        trainer = StackedPlainTrainer(stacked, optimizer, settings.max_physical_batch_size)
    else:
        noises = [generator_of(settings, stream.noise, device) for stream in streams]
        trainer = (make_trainer or StackedPrivateTrainer)(
            stacked, optimizer, noise_generators=noises, **private_arguments(settings, mechanism)
        )
    run_epochs(
        settings,
        lambda batches: trainer.step(batches, inputs, labels),
        lambda: zip(*(epoch(settings, sampling) for sampling in samplings)),
        optimizer,
        progress,
        observer,
    )
