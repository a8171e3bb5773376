#!/usr/bin/env python3
"""How fast attacks are from cached signals: docs/results/attack_speed.json (a minute).

    python benchmarks/attack_speed.py [--models FOLDER --dataset_dir DIR]

100 shadows x 50 targets x 200 points.  The rival of LiRA is the Purchase-100 runner-up's loop,
as it is described: for each target and each of its points the point is looked for in every shadow
model's list of training records, and a normal distribution is fitted to the signals of those that
have it, and of those that have not.  Both are given signals and index lists in memory; his program
read files.  A second loop is given the mask as well.  With --models, also signals against bare
forward passes, in batches of whichever size is best for these.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.stats import norm

from mico_competition import attacks as arrays
from mico_competition.attacks.problem import Problem
from mico_competition.attacks.registry import ROWS, get_attack
from mico_competition.competition.table import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers_problem import Arrays, make_problem  # noqa: E402

SHADOWS, TARGETS, POINTS, ASKED = 100, 50, 10_000, 200
SIGNAL_MODELS = 30


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
        "lira": against_the_loop(),
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
        problem.known_membership,
    )


def seconds(
    call: Callable[[], object], times: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The shortest of a few runs."""
    found = []
    for _ in range(times):
        started = clock()
        call()
        found.append(clock() - started)
    return min(found)


def closed_forms(problem: Problem) -> dict[str, float]:
    """Seconds of every named closed-form attack."""
    names = sorted(name for name, row in ROWS.items() if row.signals_only)
    runs = {name: partial(get_attack(name).run, problem) for name in names}
    return {name: round(seconds(run), 4) for name, run in runs.items()}


@dataclass(frozen=True)
class LoopInput:
    """Signals of shadow and target models at A_inf's records, and who trained on what, as lists."""

    shadow: np.ndarray  # float[shadows, records]
    target: np.ndarray  # float[targets, records]
    lists: list[list[int]]  # training records of each shadow
    columns: np.ndarray  # int[targets, points]

    @classmethod
    def drawn(cls) -> LoopInput:
        """Gaussian signals; N = 19,732, n = 15,000."""
        rng = np.random.default_rng(0)
        records, training = 19_732, 15_000
        lists = [rng.permutation(records)[:training].tolist() for _ in range(SHADOWS)]
        columns = np.stack([rng.permutation(records)[:ASKED] for _ in range(TARGETS)])
        drawn = (rng.normal(size=(models, records)) for models in (SHADOWS, TARGETS))
        return cls(*drawn, lists, columns)

    def mask(self) -> np.ndarray:
        """bool[shadows, records]."""
        seen = np.zeros(self.shadow.shape, bool)
        for row, records in zip(seen, self.lists):
            row[records] = True
        return seen

    def ours(self) -> np.ndarray:
        """float[targets, points]."""
        at, mask = self.columns.ravel(), self.mask()
        own = np.take_along_axis(self.target, self.columns, axis=1).ravel()
        return arrays.lira(own, self.shadow[:, at], mask[:, at]).reshape(self.columns.shape)

    def loop(self, points: int, seen_by: Callable[[int, int], bool]) -> np.ndarray:
        """The runner-up's way, for the first few points of the first target.

        Online, a variance a point.  `seen_by` says of a shadow and a record whether it trained
        on it.
        """
        scores = []
        for column in self.columns[0, :points].tolist():
            seen, unseen = [], []
            for place, signal in enumerate(self.shadow):
                (seen if seen_by(place, column) else unseen).append(signal[column])
            value = self.target[0, column]
            scores.append(log_density(value, seen) - log_density(value, unseen))
        return np.array(scores)


def log_density(value: float, sample: list[float]) -> float:
    """Of a normal distribution fitted to a sample, by scipy as published programs have it."""
    return float(norm.logpdf(value, np.mean(sample), np.std(sample)))


def against_the_loop(points: int = 40) -> dict[str, float]:
    """Our LiRA over the loops, on equal inputs; loops are linear in points, so few will do."""
    given = LoopInput.drawn()
    mask = given.mask()
    ways: dict[str, Callable[[int, int], bool]] = {
        "": lambda place, column: column in given.lists[place],
        "_with_mask": lambda place, column: bool(mask[place, column]),
    }
    ours = given.ours()[0, :points]
    fast = seconds(given.ours, 5)
    report: dict[str, float] = {"ours_seconds": round(fast, 4)}
    worst = 0.0
    for name, seen_by in ways.items():
        worst = max(worst, float(np.abs(given.loop(points, seen_by) - ours).max()))
        few = seconds(lambda seen_by=seen_by: given.loop(points, seen_by), 3)
        slow = few * TARGETS * ASKED / points
        report[f"loop{name}_seconds"] = round(slow, 2)
        report[f"ratio{name}"] = round(slow / fast)
    return {**report, "largest_difference": worst}


def signals_over_forward(folder: Path, dataset_dir: Path | None) -> dict[str, float]:
    """Computing and storing signals of some models over their bare forward passes, in CPU seconds.

    Unlike wall time, CPU time counts the thread that writes, and not other programs.
    """
    import tempfile

    from mico_competition.data.datasets import load_dataset
    from mico_competition.models.architectures import load_model, logits
    from mico_competition.signals import Signals, read_fleet

    scenario = next(name for name in SCENARIOS if (folder / name).is_dir())
    data = load_dataset(SCENARIOS[scenario].task, dataset_dir)
    fleet = read_fleet(folder, scenario, data, records="all", models=range(SIGNAL_MODELS))

    def bare(size: int) -> None:
        places = torch.arange(len(data))
        with torch.inference_mode():
            for model in fleet.folders:
                network = load_model(model.task.name, model.path)
                for part in places.split(size):
                    logits(network, data.inputs(part))

    def cached() -> None:
        with tempfile.TemporaryDirectory() as cache:
            Signals(fleet, data, cache=cache, device=torch.device("cpu")).get("loss")

    cpu = partial(seconds, clock=time.process_time)
    best = min((256, 512, 1024, 2048, 4096), key=lambda size: cpu(lambda: bare(size), 2))
    ratios = [cpu(cached, 1) / cpu(lambda: bare(best), 1) for _ in range(7)]
    return {
        "models": len(fleet),
        "points": len(data),
        "bare_batch": best,
        "ratio": round(sorted(ratios)[3], 2),
    }


if __name__ == "__main__":
    main()
