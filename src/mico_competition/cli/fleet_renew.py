"""`mico fleet SCENARIO --new_seeds ID-ID --out DIR`: models of a fleet are to be trained anew."""

from __future__ import annotations

import argparse

from mico_competition.competition.rows import OPENINGS_FILE
from mico_competition.competition.table import get_scenario
from mico_competition.support.command_line import UsageError, load_torch
from mico_competition.support.counts import ids_text
from mico_competition.training.settings import Settings

# Flags that say how to train, or what else to do: new seeds are only drawn.
_NOT_OURS = ("models", "workers", "threads", "stack", "ray", "watch", "gpus_per_task", "track")


def run_renewal(args: argparse.Namespace) -> int:
    """Draw the seeds, and print what to do next; returns the exit code."""
    given = [name for name in _NOT_OURS if getattr(args, name) is not None]
    given += [name for name in ("dry_run", "verify", "link", "json") if getattr(args, name)]
    settings = Settings.__dataclass_fields__.keys() - {"scenario"}
    given += [name for name in sorted(settings) if getattr(args, name, None) is not None]
    if given:
        raise UsageError(
            f"--new_seeds trains nothing: leave --{given[0]} out, and give it when you train."
        )
    if args.dir:
        raise UsageError(f"{args.dir[0]} is one argument too many: give the folder as --out.")
    if args.out is None:
        raise UsageError("Give --out, the folder of the fleet.")
    load_torch()
    from mico_competition.fleets.renewal import renew

    moved = renew(args.out, args.scenario, args.new_seeds)
    print(f"{args.scenario}: new seeds for model_{ids_text(moved)}")
    for model_id, folder in moved.items():
        if folder is not None:
            print(f"  what was model_{model_id} is {folder} now, and as secret as before")
    print(f"`mico fleet {args.scenario} --out {args.out}` trains what is missing")
    if (args.out / get_scenario(args.scenario).challenge / OPENINGS_FILE).is_file():
        print(
            f"Then record the change for everybody: mico release {args.out} --to RELEASED --amend "
            "REASON"
        )
    return 0
