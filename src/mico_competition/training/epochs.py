"""The loop over the steps of a run: one model's or a stack's, private or plain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

import torch

from mico_competition.support.memory import keep_freed_memory
from mico_competition.support.progress import stage
from mico_competition.training.run_state import Position
from mico_competition.training.settings import Settings

Show = bool | Callable[[float], None]
"""Whether to show progress; or what is called with the finished fraction of the steps."""


class Observer(Protocol):
    """Watches a run for an audit: it gets the batches here, and the rest through torch's hooks."""

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Called when the run begins, with the optimiser that changes the weights."""

    def before(self, batch: Any) -> None:
        """Called before a step on `batch`: int64[b], or a tuple of them, one for each model."""

    def end_epoch(self) -> None:
        """Called after the steps of each epoch."""


def run_epochs(
    settings: Settings,
    step: Callable[[Any], torch.Tensor],
    epoch: Callable[[], Iterable[Any]],
    optimizer: torch.optim.Optimizer,
    progress: Show,
    observer: Observer | None = None,
    position: Position | None = None,
) -> None:
    """Run the steps of all epochs, and change the learning rate after each epoch.

    The process keeps the memory that a step frees (`support.memory`).

    Args:
        settings: the settings of the run.
        step: takes a step on a batch and returns its summed loss: float[], or float[S] of a stack.
        epoch: returns the batches of one epoch, anew at each call.
        optimizer: the optimiser whose learning rate is scheduled.
        progress: as in `train_model`.
        observer: watches the run.
        position: where the run begins, and what follows it; by default at its first step.

    Raises:
        ValueError: if the loss of an epoch is not finite.
    """
    at = position or Position(settings.steps_per_epoch)
    keep_freed_memory()
    if observer is not None:
        observer.start(optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(
        optimizer, step_size=settings.lr_scheduler_step, gamma=settings.lr_scheduler_gamma
    )
    at.start(scheduler)
    with stage("Training", settings.num_steps, initial=at.steps, show=progress is True) as shown:
        for _ in range(at.epoch, settings.num_epochs):
            at.begin_epoch()
            for batch in islice(epoch(), at.step, None):
                if observer is not None:
                    observer.before(batch)
                loss = step(batch)
                shown.update()
                if callable(progress):
                    progress(shown.done / settings.num_steps)
                at.after_step(loss)
            if observer is not None:
                observer.end_epoch()
            scheduler.step()
            total = at.total
            if not total.isfinite().all():
                bad = (~total.isfinite().reshape(-1)).nonzero().flatten().tolist()
                at.diverged(bad)
                which = f" of model {', '.join(map(str, bad))} of the stack" if total.ndim else ""
                raise ValueError(
                    f"The loss{which} is not finite after step {shown.done}: lower --learning_rate."
                )
            shown.note = f"loss {total.mean().item() / settings.len_training:.3f}"
            at.end_epoch()
