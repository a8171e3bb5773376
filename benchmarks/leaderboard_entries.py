#!/usr/bin/env python3
"""The entries of the benchmark: every named attack on every tier (part of `make attacks`).

    python benchmarks/leaderboard_entries.py [TIER ...] [--work runs/benchmark] [--attack NAME]

runs `mico benchmark`, which trains the fleets that are missing, and writes into
`src/mico_competition/benchmark/entries`.  Entries on the same fleets are kept; remove one to
measure it again.  The attacks of LEFT_OUT take hours to days at full size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from testbeds import MICO, ROOT

from mico_competition.attacks.registry import TABLE, WINNERS_FORMULAS
from mico_competition.benchmark.entry import (
    ENTRIES,
    known_ranks,
    read_tier,
    without_copies,
    write_entry,
)
from mico_competition.benchmark.tiers import TIERS, get_tier

LEFT_OUT = {"full": ("suri", "trace", "joint", "whitebox", "layers")}


def main() -> None:
    """Measure what is asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=f"of {', '.join(TIERS)}")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark")
    parser.add_argument("--attack", action="append", default=[], help="these only")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for tier in args.tiers or TIERS:
        names = args.attack or names_of(tier)
        flags = [word for name in names for word in ("--attack", name)]
        command = [*MICO, "benchmark", "--tier", tier, "--work", str(args.work)]
        if subprocess.run([*command, "--out", str(ENTRIES), *flags]).returncode:
            sys.exit(1)
        strip(tier)


def names_of(tier: str) -> list[str]:
    """The attacks of a tier: the winner's formulas first, to whose ranks other entries point."""
    others = [row.name for row in TABLE if row.name not in WINNERS_FORMULAS]
    return [name for name in (*WINNERS_FORMULAS, *others) if name not in LEFT_OUT.get(tier, ())]


def strip(tier: str, folder: Path = ENTRIES) -> None:
    """Leave the winner's ranks out of entries where another entry holds them."""
    known = known_ranks(folder, get_tier(tier))
    for entry in read_tier(folder, tier):
        write_entry(folder, without_copies(entry.values, known))


if __name__ == "__main__":
    main()
