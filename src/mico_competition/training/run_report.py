"""Reports how far a run is, every few seconds: to a small file, and to a tracker.

The loss over training records is not covered by epsilon, which counts only what the noisy steps
reveal.  So a private run reports none: its position, its speed, and the epsilon that follows.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from mico_competition.support.files import PRIVATE, write_text
from mico_competition.training.settings import Settings
from mico_competition.training.trackers import Tracker

REPORT_SECONDS = 5.0  # between two reports of a run
_FIRST_SECONDS = 1.0  # before the first one, which a short run never reaches
_REASON = 300  # characters of an error of another library in a message

_log = logging.getLogger(__name__)


class Report(Protocol):
    """Gets how far a run is."""

    def start(self, steps: int) -> None:
        """Called before the first step, with the number of steps that an earlier process took."""

    def due(self) -> bool:
        """Whether it is time for a report."""
        ...

    def write(self, epoch: int, step: int, total: Any) -> None:
        """Report `step` steps of an epoch (from 0), and the summed loss of their records."""


class RunReport:
    """The report of one model's run.

    Args:
        settings: the settings of the run.
        path: the file to write; None writes none.
        tracker: gets the numbers too.
        seconds: between two reports, > 0.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        path: Path | None = None,
        tracker: Tracker | None = None,
        seconds: float = REPORT_SECONDS,
    ) -> None:
        self._settings, self._path, self._tracker = settings, path, tracker
        self._seconds = seconds
        self.start(0)

    @property
    def tells_loss(self) -> bool:
        """Whether the report has a loss; if not, nobody needs to wait for a GPU to know it."""
        return self._settings.disable_dp

    def start(self, steps: int) -> None:
        """See `Report`."""
        self._first, self._begun = steps, time.monotonic()
        self._due = self._begun + min(self._seconds, _FIRST_SECONDS)

    def due(self) -> bool:
        """See `Report`."""
        return time.monotonic() >= self._due

    def write(self, epoch: int, step: int, total: Any) -> None:
        """See `Report`; training does not need it, so a full disk is not an error here."""
        now = time.monotonic()
        self._due = now + self._seconds
        settings = self._settings
        steps = epoch * settings.steps_per_epoch + step
        rate = (steps - self._first) / (now - self._begun) if now > self._begun else None
        loss = None
        if self.tells_loss and step:
            loss = float(total) / min(step * settings.batch_size, settings.len_training)
        if self._path is not None:
            values = {
                "time": time.time(),
                "process": os.getpid(),
                "node": os.uname().nodename,
                "epoch": epoch + 1,
                "step": steps,
                "steps_per_second": rate,
                "loss": loss,
            }
            with suppress(OSError):
                write_text(self._path, json.dumps(values) + "\n", access=PRIVATE)
        if self._tracker is not None:
            shown = {"epoch": epoch + step / settings.steps_per_epoch}
            shown |= {"steps_per_second": rate} if rate else {}
            self._log(shown if loss is None else {**shown, "training_loss": loss}, steps)

    def end(self, metadata: Mapping[str, Any]) -> None:
        """Report the results of a model that is whole, and close the tracker."""
        if self._tracker is None:
            return
        results, privacy = metadata["results"], metadata["privacy"]
        values = {f"evaluation_{name}": results[name] for name in ("accuracy", "loss")}
        values |= {"epsilon": privacy["epsilon"]} if privacy else {}
        shown = {name: value for name, value in values.items() if value is not None}
        self._log(shown, self._settings.num_steps, last=True)

    def _log(self, values: Mapping[str, float], step: int, *, last: bool = False) -> None:
        """Log to the tracker; if its server or disk fails, the run goes on without it."""
        try:
            if self._tracker is not None:
                self._tracker.log(values, step)
                if last:
                    self._tracker.close()
        except Exception as error:
            self._tracker = None
            _log.warning("The run is tracked no longer: %s", str(error)[:_REASON])


class Reports:
    """The reports of the models of a stack, which take their steps together."""

    def __init__(self, reports: list[RunReport]) -> None:
        self._reports = reports

    def start(self, steps: int) -> None:
        """See `Report`."""
        for report in self._reports:
            report.start(steps)

    def due(self) -> bool:
        """See `Report`."""
        return self._reports[0].due()

    def write(self, epoch: int, step: int, total: Any) -> None:
        """See `Report`; `total` is float[S]."""
        told = step and any(report.tells_loss for report in self._reports)
        losses = total.tolist() if told else [None] * len(self._reports)
        for report, loss in zip(self._reports, losses, strict=True):
            report.write(epoch, step, loss)
