"""`mico tracks`: the table of scenarios."""

from __future__ import annotations

import argparse

from mico_competition.competition.rows import Scenario
from mico_competition.competition.table import CHALLENGES, SCENARIOS, TASKS, as_read
from mico_competition.support.reports import add_json, report
from mico_competition.support.terminal import table

_HEADS = ("scenario", "challenge", "epsilon", "n", "C", "optimizer", "lr", "L", "epochs")
_KEY = (
    "epsilon: of the guarantee at the scenario's delta (inf: without privacy); n: training records;"
    "\nC: clipping norm; lr: learning rate; L: batch size. --json prints every column."
)


def add_tracks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico tracks` takes."""
    add_json(parser)
    parser.set_defaults(run=_run_tracks)


def _run_tracks(args: argparse.Namespace) -> None:
    names = [name for challenge in CHALLENGES.values() for name in as_read(challenge)]
    print("\n".join([*table(_HEADS, [_cells(SCENARIOS[name]) for name in names]), "", _KEY]))
    report("tracks", scenarios=[SCENARIOS[name] for name in names])


def _cells(row: Scenario) -> tuple[str, ...]:
    return (
        row.name,
        row.challenge,
        f"{row.target_epsilon:g}",
        str(TASKS[row.task].len_training),
        "-" if row.max_grad_norm is None else f"{row.max_grad_norm:g}",
        row.optimizer,
        f"{row.learning_rate:g}",
        str(row.batch_size),
        str(row.num_epochs),
    )
