"""Trains one model of a scenario: splits the data, trains, evaluates, and writes the folder.

Private and plain training share one loop; they differ in how batches are drawn and in the trainer
that takes the steps.  Accuracy is computed over evaluation records only, because an accuracy over
members or non-members would reveal who they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import get_task
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data, default_device
from mico_competition.models.precision import FLOAT32, check_available
from mico_competition.support.files import PathLike
from mico_competition.training.accounting import Mechanism, check_mechanism
from mico_competition.training.accuracy import evaluate
from mico_competition.training.checkpoint import Checkpoint, OpenCheckpoint, opened
from mico_competition.training.checkpoint_facts import facts_of
from mico_competition.training.dpsgd import DPSGD as DPSGD  # audited from here
from mico_competition.training.dpsgd import Batch
from mico_competition.training.epochs import Observer, Show, run_epochs
from mico_competition.training.fingerprints import of_training
from mico_competition.training.model_folder import describe, free_folder, write_model_folder
from mico_competition.training.plain_trainer import PlainTrainer
from mico_competition.training.poisson_draws import moved, poisson_batches
from mico_competition.training.run_report import Report, RunReport
from mico_competition.training.run_state import Position, RunState
from mico_competition.training.secure_random import Generator
from mico_competition.training.sentence_order import ANY, FEW, OWN, OrderedRecords
from mico_competition.training.settings import Settings, check
from mico_competition.training.streams import Streams, generator_of, sampling_of, seeded

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


class Trainer(Protocol):
    """Takes a step on a logical batch and returns the sum of its losses."""

    def step(self, batch: Any, inputs: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Take the step of the records `batch`, of which these are the inputs and labels."""
        ...


def shuffled_batches(
    num_records: int, *, batch_size: int, generator: torch.Generator, members_first: bool = False
) -> Iterator[torch.Tensor]:
    """Draw an epoch of ceil(n / L) batches that covers every record once.

    2022 did not shuffle, so members came first in every epoch; `members_first` keeps that order.
    """
    if members_first:
        order = torch.arange(num_records, device=generator.device)
    else:
        order = torch.randperm(num_records, generator=generator, device=generator.device)
    yield from order.split(batch_size)


def train_model(
    settings: Settings,
    data: Data,
    seeds: Seeds,
    folder: PathLike,
    *,
    tokenizer: Any = None,
    model_id: int | None = None,
    device: torch.device | None = None,
    progress: Show = True,
    mechanism: Mechanism | None = None,
    checkpoint: Checkpoint | None = None,
    report: RunReport | None = None,
) -> dict[str, Any]:
    """Train one model and write its folder.

    Args:
        settings: as `settings.resolve` returns them.
        data: the whole dataset, N records, as `inputs.prepare` returns it.
        seeds: all three seeds of the model's splits.
        folder: the model's folder; it must be missing or empty.
        tokenizer: is written beside the weights of a text model.
        model_id: the model's number, for the metadata.
        device: by default a GPU if there is one.
        progress: whether to show a progress bar (see `mico_competition.support.progress`); or a
            function that is called after each step with the finished fraction of the steps, in
            (0, 1].
        mechanism: what `mechanism_of(settings)` gives, if another process has computed it.
        checkpoint: where the run keeps its state, and goes on from it after it was killed.
        report: gets every few seconds how far the run is.

    Returns:
        The content of metadata.json.

    Raises:
        ValueError: if the settings do not fit the data or the mechanism, the folder is in use, the
            loss is not finite, or the checkpoint is in use or of another run.
    """
    started = time.perf_counter()
    folder = free_folder(folder)
    check(settings, len(data))
    check_mechanism(settings, mechanism)
    check_available(settings.precision, device or default_device())
    whole, data = data, data.to(device or default_device())
    splits = splits_of(settings, data, seeds)
    streams = Streams.of(settings.train_seed, seeds)
    with seeded(streams, deterministic=settings.train_seed is not None):
        model = new_model(get_task(settings.task), base_model=settings.model_name)
        fingerprints = of_training(settings.task, whole, getattr(model, "config", None))
        spent, on = mechanism or mechanism_of(settings), data.labels.device
        facts = partial(facts_of, settings, seeds, on, fingerprints, spent)
        with opened(checkpoint, facts) as run:
            records = splits.train_indices
            options: dict[str, Any] = {"mechanism": mechanism, "checkpoint": run, "report": report}
            fit_records(settings, model.to(on), data, records, streams, progress, **options)
            results = evaluate(model, data, evaluation_records(settings, splits))
            seconds = time.perf_counter() - started + (run.seconds if run else 0.0)
            metadata = {
                **describe(settings, spent, data.labels, fingerprints),
                "model_id": model_id,
                "results": results,
                "train_seed": settings.train_seed,
                "wall_time_seconds": round(seconds, 3),
                **({"resumed": run.resumed} if run and run.resumed else {}),
            }
            write_model_folder(folder, settings, model, splits, metadata, tokenizer=tokenizer)
            if run:
                run.done()
    if report:
        report.end(metadata)
    return metadata


