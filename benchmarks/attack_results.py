#!/usr/bin/env python3
"""All attacks on all fleets: docs/results/attacks/*.json (an hour or two; part of `make results`).

    python benchmarks/attack_results.py [RUN ...] [--work runs/fleets]

reads the fleets that `benchmarks/attack_fleets.py` makes and runs `mico evaluate` on each.  A run
whose file is there is kept; remove the file to run it again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/attacks"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from attack_fleets import BEDS, MICO  # noqa: E402

CLOSED = [
    "threshold",
    "entropy",
    "modified-entropy",
    "calibrate-loss-in",
    "calibrate-confidence-in",
    "calibrate-confidence-midpoint",
    "calibrate-loss-midpoint",
    "calibrate-loss-standardised",
    "winner-2023",
    "first-principles",
    "first-principles-sent",
    "fleshman",
    "lira-offline-global",
    "lira-online",
    "lira-online-global",
    "lira-online-shrunk",
    "rmia",
    "bavaria",
    "quantile",
    "eb",
    "eb-gradient-norm",
]
LEARNED = ["neural", "stack", "suri"]
FEW = ["threshold", "winner-2023", "lira-online-global", "rmia", "bavaria", "eb"]


@dataclass(frozen=True)
class Run:
    """One call of `mico evaluate`."""

    bed: str
    scenario: str
    attacks: list[str]
    flags: list[str]

    def command(self, work: Path, out: Path) -> list[str]:
        """The whole command."""
        bed = BEDS[self.bed]
        command = [*MICO, "evaluate", str(work / self.bed / bed.challenge)]
        command += ["--scenario", self.scenario, "--json", str(out), *self.flags]
        for name in self.attacks:
            command += ["--attack", name]
        return [*command, "--dataset_dir", str(work / (bed.data or "."))]


DEV, ALL = ["--phase", "dev"], ["--records", "all"]
BEST = [*CLOSED, *LEARNED, "best"]
RUNS = {
    **{f"A_{kind}": Run("A", f"purchase100_{kind}", BEST, DEV) for kind in ("inf", "hi", "lo")},
    **{
        f"A_{kind}_all": Run("A", f"purchase100_{kind}", [*FEW, "stack", "best"], [*DEV, *ALL])
        for kind in ("inf", "hi", "lo")
    },
    "A_lo_ddp": Run(
        "A", "purchase100_lo", [*FEW, "best"], [*DEV, *ALL, "--knowledge", "distinguisher"]
    ),
    "A_inf_study": Run(
        "A",
        "purchase100_inf",
        ["winner-2023", "lira-online-global", "eb"],
        [*DEV, "--shadows", "4,8,16,32,64,100"],
    ),
    "C_inf": Run("C", "baskets_inf", [*FEW, "stack", "best"], DEV),
    "C_inf_all": Run("C", "baskets_inf", [*FEW, "best"], [*DEV, *ALL]),
    "C_hi_all": Run("C", "baskets_hi", [*FEW, "best"], [*DEV, *ALL]),
    "digits_inf": Run("digits", "digits_inf", BEST, DEV),
    "digits_hi": Run("digits", "digits_hi", BEST, DEV),
    "cnn_inf": Run("cnn", "cifar10_inf", [*FEW, "stack", "best"], []),
    "cnn_inf_all": Run("cnn", "cifar10_inf", [*FEW, "best"], ALL),
    "text_inf": Run("text", "sst2_inf", [*FEW, "stack", "best"], []),
    "text_inf_all": Run("text", "sst2_inf", [*FEW, "best"], ALL),
    "full_inf": Run("full", "purchase100_inf", [*FEW, "best"], []),
}


def main() -> None:
    """Run what is asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = ", ".join(RUNS)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {known}; default: all")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    if unknown := set(args.runs) - set(RUNS):
        parser.error(f"no run {', '.join(sorted(unknown))}: choose of {known}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    OUT.mkdir(parents=True, exist_ok=True)
    for name in args.runs or RUNS:
        out = OUT / f"{name}.json"
        if not out.exists():
            started = time.perf_counter()
            if subprocess.run(RUNS[name].command(args.work.resolve(), out)).returncode:
                sys.exit(1)
            print(f"{name}: {time.perf_counter() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
