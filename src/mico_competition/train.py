"""One model from one row of the table: split, train (privately or not), evaluate, write the folder.

Private and plain training go through one loop; what differs is the batches that are drawn and
the trainer that takes the step.  Accuracy is taken over evaluation records only: over members or
non-members it would tell who they are.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from mico_competition.challenge import ChallengeDataset
from mico_competition.dpsgd import (
    Batch,
    Mechanism,
    PrivateTrainer,
    per_example_losses,
    physical_batches,
    poisson_batches,
)
from mico_competition.inputs import Data
from mico_competition.layout import PathLike
from mico_competition.model_folder import describe, write_model_folder
from mico_competition.models import logits, new_model
from mico_competition.settings import Settings, check
from mico_competition.splits import Seeds
from mico_competition.tracks import get_task

_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Trainer(Protocol):
    """Takes one step on a logical batch and gives the sum of its losses."""

    def step(self, batch: torch.Tensor, inputs: Batch, labels: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Streams:
    """Seeds of the independent random streams of a run.

    They are derived from one train_seed by SHA-256, so that no two streams are the same one, or
    drawn from the operating system.
    """

    initialisation: int
    sampling: int
    noise: int

    @classmethod
    def of(cls, train_seed: int | None) -> Streams:
        """The streams of `train_seed`; fresh ones if it is None."""
        root = secrets.token_hex(16) if train_seed is None else str(train_seed)
        names = ("initialisation", "sampling", "noise")
        digests = (hashlib.sha256(f"{root}/{name}".encode()).digest() for name in names)
        return cls(*(int.from_bytes(digest[:8], "big") >> 1 for digest in digests))


class PlainTrainer:
    """A model and its optimiser, stepped by logical batches without privacy."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, max_physical_batch_size: int
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.max_physical_batch_size = max_physical_batch_size

    def step(self, batch: torch.Tensor, inputs: Batch, labels: torch.Tensor) -> torch.Tensor:
        """One step on the mean loss of the batch; see `PrivateTrainer.step`."""
        total = labels.new_zeros((), dtype=torch.float32)
        self.optimizer.zero_grad(set_to_none=True)
        for chunk in physical_batches(batch, self.max_physical_batch_size):
            losses = per_example_losses(self.model, inputs(chunk), labels[chunk])
            (losses.sum() / len(batch)).backward()
            total += losses.detach().sum()
        self.optimizer.step()
        return total


