#!/usr/bin/env python3
"""How fast attacks are from cached signals: docs/results/attack_speed.json (a minute).

    python benchmarks/attack_speed.py [--models FOLDER --dataset_dir DIR]

100 shadows x 50 targets x 200 points.  The rival of LiRA is the Purchase-100 runner-up's way,
as it is described: for each target and each of its points a walk over all shadow models, a list of
those that saw the point and of those that did not, and a normal distribution fitted to each list.
Signals and masks are ready in memory for both; his program read them from files.
With --models, also signals against bare forward passes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import norm

from mico_competition import attacks as arrays
from mico_competition.evaluation.named import ATTACKS
from mico_competition.evaluation.problem import Problem
from mico_competition.tracks import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers_problem import Arrays, make_problem  # noqa: E402

SHADOWS, TARGETS, POINTS, ASKED = 100, 50, 10_000, 200


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="challenge folder, to time signals as well")
    parser.add_argument("--dataset_dir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    problem = simulated()
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread",
        "software": {"python": platform.python_version(), "numpy": np.__version__},
        "size": f"{SHADOWS} shadows x {TARGETS} targets x {ASKED} points",
        "seconds": closed_forms(problem),
        "lira": against_the_loop(problem),
    }
    if args.models:
        report["signals"] = signals_over_forward(args.models, args.dataset_dir)
    path = ROOT / "docs/results/attack_speed.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(path.read_text())


def simulated() -> Problem:
    """A problem with every scalar signal, Gaussian."""
    problem, _ = make_problem(shadows=SHADOWS, targets=TARGETS, points=POINTS, asked=ASKED)
    logit = problem.source.get("logit")
    signals = {
        "logit": logit,
        "loss": -np.logaddexp(0, -logit),
        "confidence": 1 / (1 + np.exp(-logit)),
        "entropy": -np.exp(-np.abs(logit)),
        "modified_entropy": -np.logaddexp(0, -logit),
        "gradient_norm": logit,
    }
    return Problem(
        Arrays(problem.source.fleet, signals),
        problem.shadows,
        problem.targets,
        problem.columns,
        problem.told,
    )


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """The shortest of a few runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def closed_forms(problem: Problem) -> dict[str, float]:
    """Seconds of every named closed-form attack."""
    return {
        name: round(seconds(lambda run=attack.run: run(problem)), 4)
        for name, attack in sorted(ATTACKS.items())
    }


def loop(problem: Problem, targets: int) -> np.ndarray:
    """The runner-up's way, for the first few targets: online, a variance a point."""
    signal, is_member = problem.source.get("logit"), problem.is_member
    rows = []
    for row, columns in zip(problem.targets[:targets], problem.columns[:targets]):
        scores = []
        for column in columns:
            seen, unseen = [], []
            for place, shadow in enumerate(problem.shadows):
                (seen if is_member[place, column] else unseen).append(signal[shadow, column])
            value = signal[row, column]
            scores.append(log_density(value, seen) - log_density(value, unseen))
        rows.append(scores)
    return np.array(rows)


def log_density(value: float, sample: list[float]) -> float:
    """Of a normal distribution fitted to a sample, by scipy as published programs have it."""
    return float(norm.logpdf(value, np.mean(sample), np.std(sample)))


def against_the_loop(problem: Problem, targets: int = 2) -> dict[str, float]:
    """Our LiRA over the loop, on equal inputs; the loop is linear in targets, so few will do."""
    ours = problem.gather("logit").score(arrays.lira)
    worst = float(np.abs(ours[:targets] - loop(problem, targets)).max())
    slow = seconds(lambda: loop(problem, targets), 2) * TARGETS / targets
    fast = seconds(lambda: problem.gather("logit").score(arrays.lira), 5)
    return {
        "loop_seconds": round(slow, 2),
        "ours_seconds": round(fast, 4),
        "ratio": round(slow / fast),
        "largest_difference": worst,
    }


def signals_over_forward(folder: Path, dataset_dir: Path | None) -> dict[str, float]:
    """Computing and storing signals of 10 models over their bare forward passes."""
    import tempfile

    from mico_competition.challenge_datasets import load_dataset
    from mico_competition.models import load_model, logits
    from mico_competition.signals import Signals, read_fleet

    scenario = next(name for name in SCENARIOS if (folder / name).is_dir())
    data = load_dataset(SCENARIOS[scenario].task, dataset_dir)
    fleet = read_fleet(folder, scenario, data, records="all", models=range(10))

    def bare() -> None:
        places = torch.arange(len(data))
        with torch.inference_mode():
            for model in fleet.folders:
                network = load_model(model.task.name, model.path)
                for part in places.split(4096):
                    logits(network, data.inputs(part))

    def cached() -> None:
        with tempfile.TemporaryDirectory() as cache:
            Signals(fleet, data, cache=cache, device=torch.device("cpu")).get("loss")

    ratios = [seconds(cached, 1) / seconds(bare, 1) for _ in range(5)]
    return {"models": 10, "points": len(data), "ratio": round(sorted(ratios)[2], 2)}


if __name__ == "__main__":
    main()
