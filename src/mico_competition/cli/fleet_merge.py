"""`mico fleet merge DIR DIR --out DIR`: parts of fleets become one."""

from __future__ import annotations

import argparse
import sys

from mico_competition.competition.rows import OPENINGS_FILE
from mico_competition.competition.table import get_scenario
from mico_competition.support.command_line import STOPPED, UsageError, load_torch
from mico_competition.support.counts import count_of
from mico_competition.support.reports import report

# Flags that say how to train, or how to look: a merge does neither.
_NOT_OURS = (
    "models",
    "new_seeds",
    "workers",
    "threads",
    "stack",
    "ray",
    "watch",
    "gpus_per_task",
    "track",
)


def run_merge(args: argparse.Namespace) -> int:
    """Merge the folders, and print what is in the new one; returns the exit code."""
    given = [name for name in _NOT_OURS if getattr(args, name) is not None]
    given += [name for name in ("dry_run", "verify") if getattr(args, name)]
    if given:
        raise UsageError(f"`mico fleet merge` trains nothing: leave --{given[0]} out.")
    if len(args.dir) < 2:
        raise UsageError("Name two folders or more: mico fleet merge DIR DIR --out DIR.")
    if args.out is None:
        raise UsageError("Give --out, the new folder of the merged fleet.")
    load_torch()
    from mico_competition.fleets.merge import merge_fleets

    try:
        merged = merge_fleets(args.dir, args.out, scenarios=args.scenarios, link=args.link)
    except KeyboardInterrupt:
        print("mico: stopped; the same command goes on from here.", file=sys.stderr)
        return STOPPED
    for one in merged:
        parts = ", ".join(f"{count} in {folder}" for folder, count in one.parts.items())
        print(f"{one.scenario}: {one.finished} of {one.models} models finished ({parts})")
        if one.finished < one.models:
            print(f"  `mico fleet {one.scenario} --out {args.out}` trains the others")
    challenges = sorted({get_scenario(one.scenario).challenge for one in merged})
    for challenge in challenges:
        for folder in args.dir:
            if (folder / challenge / OPENINGS_FILE).is_file():
                print(
                    f"{folder} was released before: keep it, since {challenge}/{OPENINGS_FILE} "
                    "there opens the commitments of that release, and no other file does"
                )
    print(f"{args.out} holds {count_of(len(merged), 'fleet')}: the folders above are unchanged")
    report(
        "fleet merge",
        out=args.out,
        fleets=[
            {
                "scenario": one.scenario,
                "models": one.models,
                "finished": one.finished,
                "parts": {str(folder): count for folder, count in one.parts.items()},
            }
            for one in merged
        ],
    )
    return 0