def splits_of(settings: Settings, data: Data, seeds: Seeds) -> ChallengeDataset:
    """The splits that a run with `seeds` trains and evaluates on."""
    return ChallengeDataset(
        data,
        settings.len_training,
        settings.len_challenge,
        seeds.challenge,
        seeds.training,
        seeds.membership,
    )


def evaluation_records(settings: Settings, splits: ChallengeDataset) -> torch.Tensor:
    """The records over which accuracy is computed: all of the evaluation split, or the first ones.

    The split is in random order, so the first ones are a random sample.
    """
    return splits.evaluation_indices[: settings.max_evaluation_records]


def mechanism_of(settings: Settings) -> Mechanism | None:
    """The mechanism that meets the settings' target epsilon; None without privacy."""
    if settings.disable_dp:
        return None
    return Mechanism.for_target(
        target_epsilon=settings.target_epsilon,
        target_delta=settings.target_delta,
        sample_rate=settings.sample_rate,
        num_steps=settings.num_steps,
    )


def fit_records(
    settings: Settings,
    model: nn.Module,
    data: Data,
    train_indices: torch.Tensor,
    streams: Streams,
    progress: Show,
    **options: Any,
) -> None:
    """Train `model` in place on the records at `train_indices`, and leave it in eval mode.

    Sentences go through the model in the order of their lengths.  `options` go to `fit`.
    """
    train_indices = train_indices.to(data.labels.device)
    labels = data.labels[train_indices]
    positions = positions_of(settings, OWN)
    records = OrderedRecords(model, data, train_indices, positions)
    order = records.groups if positions == OWN else records.order
    options = {"order": order if records.ordered else None, **options}
    fit(settings, model, records.inputs, labels, streams, progress, **options)
    check_weights(model)
    model.eval()


def positions_of(settings: Settings, one_shape: str) -> str:
    """How many positions sentences get (`sentence_order`).

    In a private run of low precision that is `one_shape`, OWN or ALL: the shape of the pass that a
    record goes through must depend on no other record there.
    """
    if settings.precision != FLOAT32 and not settings.disable_dp:
        return one_shape
    return FEW if settings.cuda_graphs else ANY


