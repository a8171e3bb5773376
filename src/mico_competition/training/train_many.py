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
from mico_competition.models.architectures import MLP, new_model
from mico_competition.models.inputs import Data, default_device
from mico_competition.models.precision import check_available
from mico_competition.models.text_models import base_config, small_copy
from mico_competition.training.accounting import Mechanism, check_mechanism
from mico_competition.training.accuracy import evaluate
from mico_competition.training.checkpoint import Checkpoint
from mico_competition.training.epochs import Observer, Show, run_epochs
from mico_competition.training.fingerprints import of_training, probe_sentences
from mico_competition.training.model_folder import describe, free_folder, write_model_folder
from mico_competition.training.run_report import Report, Reports, RunReport
from mico_competition.training.run_state import Position
from mico_competition.training.sentence_order import OrderedRecords
from mico_competition.training.settings import Settings, check
from mico_competition.training.stack_memory import check_memory
from mico_competition.training.stacked_batches import stacked_batches
from mico_competition.training.stacked_model import (
    EXAMPLES,
    check_stacking,
    fault_of_stacking,
    stacked,
    unstack,
)
from mico_competition.training.stacked_step import StackedDPSGD as StackedDPSGD
from mico_competition.training.stacked_step import StackedPlainTrainer
from mico_competition.training.streams import Streams, generator_of, sampling_of, seeded
from mico_competition.training.train import (
    check_weights,
    evaluation_records,
    mechanism_of,
    optimizer_of,
    private_arguments,
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
    if stack > 1:
        check_stacks(settings)
    for run in runs:  # before hours are spent on the first runs
        if run.checkpoint is not None and (run.folder / METADATA_FILE).is_file():
            run.checkpoint.remove()  # killed when the model was just whole
        free_folder(run.folder)
    for start in range(0, len(runs), stack):
        group = runs[start : start + stack]
        if len(group) > 1:
            yield from _train_stack(settings, data, group, tokenizer, device, progress, mechanism)
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


def fault_of_stacks(settings: Settings) -> str:
    """Why the models of a scenario do not stack, as far as their layers say; empty if they do."""
    if settings.grad_sample_mode != "bookkeeping":
        return f"they are trained in grad_sample_mode {settings.grad_sample_mode}"
    task = get_task(settings.task)
    with torch.random.fork_rng(devices=[]):
        if not task.text:
            return fault_of_stacking(new_model(task))
        config = base_config(task, settings.model_name)
        model = small_copy(task, config).train()
    try:
        check_stacking(model, probe_sentences(model.config, EXAMPLES))
    except ValueError as error:
        return str(error)
    return ""


def check_stacks(settings: Settings) -> None:
    """Raise ValueError, with the reason, if the models of a scenario do not stack."""
    if fault := fault_of_stacks(settings):
        raise ValueError(
            f"Models of task {settings.task} do not stack, so train them one by one (--stack 1): "
            f"{fault.rstrip('.')}."
        )


def _faster_together(settings: Settings) -> bool:
    """Whether stacks are known to be faster: those of small MLPs on a CPU, of all on a GPU."""
    task = get_task(settings.task)
    if task.text or settings.grad_sample_mode != "bookkeeping":
        return False
    with torch.random.fork_rng(devices=[]):
        model = new_model(task)
    if not isinstance(model, MLP):
        return False
    work = settings.batch_size * sum(parameter.numel() for parameter in model.parameters())
    return work <= SMALL_STEP or default_device().type == "cuda"


def _train_stack(
    settings: Settings,
    data: Data,
    runs: Sequence[Run],
    tokenizer: Any,
    device: torch.device | None,
    progress: Show,
    mechanism: Mechanism | None,
) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    folders = [free_folder(run.folder) for run in runs]
    check(settings, len(data))
    check_mechanism(settings, mechanism)
    whole = data
    check_available(settings.precision, device or default_device())
    data = data.to(device or default_device())
    splits = [splits_of(settings, data, run.seeds) for run in runs]
    streams = [Streams.of(run.train_seed, run.seeds) for run in runs]
    models = []
    for stream, run in zip(streams, runs):
        with seeded(stream, deterministic=run.train_seed is not None):
            model = new_model(get_task(settings.task), base_model=settings.model_name)
            models.append(model.to(data.labels.device))
    fingerprints = of_training(settings.task, whole, getattr(models[0], "config", None))
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
        write_model_folder(folder, settings, model, split, metadata, tokenizer=tokenizer)
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

    Raises:
        ValueError: if the models do not stack, or a stack of so many does not fit into memory.
    """
    check_memory(settings, models[0], data.inputs(indices[0, :1]), len(models))
    check_stacking(models[0], data.inputs(indices[0, :EXAMPLES]))
    whole = stacked(models)
    records = OrderedRecords(whole, data, indices.flatten())
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
    """
    device = labels.device
    epoch = epoch or epoch_of
    optimizer = optimizer_of(settings, whole.train())
    samplings = [sampling_of(settings, stream) for stream in streams]
    trainer: StackedPlainTrainer | StackedDPSGD
    if settings.disable_dp:
        size = settings.max_physical_batch_size
        trainer = StackedPlainTrainer(whole, optimizer, size, settings.precision)
    else:
        noises = [generator_of(settings, stream.noise, device) for stream in streams]
        trainer = (make_trainer or StackedDPSGD)(
            whole, optimizer, noise_generators=noises, **private_arguments(settings, mechanism)
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
        Position(settings.steps_per_epoch, report),
    )
