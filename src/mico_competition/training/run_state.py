"""The state of a run between two steps, complete enough to go on from it with the same result.

The batches of an epoch follow from the state of their generator at its beginning, so this state and
the number of steps since say which batch is the next.  A secure generator has no state to keep:
after a restart it draws fresh numbers, which are as good, since no weight that depends on the
numbers it had drawn after the state was written exists any more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mico_competition.support import stopping
from mico_competition.training.checkpoint import OpenCheckpoint
from mico_competition.training.poisson_draws import Generators, restore, state_of
from mico_competition.training.random_numbers import global_states, set_global_states
from mico_competition.training.run_report import Report
from mico_competition.training.stacked_checkpoint import StackedCheckpoint

_log = logging.getLogger(__name__)


class Position:
    """How far a run has come.

    Args:
        steps_per_epoch: the number of batches of an epoch.
        report: gets it every few seconds.

    Attributes:
        epoch: the number of epochs that are over.
        step: the number of steps taken in the present one.
        total: the sum of the losses of those steps: 0, float[], or float[S] of a stack.
    """

    def __init__(self, steps_per_epoch: int, report: Report | None = None) -> None:
        self._steps_per_epoch, self._report = steps_per_epoch, report
        self.epoch, self.step = 0, 0
        self.total: Any = 0.0

    @property
    def steps(self) -> int:
        """The number of steps taken in all epochs."""
        return self.epoch * self._steps_per_epoch + self.step

    def start(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        """Called before the first step, with the schedule of the learning rate."""
        if self._report is not None:
            self._report.start(self.steps)

    def begin_epoch(self) -> None:
        """Called before the batches of an epoch are drawn."""

    def after_step(self, loss: Any) -> None:
        """Called after each step, with its summed loss."""
        self.total = self.total + loss
        self.step += 1
        if self._report is not None and self._report.due():
            self._report.write(self.epoch, self.step, self.total)

    def diverged(self, models: Sequence[int]) -> None:
        """Called when a loss is not finite: of the run, [0], or of these models of a stack."""

    def end_epoch(self) -> None:
        """Called after the last step of an epoch, and after the learning rate was changed."""
        self.epoch, self.step, self.total = self.epoch + 1, 0, 0.0


class RunState(Position):
    """The position of a run, of one model's or a stack's, with all that changes while it trains.

    Args:
        model: the model, on its device.
        optimizer: the optimiser of its parameters.
        noise: the generator of a private run's noise, or those of the models of a stack.
        sampling: the generator of its batches, or those of the models of a stack.
        checkpoint: where the state is read from, and written to when it is due.
        num_steps: the number of steps of the whole run.
        steps_per_epoch, report: as in `Position`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise: Generators,
        sampling: Generators,
        checkpoint: OpenCheckpoint | StackedCheckpoint,
        num_steps: int,
        steps_per_epoch: int,
        report: Report | None = None,
    ) -> None:
        super().__init__(steps_per_epoch, report)
        self._model, self._optimizer = model, optimizer
        self._noise, self._sampling = noise, sampling
        self._checkpoint, self._num_steps = checkpoint, num_steps
        self._epoch_start = state_of(sampling)
        self._device = next(model.parameters()).device

    def start(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        """Go to the state of the checkpoint, if there is one."""
        self._scheduler = scheduler
        state = self._checkpoint.begin()
        if state is not None:
            self._load(state)
            self._checkpoint.tell(self.steps)
        super().start(scheduler)

    def begin_epoch(self) -> None:
        """Remember where the epoch's batches are drawn from."""
        self._epoch_start = state_of(self._sampling)

    def after_step(self, loss: Any) -> None:
        """Write a checkpoint if it is due; after an epoch's last step, `end_epoch` does."""
        super().after_step(loss)
        if self.step < self._steps_per_epoch:
            self._write_if_due()

    def diverged(self, models: Sequence[int]) -> None:
        """Remove the checkpoints from which going on is of no use."""
        self._checkpoint.drop(models)

    def end_epoch(self) -> None:
        """Write a checkpoint if it is due."""
        super().end_epoch()
        self._epoch_start = state_of(self._sampling)
        self._write_if_due()

    def _write_if_due(self) -> None:
        """Write a checkpoint if it is due, or if the process was asked to end; then end."""
        self._checkpoint.part = self.steps / self._num_steps
        ends = stopping.asked()
        if ends or self._checkpoint.due():
            written = self._checkpoint.write(self.state_dict(), self.steps)
            if written and self._report is not None:  # which is then no older than the checkpoint
                self._report.write(self.epoch, self.step, self.total)
            if ends and written:
                _log.warning("Stopped after step %d, of which there is a checkpoint.", self.steps)
        if ends:
            stopping.end()

    def state_dict(self) -> dict[str, Any]:
        """All of the state, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "total": self.total,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "noise": state_of(self._noise),
            "sampling": self._epoch_start,
            "random": global_states(self._device),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.total = state["epoch"], state["step"], state["total"]
        if isinstance(self.total, torch.Tensor):
            self.total = self.total.to(self._device)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        restore(self._noise, state["noise"])
        restore(self._sampling, state["sampling"])
        if state["random"] is not None:
            set_global_states(state["random"], self._device)
