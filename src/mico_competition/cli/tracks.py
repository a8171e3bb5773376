"""`mico tracks`: the table of scenarios."""

from __future__ import annotations

import argparse
from typing import Any

from mico_competition.competition.rows import Scenario
from mico_competition.competition.table import CHALLENGES, SCENARIOS, TASKS, as_read, phases_of
from mico_competition.support.reports import add_json, report
from mico_competition.support.terminal import table

_HEADS = (
    *("scenario", "challenge", "models", "epsilon", "n", "m"),
    *("C", "optimizer", "lr", "L", "epochs"),
)
_KEY = (
    "models: in train/dev/final; epsilon: of the guarantee at the scenario's delta (inf: without\n"
    "privacy); n: training records; m: members, and as many non-members, to tell apart;\n"
    "C: clipping norm; lr: learning rate; L: batch size. --json prints every column."
)


def add_tracks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico tracks` takes."""
    add_json(parser)
    parser.set_defaults(run=_run_tracks)


def _run_tracks(args: argparse.Namespace) -> None:
    names = [name for challenge in CHALLENGES.values() for name in as_read(challenge)]
    print("\n".join([*table(_HEADS, [_cells(SCENARIOS[name]) for name in names]), "", _KEY]))
    report("tracks", scenarios=[_columns(SCENARIOS[name]) for name in names])


def _columns(row: Scenario) -> dict[str, Any]:
    """Every column of a scenario, and the phases of its challenge."""
    return {**vars(row), "phases": dict(phases_of(row.challenge))}


def _cells(row: Scenario) -> tuple[str, ...]:
    return (
        row.name,
        row.challenge,
        "/".join(str(phase.count) for phase in phases_of(row.challenge).values()),
        f"{row.target_epsilon:g}",
        str(TASKS[row.task].len_training),
        str(TASKS[row.task].len_challenge),
        "-" if row.max_grad_norm is None else f"{row.max_grad_norm:g}",
        row.optimizer,
        f"{row.learning_rate:g}",
        str(row.batch_size),
        str(row.num_epochs),
    )
