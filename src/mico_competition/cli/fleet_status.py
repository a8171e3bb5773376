"""`mico fleet status DIR`: a table of fleets, and faults of finished models."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from mico_competition.fleets.finished import listed
from mico_competition.fleets.running import RunningModel
from mico_competition.fleets.status import FleetState, fleet_states
from mico_competition.support.command_line import UsageError
from mico_competition.support.reports import report
from mico_competition.support.terminal import table

_MODEL_HEADS = (
    *("model", "state", "epoch", "step", "loss", "epsilon", "steps/s"),
    "time left",
)
_HEADS = ("scenario", "models", "done", "failed", "left", "state", "models/h", "time left")


def print_status(folder: Path | None, verify: bool, watch: float | None = None) -> int:
    """Print the state of the fleets in `folder`; exit code 1 unless all are whole.

    With `watch`, print it every so many seconds until no fleet runs.
    """
    if folder is None:
        raise UsageError("Name the folder: mico fleet status DIR, where DIR is a fleet's --out.")
    states = fleet_states(folder, verify=verify)
    if watch is not None:
        states = _watch(folder, states, watch)
    else:
        print("\n".join(lines_of(states)))
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


def _watch(folder: Path, states: list[FleetState], seconds: float) -> list[FleetState]:
    """Print the states, again and again until no fleet runs or Ctrl-C; the last ones."""
    try:
        while True:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            lines = [time.strftime("%H:%M:%S"), *lines_of(states)]
            print(clear + "\n".join(lines), flush=True)
            if not any(state.running for state in states):
                return states
            time.sleep(seconds)
            states = fleet_states(folder)
    except KeyboardInterrupt:
        return states


def lines_of(states: list[FleetState]) -> list[str]:
    """A table of the fleets, one of the models in training, and why models failed."""
    lines = table(_HEADS, [_cells(state) for state in states])
    models = [(state.scenario, model) for state in states for model in state.models]
    if models:
        lines += ["", *table(_MODEL_HEADS, [_model_cells(*row) for row in models])]
    for state in states:
        for model_id, error in sorted(state.errors.items()):
            lines.append(f"{state.scenario}/model_{model_id} failed: {error}")
    return lines


def _model_cells(scenario: str, model: RunningModel) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    left = model.seconds_left
    return (
        f"{scenario}/model_{model.model_id}",
        model.state,
        f"{model.epoch}/{model.epochs}",
        f"{model.step}/{model.steps}",
        number(model.loss, ".3f"),
        number(model.epsilon, ".2f"),
        number(model.steps_per_second, ".3g"),
        "-" if left is None else f"{round(left) // 3600}:{round(left) // 60 % 60:02}",
    )


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
        "in_training": [vars(model) for model in state.models],
        "errors": state.errors,
    }


def _cells(state: FleetState) -> tuple[str, ...]:
    rate = "-" if state.models_per_hour is None else f"{state.models_per_hour:.1f}"
    counts = (state.total, state.done, len(state.failed), state.left)
    return (state.scenario, *map(str, counts), state.state, rate, state.time_left or "-")
