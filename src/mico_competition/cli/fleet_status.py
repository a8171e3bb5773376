"""`mico fleet status DIR`: a table of fleets, and faults of finished models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mico_competition.fleets.finished import listed
from mico_competition.fleets.status import FleetState, fleet_states
from mico_competition.support.command_line import UsageError
from mico_competition.support.reports import report
from mico_competition.support.terminal import table

_HEADS = ("scenario", "models", "done", "failed", "left", "state", "models/h", "time left")


def print_status(folder: Path | None, verify: bool) -> int:
    """Print the state of the fleets in `folder`; exit code 1 unless all are whole."""
    if folder is None:
        raise UsageError("Name the folder: mico fleet status DIR, where DIR is a fleet's --out.")
    states = fleet_states(folder, verify=verify)
    print("\n".join(table(_HEADS, [_cells(state) for state in states])))
    for state in states:
        if state.damaged:
            print(
                f"{state.scenario}: finished models whose files differ from what the fleet wrote:\n"
                + "\n".join(listed(state.damaged)),
                file=sys.stderr,
            )
    whole = all(state.done == state.total for state in states)
    report("fleet status", whole=whole, fleets=[_values(state) for state in states])
    return 0 if whole else 1


def _values(state: FleetState) -> dict[str, Any]:
    return {
        "scenario": state.scenario,
        "models": state.total,
        "done": state.done,
        "failed": state.failed,
        "left": state.left,
        "state": state.state,
        "models_per_hour": state.models_per_hour,
        "time_left": state.time_left or None,
        "damaged": state.damaged,
    }


def _cells(state: FleetState) -> tuple[str, ...]:
    rate = "-" if state.models_per_hour is None else f"{state.models_per_hour:.1f}"
    counts = (state.total, state.done, len(state.failed), state.left)
    return (state.scenario, *map(str, counts), state.state, rate, state.time_left or "-")
