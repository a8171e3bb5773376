"""How far the models are that a fleet is training, from the files that they write while they train.

A private run's file has no loss; its epsilon so far is computed here, from its steps.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mico_competition.fleets.events import is_number, parsed
from mico_competition.fleets.fleet import Block
from mico_competition.fleets.ledger import RUNNING, Ledger
from mico_competition.training.accounting import Mechanism
from mico_competition.training.run_report import RunReport
from mico_competition.training.settings import Settings
from mico_competition.training.trackers import open_tracker

SILENT_SECONDS = 600.0  # a process on another node that reports nothing for so long is gone
_PARTS = 20  # epsilon is computed for the next multiple of this part of all steps


@dataclass(frozen=True)
class RunningModel:
    """A model that was begun and is not whole.

    Attributes:
        model_id: the model's id.
        state: `running`, or `stopped` if its process is gone.
        epoch, epochs: the epoch it is in, from 1, and their number.
        step, steps: the steps taken, and their number.
        steps_per_second: its speed, if that is known.
        loss: the mean loss of the epoch's records so far; None in a private run.
        epsilon: an upper bound of the epsilon of the steps so far; None without privacy.
        seconds_left: how long it will take at this speed; None if it is stopped.
    """

    model_id: int
    state: str
    epoch: int
    epochs: int
    step: int
    steps: int
    steps_per_second: float | None
    loss: float | None
    epsilon: float | None
    seconds_left: float | None


def reports_of(
    folder: Path, block: Block, settings: Settings, track: str | None = None
) -> list[RunReport]:
    """The reports of a block's models, which write below `folder`, that of the ledger."""
    reports = []
    for model_id in block.model_ids:
        name = f"model_{model_id}"
        tracker = None
        if track is not None:
            tracker = open_tracker(track, folder / "tracked", name, settings)
        reports.append(RunReport(settings, path=folder / RUNNING / f"{name}.json", tracker=tracker))
    return reports


def running_models(
    ledger: Ledger, *, running: bool, finished: Container[int]
) -> tuple[RunningModel, ...]:
    """The models that have a report and are not finished, ordered by id.

    Args:
        ledger: the fleet's ledger.
        running: whether the fleet is at work.
        finished: ids to leave out.
    """
    found = []
    for entry in ledger.entries:
        path = ledger.folder / RUNNING / f"model_{entry.model_id}.json"
        if entry.model_id in finished or not path.is_file():
            continue
        with suppress(OSError):
            values = parsed(path.read_text(encoding="utf-8", errors="replace"))
            if all(is_number(values.get(name)) for name in ("time", "process", "epoch", "step")):
                found.append(_model(ledger, entry.model_id, values, running))
    return tuple(found)


def _model(ledger: Ledger, model_id: int, values: dict[str, Any], running: bool) -> RunningModel:
    settings = ledger.settings
    steps, step = settings.num_steps, min(int(values["step"]), settings.num_steps)
    rate, loss = (
        value if is_number(value) else None
        for value in (values.get("steps_per_second"), values.get("loss"))
    )
    alive = running and _is_alive(values)
    return RunningModel(
        model_id,
        "running" if alive else "stopped",
        int(values["epoch"]),
        settings.num_epochs,
        step,
        steps,
        rate,
        loss if settings.disable_dp else None,
        _epsilon(ledger, step),
        (steps - step) / rate if alive and rate and rate > 0 else None,
    )


def _is_alive(values: dict[str, Any]) -> bool:
    """Whether the process that wrote a report still trains."""
    if values.get("node") != os.uname().nodename:
        return bool(time.time() - values["time"] < SILENT_SECONDS)
    return Path(f"/proc/{int(values['process'])}").exists() or not Path("/proc/self").exists()


def _epsilon(ledger: Ledger, step: int) -> float | None:
    """An upper bound of the epsilon of the first `step` steps, for a few more steps at most."""
    settings = ledger.settings
    if settings.disable_dp or ledger.noise_multiplier is None or not step:
        return None
    part = math.ceil(settings.num_steps / _PARTS)
    counted = min(settings.num_steps, math.ceil(step / part) * part)
    spent = Mechanism(ledger.noise_multiplier, settings.sample_rate, counted)
    return spent.epsilon(settings.target_delta)
