#!/usr/bin/env python3
"""What the white-box decodes of an MLP cost as records grow: docs/results/decode_cost.json.

    python benchmarks/decode_cost.py [--records 20000,50000,100000,197324] [--models 3]

decodes models of the test-bed `full` (purchase100_inf, 600-128-100) at its first N records, one
thread, and writes CPU seconds a model, products with a kernel, and the growth of the process's own
memory. Five minutes; needs the fleet of `attack_fleets.py full`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mico_competition.attacks.whitebox.mlp import features
from mico_competition.attacks.whitebox.mlp.features import FirstPass
from mico_competition.attacks.whitebox.mlp.joint import Solves, joint_decode
from mico_competition.data.arrays import ArrayDataset
from mico_competition.data.datasets import load_dataset
from mico_competition.models.architectures import load_model, logits

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/decode_cost.json"
TASK = "purchase100"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", default="20000,50000,100000,197324")
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = sorted((args.work / "full/purchase100/purchase100_inf/train").glob("model_*"))
    models = [load_model(TASK, folder) for folder in folders[: args.models]]
    data = load_dataset(TASK, args.work / "full_data")
    found = []
    for count in map(int, args.records.split(",")):
        row = {"records": count, "models": len(models), **measure(models, data, count)}
        print(row, flush=True)
        found.append(row)
    report = {"torch": torch.__version__, "numpy": np.__version__, "rows": found}
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(models: list[torch.nn.Module], data: object, count: int) -> dict[str, object]:
    """CPU seconds a model of the traces and of each decode at the first records."""
    before = anonymous()
    source = source_of(models, data, count)
    rows = np.arange(len(models))
    first, traces = timed(lambda: features._first_pass(source, rows))
    found: dict[str, object] = {"traces": traces / len(models)}
    for name, system, ridges, tolerance in decodes(first):
        system(0)  # what the models share is made apart
        solves = Solves()

        def solve(
            system: Callable = system,
            ridges: tuple = ridges,
            own: Solves = solves,
            tolerance: float = tolerance,
        ) -> None:
            for row in range(len(models)):
                joint_decode(*system(row), ridges, own, tolerance)

        _, seconds = timed(solve)
        found[name] = seconds / len(models)
        found[f"{name}, products"] = solves.steps
        if solves.short:
            found[f"{name}, not converged"] = solves.short
    found["memory_gb"] = (anonymous() - before) / 2**20
    return {key: round(v, 2) if isinstance(v, float) else v for key, v in found.items()}


def decodes(first: FirstPass) -> list[tuple[str, Callable, tuple[float, ...], float]]:
    """Name, system, ridges and tolerance of each decode."""
    found = [
        ("joint", first.system, features.JOINT),
        ("both layers", first.both_system, features.BOTH_LAYERS),
        ("Adam's steps", first.adaptive_system, features.ADAMS_STEPS),
        ("final gradients", first.balance_system, features.BALANCE),
    ]
    return [(name, system, *first.effort(efforts)) for name, system, efforts in found]


def source_of(models: list[torch.nn.Module], data: object, count: int) -> SimpleNamespace:
    """What the first pass reads of a source, at the first `count` records."""
    inputs = data.inputs(torch.arange(count))
    labels = data.labels[:count]
    fleet = SimpleNamespace(
        labels=labels.numpy(),
        known_membership=np.zeros((len(models), count), np.int8),
        name=lambda row: f"model {row}",
    )

    def own_logits(row: int) -> np.ndarray:
        with torch.inference_mode():
            return logits(models[row], inputs).numpy()

    return SimpleNamespace(
        data=ArrayDataset(inputs, labels, torch.Tensor.float),
        fleet=fleet,
        load=models.__getitem__,
        logits=own_logits,
    )


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """The result and the CPU seconds of this process."""
    started = time.process_time()
    return work(), time.process_time() - started


def anonymous() -> int:
    """KB of memory that is this process's own, without mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
