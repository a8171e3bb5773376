#!/usr/bin/env python3
"""What attacks prove of each fleet: docs/results/audits/*.json (an hour; part of `make attacks`).

    python benchmarks/audit_results.py [RUN ...] [--work runs/fleets]

reads the fleets that `benchmarks/attack_fleets.py` makes and runs `mico audit` on each, and
`mico audit-train` on private settings.  A run whose file is there is kept; remove it to run it
again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/audits"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from testbeds import MICO, TESTBEDS, one_of  # noqa: E402

# A run is of one scenario of a testbed; more than one attack where it is not plain which is best.
AUDITED = {
    "cifar10_inf": ("cnn", "best"),
    "cifar10_lo": ("cnn_lo", "best"),
    "sst2_inf": ("text", "best"),
    "sst2_lo": ("text_lo", "best"),
    # Decoding all 197,324 records jointly (best) takes an hour here; with so few shadow models eb
    # finds more than the trace (docs/ATTACKS.md).
    "purchase100_inf": ("full", "eb"),
    "purchase100_lo": ("full", "eb"),
    "digits_inf": ("digits", "best"),
    "digits_hi": ("digits", "best"),
    "digits_lo": ("digits", "best"),
    "A_inf": ("A", "best"),
    "A_hi": ("A", "best"),
    "A_lo": ("A", "best"),
}

FEW = ["--real_records", "1000", "--replay_steps", "20"]
# Audits of the trainer, by gradient canaries: settings and flags.
TRAINED = {
    "train_digits_lo": ["digits_lo", "--canaries", "5000"],
    "train_digits_hi": ["digits_hi", "--canaries", "5000"],
    "train_purchase100_lo": ["purchase100_lo", "--canaries", "5000", *FEW],
    "train_purchase100_hi": ["purchase100_hi", "--canaries", "5000", *FEW],
}


def command(name: str, work: Path) -> list[str]:
    """The whole `mico audit` or `mico audit-train` of a run."""
    if name in TRAINED:
        flags = [
            "--seed",
            "0",
            "--dataset_dir",
            str(work / "A_data"),
            "--json",
            str(OUT / f"{name}.json"),
        ]
        return [*MICO, "audit-train", *TRAINED[name], *flags]
    testbed_name, attack = AUDITED[name]
    testbed = TESTBEDS[testbed_name]
    kind = name.rsplit("_", 1)[1]
    words = [*MICO, "audit", str(work / (testbed.shares or testbed_name) / testbed.challenge)]
    words += ["--scenario", f"{testbed.challenge}_{kind}", "--attack", attack]
    words += ["--dataset_dir", str(work / (testbed.data or "."))]
    return [*words, "--json", str(OUT / f"{name}.json")]


def main() -> None:
    """Run what is asked for, all by default."""
    known = [*AUDITED, *TRAINED]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = f"of {', '.join(known)}"
    parser.add_argument("runs", nargs="*", metavar="RUN", type=one_of(known), help=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    OUT.mkdir(parents=True, exist_ok=True)
    for name in args.runs or known:
        out = OUT / f"{name}.json"
        if out.exists():
            continue
        words = command(name, args.work.resolve())
        started = time.perf_counter()
        if subprocess.run(words).returncode and not out.exists():  # 1 is also that of an alarm
            sys.exit(1)
        print(f"{name}: {time.perf_counter() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
