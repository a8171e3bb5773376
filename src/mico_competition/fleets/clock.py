"""Times the steps of a short run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from mico_competition.fleets.power import PowerReading

_LEAST = 3  # steps


class Enough(Exception):
    """Ends the run."""


class StepClock:
    """An observer of training that times its steps, and ends the run by `Enough`.

    The first step has checks, so it is timed by itself.  The others are timed together: a GPU is
    faster if nobody waits for it after each of them.

    Args:
        seconds: after which the run ends; it takes three steps at least, unless it is shorter.
        device: where it trains.
        ready: is called after the first step, and returns when the others are to begin.
    """

    def __init__(
        self, seconds: float, device: torch.device, ready: Callable[[], Any] | None = None
    ) -> None:
        self._seconds, self._device, self._ready = seconds, device, ready
        self.steps = 0
        self._first = self._begun = self._last = 0.0
        self.checked = 0.0
        self.power = PowerReading.of(device)

    def start(self, optimizer: torch.optim.Optimizer) -> None:
        """Called when the run begins."""

    def before(self, batch: Any) -> None:
        """Called before each step."""
        if self.steps == 0:
            self._first = self._now()
        elif self.steps == 1:
            self.checked = self._now()
            if self._ready is not None:
                self._ready()
            self.power.begin()
            self._begun = time.perf_counter()
        elif self.steps >= _LEAST and time.perf_counter() - self._begun > self._seconds:
            raise Enough
        self.steps += 1

    def end_epoch(self) -> None:
        """Called after the steps of each epoch."""

    def end(self) -> None:
        """Called when the run has ended, after the number of steps in `steps`."""
        self._last = self._now()
        self.checked = self.checked or self._last

    @property
    def step_seconds(self) -> float:
        """What a step takes; without the checks of the first one if there are others."""
        if self.steps < 2:
            return self._last - self._first
        return (self._last - self._begun) / (self.steps - 1)

    def _now(self) -> float:
        """The time when the GPU is done with what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
