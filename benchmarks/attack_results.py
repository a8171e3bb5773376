#!/usr/bin/env python3
"""All attacks on all fleets: docs/results/attacks/*.json (an hour or two; part of `make attacks`).

    python benchmarks/attack_results.py [RUN ...] [--work runs/fleets]

reads the fleets that `benchmarks/attack_fleets.py` makes and runs `mico evaluate` on each.  A run
whose file is there is kept; remove the file to run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/attacks"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from attack_fleets import BASES  # noqa: E402
from testbeds import TESTBEDS, commit, one_of  # noqa: E402

from mico_competition.attacks.registry import WINNERS_FORMULAS  # noqa: E402

GROUPS = {
    "closed": [
        *("threshold", "entropy", "modified-entropy"),
        *("calibrate-loss-in", "calibrate-loss-midpoint", "calibrate-loss-standardised"),
        *("calibrate-confidence-in", "calibrate-confidence-midpoint", "winner-2023"),
        *("first-principles", "first-principles-sent", "fleshman", "quantile"),
        *("lira-offline-global", "lira-online", "lira-online-global", "lira-online-shrunk"),
        *("rmia", "bavaria", "eb", "eb-gradient-norm"),
    ],
    "few": ["threshold", "winner-2023", "lira-online-global", "rmia", "bavaria", "eb"],
    "black": ["neural", "stack", "query-stack"],
    "suri": ["suri"],
    "white": ["trace", "joint", "best"],
    "best": ["best"],  # at full size, where each decode takes minutes
    "trace": ["trace"],
    "layers": ["layers"],
}


@dataclass(frozen=True)
class Run:
    """One call of `mico evaluate`."""

    testbed: str
    scenario: str
    attacks: list[str]
    flags: list[str]

    def command(self, work: Path, out: Path) -> list[str]:
        """The whole command."""
        testbed = TESTBEDS[self.testbed]
        command = [
            *testbed.mico,
            "evaluate",
            str(work / (testbed.shares or self.testbed) / testbed.challenge),
        ]
        flags = [str(work / BASES[testbed.data or ""]) if f == BASE else f for f in self.flags]
        command += ["--scenario", self.scenario, "--json", str(out), *flags]
        for name in self.attacks:
            command += ["--attack", name]
        return [*command, "--dataset_dir", str(work / (testbed.data or "."))]


BASE = "BASE"  # stands for the folder of the testbed's base model
DEV, ALL, DDP = ["--phase", "dev"], ["--records", "all"], ["--knowledge", "distinguisher"]


def _runs() -> Iterator[tuple[str, Run]]:
    """Name of the file and what goes into it; groups apart, so that each can be run anew."""
    for kind in ("inf", "hi", "lo"):
        for group in ("closed", "black", "white", "suri"):
            yield f"A_{kind}-{group}", Run("A", f"purchase100_{kind}", GROUPS[group], DEV)
        for group in ("few", "white"):
            run = Run("A", f"purchase100_{kind}", GROUPS[group], [*DEV, *ALL])
            yield f"A_{kind}_all-{group}", run
    for group in ("few", "white"):
        run = Run("A", "purchase100_lo", GROUPS[group], [*DEV, *ALL, *DDP])
        yield f"A_lo_ddp-{group}", run
    studied = ["winner-2023", "lira-online-global", "eb"]
    counts = ["--shadows", "4,8,16,32,64,100"]
    yield "A_inf_study", Run("A", "purchase100_inf", studied, [*DEV, *counts])
    for testbed, kinds in {"C": ("inf", "hi"), "digits": ("inf", "hi")}.items():
        for kind in kinds:
            scenario = f"{TESTBEDS[testbed].challenge}_{kind}"
            for group in ("closed", "black", "white"):
                yield f"{testbed}_{kind}-{group}", Run(testbed, scenario, GROUPS[group], DEV)
            for group in ("few", "white"):
                yield (
                    f"{testbed}_{kind}_all-{group}",
                    Run(testbed, scenario, GROUPS[group], [*DEV, *ALL]),
                )
    for testbed in ("cnn", "text"):
        (scenario,) = TESTBEDS[testbed].scenarios
        for group in ("closed", "layers"):
            yield f"{testbed}_inf-{group}", Run(testbed, scenario, GROUPS[group], [])
        for group in ("few", "layers"):
            yield f"{testbed}_inf_all-{group}", Run(testbed, scenario, GROUPS[group], ALL)
    for kind in ("inf", "lo"):
        scenario = f"short_{kind}"
        yield f"{scenario}_all-few", Run("short", scenario, [*GROUPS["few"], "fleshman"], ALL)
        yield f"{scenario}_all-layers", Run("short", scenario, GROUPS["layers"], ALL)
        known = [*ALL, "--base_model", BASE]
        yield f"{scenario}_known_all-layers", Run("short", scenario, GROUPS["layers"], known)
    for testbed in ("images_real", "images_real_lo", "images_wide"):
        for scenario in TESTBEDS[testbed].scenarios:
            for group in ("few", "layers"):
                yield f"{scenario}_all-{group}", Run(testbed, scenario, GROUPS[group], [*DEV, *ALL])
    for testbed in ("bundles", "widebundles", "cancer", "full"):  # one run scores both
        for scenario in TESTBEDS[testbed].scenarios:
            kind = scenario.rsplit("_", 1)[1]
            for group in ("few", "best" if testbed == "full" else "white"):
                yield (
                    f"{testbed}_{kind}_all-{group}",
                    Run(testbed, scenario, GROUPS[group], [*DEV, *ALL]),
                )
    counts = ["--shadows", "50,100"]
    studied = [*WINNERS_FORMULAS, "eb", "best"]
    yield "bundles_inf_study", Run("bundles", "bundles_inf", studied, [*DEV, *ALL, *counts])
    for group in ("few", "best"):
        run = Run("full", "purchase100_lo", GROUPS[group], [*DEV, *ALL, *DDP])
        yield f"full_lo_ddp-{group}", run


RUNS = dict(_runs())


def main() -> None:
    """Run what is asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = f"of {', '.join(RUNS)}; default: all"
    parser.add_argument("runs", nargs="*", metavar="RUN", type=one_of(RUNS), help=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    OUT.mkdir(parents=True, exist_ok=True)
    for name in args.runs or RUNS:
        out = OUT / f"{name}.json"
        if not out.exists():
            started = time.perf_counter()
            if subprocess.run(RUNS[name].command(args.work.resolve(), out)).returncode:
                sys.exit(1)
            _name_commit(out)
            print(f"{name}: {time.perf_counter() - started:.0f} s\n", flush=True)


def _name_commit(path: Path) -> None:
    """Keep the numbers of a report, and name the commit of the code that made them."""
    report = json.loads(path.read_text(encoding="utf-8"))
    found = [{"commit": commit(), **row} for row in report["scenarios"]]
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