def shuffled_batches(
    num_records: int, *, batch_size: int, generator: torch.Generator, members_first: bool = False
) -> Iterator[torch.Tensor]:
    """An epoch of ceil(n / L) batches that covers every record once.

    2022 did not shuffle: members came first in every epoch.  `members_first` keeps that order.
    """
    if members_first:
        order = torch.arange(num_records, device=generator.device)
    else:
        order = torch.randperm(num_records, generator=generator, device=generator.device)
    yield from order.split(batch_size)


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_model(
    settings: Settings,
    data: Data,
    seeds: Seeds,
    folder: PathLike,
    *,
    tokenizer: Any = None,
    model_id: int | None = None,
    device: torch.device | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train one model and write its folder.

    Args:
        settings: as `settings.resolve` gives them.
        data: the whole dataset, N records, as `inputs.prepare` gives it.
        seeds: all three seeds of the model's splits.
        folder: where the model's files go; it must not hold anything yet.
        tokenizer: written beside the weights of a text model.
        model_id: its number, for the metadata.
        device: by default a GPU where there is one.
        progress: whether to show a bar when standard error is a terminal.

    Returns:
        What was written to metadata.json.

    Raises:
        ValueError: if the settings do not fit the data, the folder is in use, or the loss
            stops being finite.
    """
    started = time.perf_counter()
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already: remove it or choose another --output_dir.")
    check(settings, len(data))
    device = device or default_device()
    splits = ChallengeDataset(
        data,
        settings.len_training,
        settings.len_challenge,
        seeds.challenge,
        seeds.training,
        seeds.membership,
    )
    streams = Streams.of(settings.train_seed)
    mechanism = mechanism_of(settings)
    with _seeded(streams, deterministic=settings.train_seed is not None):
        model = new_model(get_task(settings.task), base_model=settings.model_name).to(device)
        _fit(settings, mechanism, model, data.to(device), splits.train_indices, streams, progress)
        results = evaluate(model, data.to(device), splits.evaluation_indices)
    metadata = {
        **describe(settings, mechanism, device),
        "model_id": model_id,
        "results": results,
        "train_seed": settings.train_seed,
        "wall_time_seconds": round(time.perf_counter() - started, 3),
    }
    write_model_folder(folder, settings, model, splits, metadata, tokenizer=tokenizer)
    return metadata


def mechanism_of(settings: Settings) -> Mechanism | None:
    """The mechanism that spends what the settings target; None for training without privacy."""
    if settings.disable_dp:
        return None
    return Mechanism.for_target(
        target_epsilon=settings.target_epsilon,
        target_delta=settings.target_delta,
        sample_rate=settings.sample_rate,
        num_steps=settings.num_steps,
    )


@contextmanager
def _seeded(streams: Streams, *, deterministic: bool) -> Iterator[None]:
    """Initialisation and dropout come from the run's own stream; the caller's state comes back."""
    devices = list(range(torch.cuda.device_count()))
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(streams.initialisation)
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _fit(
    settings: Settings,
    mechanism: Mechanism | None,
    model: nn.Module,
    data: Data,
    train_indices: torch.Tensor,
    streams: Streams,
    progress: bool,
) -> None:
    """Train `model` in place, leaving it in eval mode."""
    device = data.labels.device
    train_indices = train_indices.to(device)
    labels = data.labels[train_indices]
    optimizer = _OPTIMIZERS[settings.optimizer](model.parameters(), lr=settings.learning_rate)
    scheduler = torch.optim.lr_scheduler.StepLR(
        optimizer, step_size=settings.lr_scheduler_step, gamma=settings.lr_scheduler_gamma
    )
    sampling = torch.Generator(device).manual_seed(streams.sampling)
    model.train()
    trainer = _trainer(settings, mechanism, model, optimizer, streams, device)

    def inputs(positions: torch.Tensor) -> Any:
        return data.inputs(train_indices[positions])

    with tqdm(
        total=settings.num_steps, unit="batch", desc="Training", disable=None if progress else True
    ) as bar:
        for _ in range(settings.num_epochs):
            total = torch.zeros((), device=device)
            for batch in _epoch(settings, sampling):
                total += trainer.step(batch, inputs, labels)
                bar.update()
            scheduler.step()
            _check_finite(total, bar.n)
            bar.set_postfix(loss=f"{total.item() / settings.len_training:.3f}")
    _check_weights(model)
    model.eval()


def _epoch(settings: Settings, sampling: torch.Generator) -> Iterator[torch.Tensor]:
    """The batches of one epoch: Poisson draws for a private run, a cover of the set otherwise."""
    if settings.disable_dp:
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


def _trainer(
    settings: Settings,
    mechanism: Mechanism | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    streams: Streams,
    device: torch.device,
) -> Trainer:
    if mechanism is None:
        return PlainTrainer(model, optimizer, settings.max_physical_batch_size)
    return PrivateTrainer(
        model,
        optimizer,
        noise_multiplier=mechanism.noise_multiplier,
        max_grad_norm=settings.max_grad_norm or 0.0,
        expected_batch_size=settings.expected_batch_size,
        max_physical_batch_size=settings.max_physical_batch_size,
        grad_sample_mode=settings.grad_sample_mode,
        noise_generator=torch.Generator(device).manual_seed(streams.noise),
    )


def _check_finite(total: torch.Tensor, step: int) -> None:
    if not math.isfinite(total.item()):
        raise ValueError(f"The loss is not finite after step {step}: lower --learning_rate.")


def _check_weights(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"Parameter {name} is not finite: lower --learning_rate.")


def evaluate(
    model: nn.Module, data: Data, indices: torch.Tensor, *, batch_size: int = 1024
) -> dict[str, Any]:
    """Accuracy in [0, 1] and mean cross-entropy over the records at `indices`; None over none."""
    if not len(indices):
        return {"accuracy": None, "loss": None, "evaluation_records": 0}
    correct, loss = 0, 0.0
    model.eval()
    with torch.no_grad():
        for chunk in indices.to(data.labels.device).split(batch_size):
            outputs, labels = logits(model, data.inputs(chunk)), data.labels[chunk]
            correct += int((outputs.argmax(1) == labels).sum())
            loss += float(cross_entropy(outputs, labels, reduction="sum"))
    n = len(indices)
    return {"accuracy": correct / n, "loss": loss / n, "evaluation_records": n}
