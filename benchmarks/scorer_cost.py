#!/usr/bin/env python3
"""What one scoring costs, against a stand-in for 2022's program: docs/results/scorer_cost.json.

    python benchmarks/scorer_cost.py [--pinned PYTHON]

Both score the same 3 scenarios x 50 models x 200 points, in turns, each in a process of its own.
The stand-in is not 2022's program: it is written here to do what that did with the libraries it
imported (scikit-learn's curve, a pandas table, matplotlib's pictures).  PYTHON is an interpreter
with the libraries of image py37, which the stand-in then also runs in.  Ours also runs in the
Pythons that `.ci/run pythons` makes.  Processor seconds and peak memory are of whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "results" / "scorer_cost.json"
PROGRAM = ROOT / "scoring" / "score.py"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "scoring")]

# Runs a program as `python PROGRAM IN OUT` does, then tells its peak of memory.  /proc has that
# of this process alone; getrusage would begin with the peak of the one that started it.
MEASURED = """
import json, re, runpy, sys, time
measures, sys.argv = sys.argv[1], sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
status = open("/proc/self/status").read()
peak = int(re.search(r"VmHWM:\\s+([0-9]+)", status).group(1)) / 1024
json.dump({"seconds": time.process_time(), "mb": peak}, open(measures, "w"))
"""

STAND_IN = """
import csv, os, sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import auc, roc_curve

ref, res = (os.path.join(sys.argv[1], name) for name in ("ref", "res"))
out = sys.argv[2]
os.makedirs(out, exist_ok=True)
rows = {}
for scenario in sorted(os.listdir(os.path.join(ref, "cifar10"))):
    phase = os.path.join("cifar10", scenario, "dev")
    pooled = [[], []]
    for model in sorted(os.listdir(os.path.join(ref, phase))):
        for values, root, name in zip(pooled, (ref, res), ("solution.csv", "prediction.csv")):
            with open(os.path.join(root, phase, model, name)) as file:
                values.extend(float(v) for v in next(csv.reader(file)))
    fpr, tpr, _ = roc_curve(*pooled)
    row = {"AUC": auc(fpr, tpr), "MIA": max(tpr - fpr), "accuracy": max(1 - (fpr + (1 - tpr)) / 2)}
    for k in (10, 100, 500, 1000, 1500, 2000):
        row["TPR_FPR_%d" % k] = max(tpr[fpr < k / 10000])
    rows[scenario] = row
    if os.environ.get("PICTURES"):
        figure, axes = plt.subplots(1, 2, figsize=(8, 3.5))
        for ax, scale in zip(axes, ("linear", "log")):
            ax.plot(fpr, tpr)
            ax.set_xscale(scale); ax.set_yscale(scale)
            ax.set_xlim(1e-5, 1); ax.set_ylim(1e-5, 1)
        figure.savefig(os.path.join(out, scenario + ".png"))
with open(os.path.join(out, "scores.txt"), "w") as file:
    for i, row in enumerate(rows.values(), start=1):
        for key, value in row.items():
            file.write("scenario%d_%s: %r\\n" % (i, key, float(value)))
with open(os.path.join(out, "page.html"), "w") as file:
    file.write(pd.DataFrame(rows).T.to_html())
"""


def main() -> None:
    """Measure every program in turns, compare their numbers, print and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pinned", metavar="PYTHON", help="one with the libraries of py37")
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    from test_hostile import full_size

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        full_size(folder)
        stand_in = folder / "stand_in.py"
        stand_in.write_text(STAND_IN)
        runs = {}
        for version in ("3.7", "3.9", "3.12"):
            python = ROOT / f".venv-{version}" / "bin" / "python"
            if python.exists():
                runs[f"ours, image py{version.replace('.', '')}"] = (str(python), PROGRAM, "")
        runs["ours, this Python"] = (sys.executable, PROGRAM, "")
        for name, pictures in (("stand-in without pictures", ""), ("stand-in", "1")):
            runs[f"{name}, this Python"] = (sys.executable, stand_in, pictures)
            if args.pinned:
                runs[f"{name}, libraries of py37"] = (args.pinned, stand_in, pictures)
        costs: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        for _ in range(args.turns):
            for name, run in runs.items():
                costs[name].append(measure(folder, *run))
        assert same_numbers(folder, list(runs.values())), "they do not give the same numbers"
        page = (folder / "out" / "detailed_results.html").stat().st_size
    rows = [{"program": name, **medians(found)} for name, found in costs.items()]
    report = {"models": 150, "points": 200, "turns": args.turns, "page_bytes": page, "rows": rows}
    print(json.dumps(report, indent=1))
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


def measure(folder: Path, python: str, program: Path, pictures: str) -> dict[str, float]:
    """Run one program once; its processor seconds, wall seconds and peak of memory in MB."""
    measures = folder / "measures.json"
    started = time.perf_counter()
    subprocess.run(
        [python, "-c", MEASURED, measures, program, folder / "in", folder / "out"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PICTURES": pictures, "OMP_NUM_THREADS": "1"},
    )
    return {**json.loads(measures.read_text()), "wall": time.perf_counter() - started}


def same_numbers(folder: Path, runs: list[tuple[str, Path, str]]) -> bool:
    """Whether every program writes the same numbers, to the last digit, but for the average."""
    found = set()
    for run in runs:
        measure(folder, *run)
        lines = (folder / "out" / "scores.txt").read_text().splitlines()
        pairs = [line.split(": ") for line in lines if not line.startswith("average")]
        found.add(tuple((key, float(value)) for key, value in pairs))
    return len(found) == 1


def medians(found: list[dict[str, float]]) -> dict[str, Any]:
    """The median of each measure."""
    return {key: round(statistics.median(f[key] for f in found), 2) for key in found[0]}


if __name__ == "__main__":
    main()
