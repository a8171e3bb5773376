#!/usr/bin/env python3
"""How far the benchmark's scores move between machines: docs/results/benchmark_machines.json.

    python benchmarks/benchmark_machines.py [--work runs/machines]

trains the small tier several times from the same seeds, with other numbers of threads and other
instruction sets of torch's and MKL's matrix products, as other machines would choose, and measures
the baselines on each.  Ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from testbeds import MICO, ROOT

from mico_competition.benchmark.entry import read_values
from mico_competition.cli.benchmark import BASELINES

OUT = ROOT / "docs/results/benchmark_machines.json"
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "one thread": (1, {}),
    "two threads": (2, {}),
    "torch without vector instructions, MKL with SSE4.2": (
        1,
        {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    ),
}
"""Name -> threads of a training process, and environment variables."""


def main() -> None:
    """Train and measure with every setting, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "machines")
    parser.add_argument("--workers", default="2")
    args = parser.parse_args()
    found = {}
    for number, (name, (threads, variables)) in enumerate(SETTINGS.items()):
        work = args.work / str(number)
        command = [*MICO, "benchmark", "--tier", "small", "--work", str(work)]
        command += ["--threads", str(threads), "--workers", args.workers]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **variables}
        if subprocess.run(command, env=environment).returncode:
            sys.exit(1)
        found[name] = {"threads": threads, "variables": variables, **numbers(work)}
        first = next(iter(found.values()))
        OUT.write_text(json.dumps(report(found, first), indent=1) + "\n", encoding="utf-8")


def numbers(work: Path) -> dict[str, Any]:
    """Fingerprints of the fleets, and TPR at 10 % FPR and gain of each attack in each scenario."""
    entries = {name: read_values(work / "entries/small" / f"{name}.json") for name in BASELINES}
    first = entries[BASELINES[0]]
    return {
        "machine": first["machine"],
        "fleets": {name: part["fleet"] for name, part in first["scenarios"].items()},
        "attacks": {
            name: {
                kind: {
                    "mean": values["average"][key]["TPR_FPR_1000"],
                    **{s: p[key]["TPR_FPR_1000"] for s, p in values["scenarios"].items()},
                }
                for kind, key in (("tpr", "metrics"), ("gain", "gain"))
            }
            for name, values in entries.items()
        },
    }


def report(found: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """The numbers of all settings, and the largest differences from the first one."""
    moved = {
        name: {
            kind: {
                where: round(max(abs(a - b) for a, b in pairs(one, first, kind, where)), 6)
                for where in next(iter(first["attacks"].values()))[kind]
            }
            for kind in ("tpr", "gain")
        }
        for name, one in found.items()
    }
    return {"settings": found, "largest_difference_from_the_first": moved}


def rows(found: dict[str, Any]) -> list[str]:
    """The table of docs/LEADERBOARD.md, in points."""
    lines = [
        "| setting | fleets with other bits | a TPR at 10 % FPR moves by | a gain | a mean gain |",
        "|---|---|---|---|---|",
    ]
    first = next(iter(found["settings"].values()))
    for name, one in [*found["settings"].items()][1:]:
        other = [s for s, mark in one["fleets"].items() if mark != first["fleets"][s]]
        moved = found["largest_difference_from_the_first"][name]
        ends = (
            max(v for where, v in moved["tpr"].items() if where != "mean"),
            max(v for where, v in moved["gain"].items() if where != "mean"),
            moved["gain"]["mean"],
        )
        cells = [name, f"{len(other)} of 3", *(f"{100 * end:.1f}" for end in ends)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def pairs(one: Any, first: Any, kind: str, where: str) -> list[tuple[float, float]]:
    """The values of each attack with two settings."""
    both = zip(one["attacks"].values(), first["attacks"].values())
    return [(a[kind][where][0], b[kind][where][0]) for a, b in both]


if __name__ == "__main__":
    main()
