"""Reports the progress of the fleets in a folder, running or not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import absolute
from mico_competition.fleets.events import is_number, last_run, parsed, read_events
from mico_competition.fleets.finished import damage
from mico_competition.fleets.fleet import PACE_FILE
from mico_competition.fleets.ledger import Ledger, fleets_in
from mico_competition.fleets.lock import is_running
from mico_competition.fleets.running import RunningModel, running_models
from mico_competition.support.files import PathLike


@dataclass(frozen=True)
class FleetState:
    """The state of one scenario's fleet.

    Attributes:
        scenario: the scenario's name.
        total: the number of models in the ledger.
        done: the number of models that are finished and intact.
        failed: the ids that failed in the last run and are still missing.
        running: whether a run is at work at this moment.
        models_per_hour: the rate of the last run; unfinished models count by the finished fraction.
        damaged: by id, how the files of finished models differ from those that the fleet wrote.
        under_way: the sum of the finished fractions of unfinished models.
        gave_up: whether the last run stopped because no model could be trained any more.
        models: how far the unfinished models are that were begun.
        errors: by id, why models failed in the last run, in one line.
    """

    scenario: str
    total: int
    done: int
    failed: tuple[int, ...]
    running: bool
    models_per_hour: float | None
    damaged: dict[int, str] = field(default_factory=dict)
    under_way: float = 0.0
    gave_up: bool = False
    models: tuple[RunningModel, ...] = ()
    errors: dict[int, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Models that are neither done nor failed."""
        return self.total - self.done - len(self.failed)

    @property
    def state(self) -> str:
        """`running`, `finished`, `damaged`, `failed` or `stopped`, in a word."""
        if self.running:
            return "running"
        if self.damaged:
            return "damaged"
        if self.done == self.total:
            return "finished"
        return "failed" if self.failed or self.gave_up else "stopped"

    @property
    def time_left(self) -> str | None:
        """How long the remaining models will take at the rate of the last run, as h:mm."""
        if not self.models_per_hour or not self.running:
            return None
        minutes = round(60 * max(0.0, self.left - self.under_way) / self.models_per_hour)
        return f"{minutes // 60}:{minutes % 60:02}"


def fleet_states(out: PathLike, *, verify: bool = False) -> list[FleetState]:
    """Report the state of every fleet in `out`, sorted by scenario.

    Args:
        out: the folder that was given as --out.
        verify: hash all files of finished models; by default only those whose time has changed.

    Raises:
        ValueError: if there is no fleet, or a ledger cannot be read.
    """
    names = fleets_in(out)
    if not names:
        raise ValueError(_no_fleet(Path(out)))
    return [_state(Path(out), name, verify) for name in names]


def _no_fleet(out: Path) -> str:
    """Why `out` holds no fleet, and which folder the user may have meant."""
    above = [folder for folder in absolute(out).parents if fleets_in(folder)]
    below = [folder for folder in sorted(out.glob("*")) if fleets_in(folder)]
    if above or below:
        return f"There is no fleet in {out}: did you mean {(above or below)[0]}?"
    inside = [*out.glob("*/*/*/model_*"), *out.glob("*/*/model_*"), *out.glob("*/model_*")]
    if inside or any(out.glob("*/*/*/*/model_*")):
        return (
            f"{out} holds models but no fleet's ledger, which `mico fleet SCENARIO` writes into "
            "its --out: models of `mico train`, `mico demo` or a release have none."
        )
    return f"There is no fleet in {out}: name the folder that was given as --out."


def _state(out: Path, scenario: str, verify: bool) -> FleetState:
    ledger = Ledger.read(out, scenario)
    assert ledger is not None  # fleets_in found it
    events = last_run(read_events(ledger.folder))
    running, damaged = is_running(ledger.folder), damage(ledger, verify=verify)
    done = ledger.done() - damaged.keys()
    failed = {event["model_id"]: event for event in events if event["event"] == "failed"}
    rate, under_way = _pace(ledger.folder / PACE_FILE, events)
    return FleetState(
        scenario,
        len(ledger.entries),
        len(done),
        tuple(sorted(failed.keys() & {entry.model_id for entry in ledger.entries} - done)),
        running,
        rate,
        damaged,
        under_way if running else 0.0,
        any(event["event"] == "end" and event.get("stopped") is True for event in events),
        running_models(ledger, running=running, finished=done | failed.keys()),
        {i: str(e["error"]) for i, e in failed.items() if "error" in e and i not in done},
    )


def _pace(path: Path, events: list[dict[str, Any]]) -> tuple[float | None, float]:
    """Models an hour, and models under way: from pace.json, or else from the events."""
    begun = events[0]["time"] if events else math.inf
    values = parsed(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}
    names = ("time", "begun", "trained", "under_way")
    if all(is_number(values.get(name)) for name in names) and values["begun"] >= begun - 1:
        seconds = values["time"] - values["begun"]
        rate = 3600 * values["trained"] / seconds if seconds > 0 and values["trained"] > 0 else None
        return rate, max(0.0, values["under_way"])
    done = [event["time"] for event in events if event["event"] == "done"]
    seconds = done[-1] - begun if done else 0.0
    return (3600 * len(done) / seconds if seconds > 0 else None), 0.0