def fit(
    settings: Settings,
    model: nn.Module,
    inputs: Batch,
    labels: torch.Tensor,
    streams: Streams,
    progress: Show = False,
    *,
    order: Callable[[torch.Tensor], torch.Tensor | Sequence[torch.Tensor]] | None = None,
    observer: Observer | None = None,
    make_trainer: Callable[..., Trainer] | None = None,
    epoch: Callable[..., Iterator[torch.Tensor]] | None = None,
    mechanism: Mechanism | None = None,
    checkpoint: OpenCheckpoint | None = None,
    report: Report | None = None,
) -> None:
    """Train one model in place; `mico audit-train` audits this function by an observer.

    Args:
        settings: the settings of the run.
        model: the model, on the device of `labels`.
        inputs: maps positions to the model's inputs.
        labels: int64[n], labels by position.
        streams: the seeds of batches and noise.
        progress: as in `train_model`.
        order: puts each batch, after it was drawn, in the order in which it is split into physical
            batches, on the host; by default it stays as drawn, and is moved to the device.
        observer: watches the run.
        make_trainer: replaces `DPSGD` in a private run, with the same arguments.
        epoch: replaces `epoch_of`, which draws the batches of an epoch.
        mechanism: the mechanism of a private run; by default that of the settings' target.
        checkpoint: has the state to go on from, and takes later ones.
        report: gets every few seconds how far the run is.
    """
    device = labels.device
    epoch = epoch or epoch_of
    optimizer = optimizer_of(settings, model)
    model.train()
    noise = generator_of(settings, streams.noise, device)
    make_trainer = make_trainer or DPSGD
    trainer = _trainer(settings, model, optimizer, noise, make_trainer, mechanism)
    sampling = sampling_of(settings, streams)
    position = Position(settings.steps_per_epoch, report)
    if checkpoint is not None:
        position = RunState(
            model,
            optimizer,
            noise=noise,
            sampling=sampling,
            checkpoint=checkpoint,
            num_steps=settings.num_steps,
            steps_per_epoch=settings.steps_per_epoch,
            report=report,
        )
    run_epochs(
        settings,
        lambda batch: trainer.step(batch if order is None else order(batch), inputs, labels),
        lambda: epoch(settings, sampling) if order else moved(epoch(settings, sampling), device),
        optimizer,
        progress,
        observer,
        position,
    )


def epoch_of(settings: Settings, sampling: Generator) -> Iterator[torch.Tensor]:
    """The batches of one epoch: Poisson draws for a private run, shuffled batches otherwise."""
    if settings.disable_dp:
        assert isinstance(sampling, torch.Generator)
        return shuffled_batches(
            settings.len_training,
            batch_size=settings.batch_size,
            generator=sampling,
            members_first=settings.members_first,
        )
    return poisson_batches(
        settings.len_training,
        sample_rate=settings.sample_rate,
        num_steps=settings.steps_per_epoch,
        generator=sampling,
    )


def optimizer_of(settings: Settings, model: nn.Module) -> torch.optim.Optimizer:
    """The scenario's optimiser over all of the model's parameters."""
    return _OPTIMIZERS[settings.optimizer](model.parameters(), lr=settings.learning_rate)


def private_arguments(settings: Settings, mechanism: Mechanism | None = None) -> dict[str, Any]:
    """The keyword arguments of a private trainer, by default with the settings' mechanism.

    `precision` and `cuda_graphs` are among them only if they are not the defaults.
    """
    mechanism = mechanism or mechanism_of(settings)
    assert mechanism is not None
    unusual = {"precision": settings.precision} if settings.precision != FLOAT32 else {}
    return {
        **unusual,
        **({"cuda_graphs": True} if settings.cuda_graphs else {}),
        "noise_multiplier": mechanism.noise_multiplier,
        "max_grad_norm": settings.max_grad_norm,
        "expected_batch_size": settings.expected_batch_size,
        "max_physical_batch_size": settings.max_physical_batch_size,
    }


def _trainer(
    settings: Settings,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    noise: Generator,
    make_trainer: Callable[..., Trainer],
    mechanism: Mechanism | None,
) -> Trainer:
    if settings.disable_dp:
        size = settings.max_physical_batch_size
        graphs = settings.cuda_graphs
        return PlainTrainer(model, optimizer, size, settings.precision, cuda_graphs=graphs)
    return make_trainer(
        model,
        optimizer,
        grad_sample_mode=settings.grad_sample_mode,
        noise_generator=noise,
        **private_arguments(settings, mechanism),
    )


def check_weights(model: nn.Module) -> None:
    """Raise ValueError, naming the parameter, if one is not finite."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"Parameter {name} is not finite: lower --learning_rate.")
