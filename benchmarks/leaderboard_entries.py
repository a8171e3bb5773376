#!/usr/bin/env python3
"""The entries of the benchmark: every named attack on every tier (part of `make attacks`).

    python benchmarks/leaderboard_entries.py [TIER ...] [--work runs/benchmark] [--attack NAME]

runs `mico benchmark`, which trains the fleets that are missing, and writes into
`src/mico_competition/benchmark/entries`.  Entries on the same fleets are kept; remove one to
measure it again.  What `attack_results.py` measured on all records of fleets of the same recipes is
copied from docs/results/attacks (`--copy` does only that).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from testbeds import MICO, ROOT, one_of

from mico_competition.attacks.registry import TABLE, WINNERS_FORMULAS
from mico_competition.benchmark.entry import (
    ENTRIES,
    known_ranks,
    read_tier,
    without_copies,
    write_entry,
)
from mico_competition.benchmark.tiers import TIERS, get_tier

RESULTS = ROOT / "docs/results/attacks"
ALL_RECORDS = ENTRIES.parent / "all_records.json"
BEDS = {"bundles": "bundles", "widebundles": "widebundles", "purchase100": "full"}
"""Challenge -> the name of its test-bed in RESULTS."""


def main() -> None:
    """Measure every named attack on every tier, or only those that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = f"of {', '.join(TIERS)}"
    parser.add_argument("tiers", nargs="*", metavar="TIER", type=one_of(TIERS), help=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark")
    parser.add_argument("--attack", action="append", default=[], help="these only")
    parser.add_argument("--copy", action="store_true", help="copy what is on all records only")
    args = parser.parse_args()
    ALL_RECORDS.write_text(json.dumps(all_records(), indent=1) + "\n", encoding="utf-8")
    if args.copy:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for tier in args.tiers or TIERS:
        names = args.attack or names_of()
        flags = [word for name in names for word in ("--attack", name)]
        command = [*MICO, "benchmark", "--tier", tier, "--work", str(args.work)]
        if subprocess.run([*command, "--out", str(ENTRIES), *flags]).returncode:
            sys.exit(1)
        strip(tier)


def names_of() -> list[str]:
    """The attacks: the winner's formulas first, to whose ranks other entries point."""
    others = [row.name for row in TABLE if row.name not in WINNERS_FORMULAS]
    return [*WINNERS_FORMULAS, *others]


def all_records() -> dict[str, dict[str, Any]]:
    """Scenario -> what was measured on all records: targets, winner's formula, attacks."""
    found: dict[str, dict[str, Any]] = {}
    for tier in TIERS.values():
        for scenario in tier.scenarios:
            challenge, kind = scenario.rsplit("_", 1)
            files = sorted(RESULTS.glob(f"{BEDS.get(challenge, '-')}_{kind}_all-*.json"))
            if tier.downloaded or not files:
                continue
            parts = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
            rows = [{**row, "run": part} for part in parts for row in part["attacks"]]
            found[scenario] = {
                "attacks": [
                    {
                        "name": "whitebox" if row["name"] == "best" else row["name"],
                        "targets": row["run"]["models"],
                        "commit": row["run"]["commit"],
                        "tpr": _ends(row["metrics"]),
                        "gain": _ends(row["gain"]),
                    }
                    for row in rows
                    if row["gain"] is not None
                ]
            }
    return found


def _ends(metrics: dict[str, Any]) -> list[float]:
    """[value, low, high] of TPR at 10 % FPR."""
    return [round(metrics["TPR_FPR_1000"][end], 6) for end in ("value", "low", "high")]


def strip(tier: str, folder: Path = ENTRIES) -> None:
    """Leave the winner's ranks out of entries where another entry holds them."""
    known = known_ranks(folder, get_tier(tier))
    for entry in read_tier(folder, tier):
        write_entry(folder, without_copies(entry.values, known))


if __name__ == "__main__":
    main()
