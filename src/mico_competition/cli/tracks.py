"""`mico tracks`: the table of scenarios."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from mico_competition.competition.rows import Scenario
from mico_competition.competition.table import CHALLENGES, SCENARIOS, TASKS, as_read

_HEADS = ("scenario", "challenge", "epsilon", "n", "C", "optimizer", "lr", "L", "epochs")
_KEY = (
    "epsilon: of the guarantee at the scenario's delta (inf: without privacy); n: training records;"
    "\nC: clipping norm; lr: learning rate; L: batch size. --json prints every column."
)


def add_tracks(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico tracks` takes."""
    parser.add_argument("--json", action="store_true", help="every column, as JSON")
    parser.set_defaults(run=_run_tracks)


def _run_tracks(args: argparse.Namespace) -> None:
    import json

    from mico_competition.support.terminal import table

    if args.json:
        rows = [asdict(row) for row in SCENARIOS.values()]
        print(json.dumps(rows, indent=2).replace("Infinity", "null"))
        return
    names = [name for challenge in CHALLENGES.values() for name in as_read(challenge)]
    print("\n".join([*table(_HEADS, [_cells(SCENARIOS[name]) for name in names]), "", _KEY]))


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
