#!/usr/bin/env python3
"""Accuracy and epsilon in float32 and in bfloat16: docs/results/precision.json.

    PYTHONPATH=src python benchmarks/precision_accuracy.py --work DIR [--shared ../shared]

Models with the same seeds (splits, weights, batches, noise) train in each precision.  On a machine
without a GPU, bfloat16 runs slower than float32; the results are what counts here.  A model that
has been measured is kept in the JSON, so a run goes on where it stopped.  `--precisions float32
tf32 bfloat16` adds TF32, on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import markdown_tables
import torch
from real_runs import MAKERS, ROOT, machine

from mico_competition.competition.splits import derive_seeds
from mico_competition.data.datasets import load_dataset
from mico_competition.models.inputs import default_device, prepare
from mico_competition.training.model_folder import software_versions
from mico_competition.training.settings import resolve
from mico_competition.training.train import mechanism_of, train_model

RESULT = ROOT / "docs" / "results" / "precision.json"
PAGE = ROOT / "docs" / "howto" / "gpu.md"
BEGIN, END = "<!-- precision: begin -->\n", "<!-- precision: end -->"


@dataclass(frozen=True)
class Bed:
    """A scenario with the flags that make it fit the machine, and the seeds it is run with."""

    scenario: str
    seeds: int
    flags: dict[str, Any] = field(default_factory=dict)


CIFAR = {"len_training": 500, "num_epochs": 3, "max_evaluation_records": 1000}
SST = {"len_training": 4000, "num_epochs": 2, "max_evaluation_records": 4000}
BEDS = [
    Bed("digits_lo", 10),
    Bed("digits_inf", 10),
    Bed("sst2_lo", 2, {**SST, "learning_rate": 0.001, "batch_size": 512, "max_grad_norm": 1.0}),
    Bed("cifar10_lo", 1, {**CIFAR, "batch_size": 100}),
    Bed("sst2_inf", 1, {**SST, "len_training": 2000, "learning_rate": 0.0005}),
    Bed("cifar10_inf", 1, {**CIFAR, "learning_rate": 0.05}),
]


def main() -> None:
    """Run what is missing in the JSON, and write it after each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    beds = json.loads(args.out.read_text())["beds"] if args.out.exists() else {}
    for bed in BEDS:
        row = beds.setdefault(bed.scenario, {"flags": bed.flags, "runs": {}})
        measure(bed, row, args)
        row["summary"] = summary(row["runs"])
        write(args.out, beds)
        print(bed.scenario, json.dumps(row["summary"]), flush=True)
    if args.out == RESULT:
        PAGE.write_text(filled(PAGE.read_text(), beds))


def measure(bed: Bed, row: dict[str, Any], args: argparse.Namespace) -> None:
    """Train the models of a scenario that are missing."""
    flags = {"scenario": bed.scenario, **bed.flags}
    task = resolve(flags).task
    folder = args.work
    if task in MAKERS:
        folder, extra = MAKERS[task](args.work, args.shared)
        flags.update({extra[0][2:]: extra[1]} if extra else {})
    settings = resolve(flags)
    data, tokenizer = prepare(task, load_dataset(task, folder), settings.model_name)
    mechanism = mechanism_of(settings)
    for seed in range(bed.seeds):
        for precision in args.precisions:
            runs = row["runs"].setdefault(precision, [])
            if len(runs) > seed:
                continue
            own = resolve({**flags, "precision": precision, "train_seed": seed})
            with tempfile.TemporaryDirectory() as place:
                at = Path(place) / "model"
                found = train_model(
                    own,
                    data,
                    derive_seeds(seed),
                    at,
                    tokenizer=tokenizer,
                    progress=False,
                    mechanism=mechanism,
                )
            epsilon = found["privacy"] and found["privacy"]["epsilon"]
            keep = {key: round(found["results"][key], 5) for key in ("accuracy", "loss")}
            runs.append({**keep, "epsilon": epsilon, "seconds": found["wall_time_seconds"]})


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means and standard deviations over seeds, and the differences from float32, in pairs."""
    found: dict[str, Any] = {}
    for precision, own in runs.items():
        accuracies = [run["accuracy"] for run in own]
        pairs = [a["accuracy"] - b["accuracy"] for a, b in zip(own, runs["float32"])]
        losses = [a["loss"] - b["loss"] for a, b in zip(own, runs["float32"])]
        found[precision] = {
            "models": len(own),
            "accuracy": spread(accuracies),
            "minus_float32": spread(pairs),
            "loss_minus_float32": spread(losses),
            "epsilon": own[0]["epsilon"],
        }
    return found


def filled(page: str, beds: dict[str, Any]) -> str:
    """The page with the table of these beds."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table(beds) + END + rest.partition(END)[2]


def table(beds: dict[str, Any]) -> str:
    """The table of docs/howto/gpu.md, in Markdown."""
    heads = ["scenario", "n", "models", "float32", "bfloat16", "difference", "of loss", "epsilon"]
    rows = []
    for name, row in beds.items():
        exact, low = row["summary"]["float32"], row["summary"]["bfloat16"]
        assert exact["epsilon"] == low["epsilon"]
        count = low["models"]
        cells = [name, f"{resolve({'scenario': name, **row['flags']}).len_training:,}", str(count)]
        cells += [_of(each["accuracy"], "deviation", 100, 1, count) for each in (exact, low)]
        cells += [_of(low["minus_float32"], "standard_error", 100, 2, count, sign=True)]
        cells += [_of(low["loss_minus_float32"], "standard_error", 1, 4, count, sign=True)]
        cells += ["none" if low["epsilon"] is None else f"{low['epsilon']:.2f}"]
        rows.append(cells)
    return markdown_tables.table(heads, rows) + "\n"


def _of(
    found: dict[str, float], beside: str, factor: float, digits: int, count: int, sign: bool = False
) -> str:
    """A mean, with what is beside it if there are several models."""
    mean = f"{found['mean'] * factor:{'+' if sign else ''}.{digits}f}"
    return mean if count == 1 else f"{mean} ± {found[beside] * factor:.{digits}f}"


def spread(values: list[float]) -> dict[str, float]:
    """The mean, the deviation of one value, and the standard error of the mean."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    error = deviation / len(values) ** 0.5
    return {
        "mean": round(statistics.mean(values), 5),
        "deviation": round(deviation, 5),
        "standard_error": round(error, 5),
    }


def write(path: Path, beds: dict[str, Any]) -> None:
    """Write the JSON."""
    device = default_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    report = {
        "command": "PYTHONPATH=src python benchmarks/precision_accuracy.py --work DIR",
        "machine": name,
        "software": software_versions(),
        "beds": beds,
    }
    path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
