"""How far the fleets in a folder are, from what they wrote; works while they run and after."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mico_competition.files import PathLike
from mico_competition.fleets.ledger import Ledger, fleets_in
from mico_competition.fleets.lock import is_running


@dataclass(frozen=True)
class FleetState:
    """One scenario's fleet.  `failed` are ids that failed last time and are not done since."""

    scenario: str
    total: int
    done: int
    failed: tuple[int, ...]
    running: bool
    models_per_hour: float | None

    @property
    def left(self) -> int:
        """Models that are neither done nor failed."""
        return self.total - self.done - len(self.failed)

    @property
    def time_left(self) -> str | None:
        """How long the models that are left take at the rate of the last run, as h:mm."""
        if not self.models_per_hour or not self.running:
            return None
        minutes = round(60 * self.left / self.models_per_hour)
        return f"{minutes // 60}:{minutes % 60:02}"


def fleet_states(out: PathLike) -> list[FleetState]:
    """The state of every fleet in `out`, by scenario.

    Raises:
        ValueError: if there is none, or a ledger cannot be read.
    """
    names = fleets_in(out)
    if not names:
        raise ValueError(f"There is no fleet in {out}: name the folder that was given as --out.")
    return [_state(Path(out), name) for name in names]


def _state(out: Path, scenario: str) -> FleetState:
    ledger = Ledger.read(out, scenario)
    assert ledger is not None  # fleets_in found it
    done, events = ledger.done(), _last_run(ledger.folder / "events.jsonl")
    failed = {event["model_id"] for event in events if event["event"] == "failed"}
    return FleetState(
        scenario,
        len(ledger.entries),
        len(done),
        tuple(sorted(failed - done)),
        is_running(ledger.folder),
        _rate(events),
    )


def _last_run(path: Path) -> list[dict[str, Any]]:
    """The events of the last run; a line that a kill cut short is left out."""
    events: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["event"] == "run":
                events.clear()
            events.append(event)
    return events


def _rate(events: list[dict[str, Any]]) -> float | None:
    """Models done an hour, since the run began."""
    done = [event["time"] for event in events if event["event"] == "done"]
    seconds = done[-1] - events[0]["time"] if done else 0.0
    return 3600 * len(done) / seconds if seconds > 0 else None
