#!/usr/bin/env python3
"""How often audits cry wolf, and how near their bounds come: docs/results/audit_false_alarms.json.

    python benchmarks/audit_false_alarms.py [attacks] [bounds] [trainer] [--runs 2000]

`attacks` simulates `mico audit` on mechanisms whose epsilon is known and which one-run bounds meet
most tightly, and counts how often the exit code would be 1, by the joint level and as it was before
(each of the two bounds by itself at 95 %).  `bounds` compares the default list of plans of guesses
with the single plan that was the default before.  `trainer` audits the correct trainer again and
again, by itself and in stacks, and counts how often any test or bound raises an alarm.  The parts
take from minutes to an hour.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.audit.guesses import plan_for
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.one_run_fdp import one_run_fdp_bound
from mico_competition.audit.tradeoff import gdp_mu
from mico_competition.audit.verdict import Scored, deciding_bounds

OUT = Path(__file__).resolve().parent.parent / "docs/results/audit_false_alarms.json"
DELTA, LEVEL = 1e-5, 0.95
Rng = np.random.Generator
Scores = Callable[[Rng, np.ndarray], np.ndarray]


def response(epsilon: float) -> Scores:
    """Randomised response: the truth with probability e^epsilon / (1 + e^epsilon)."""

    def scores(rng: Rng, truth: np.ndarray) -> np.ndarray:
        honest = rng.random(truth.size) < 1 / (1 + math.exp(-epsilon))
        return np.where(honest == truth, 1.0, -1.0) + 0.1 * rng.random(truth.size)

    return scores


def gaussian(epsilon: float) -> Scores:
    """The Gaussian mechanism whose epsilon at DELTA is just this."""
    mu = gdp_mu(epsilon, DELTA)
    return lambda rng, truth: rng.normal(size=truth.size) + mu * truth


def laplace(epsilon: float) -> Scores:
    """The Laplace mechanism."""
    return lambda rng, truth: rng.laplace(size=truth.size) / epsilon + truth


def few_sure(count: int, *, members: bool = False) -> Scores:
    """Noise, but for `count` points that are known (or as many members)."""

    def scores(rng: Rng, truth: np.ndarray) -> np.ndarray:
        found = rng.normal(size=truth.size)
        sure = np.flatnonzero(truth)[:count] if members else np.arange(count)
        found[sure] += np.where(truth[sure], 10.0, -10.0)
        return found

    return scores


def all_known(rng: Rng, truth: np.ndarray) -> np.ndarray:
    """Every point's truth."""
    return truth + 0.01 * rng.random(truth.size)


# Name -> scores, epsilon of adding or removing a record, epsilon of replacing one, models, points.
MECHANISMS: dict[str, tuple[Scores, float, float, int, int]] = {
    "no signal": (lambda rng, truth: rng.normal(size=truth.size), 0.0, 0.0, 10, 200),
    "randomised response, epsilon 0.5": (response(0.5), 0.5, 1.0, 10, 200),
    "randomised response, epsilon 1": (response(1.0), 1.0, 2.0, 10, 200),
    "randomised response, epsilon 3": (response(3.0), 3.0, 6.0, 10, 200),
    "randomised response, epsilon 1, one model": (response(1.0), 1.0, 2.0, 1, 200),
    "Laplace, epsilon 2": (laplace(2.0), 2.0, 4.0, 10, 200),
    "Gaussian, epsilon 1": (gaussian(1.0), 1.0, 2.0, 10, 200),
}


def attacks(runs: int) -> dict[str, Any]:
    """Mechanism -> share of runs with an alarm, jointly and by two bounds at 95 % each."""
    found = {}
    for name, (scores, epsilon, replacing, models, points) in MECHANISMS.items():
        rng = np.random.default_rng(0)
        counts = {"joint": 0, "each by itself": 0}
        for _ in range(runs):
            truth = [rng.permutation(points) < points // 2 for _ in range(models)]
            scored = Scored("x", "dev", "x", truth, [scores(rng, t) for t in truth], None)
            for how, level in (("joint", 1 - (1 - LEVEL) / 2), ("each by itself", LEVEL)):
                one, two = deciding_bounds(scored, delta=DELTA, level=level)
                counts[how] += one.epsilon > epsilon or two.epsilon > replacing
        found[name] = {how: count / runs for how, count in counts.items()}
        print(f"{name}: {found[name]}", flush=True)
    return {"runs": runs, "level": LEVEL, "delta": DELTA, "alarms": found}


def settings() -> Iterator[tuple[str, float | None, int, Scores]]:
    """Name, true epsilon (None: nothing bounds it), points and scores."""
    yield "no signal", 0.0, 1000, lambda rng, truth: rng.normal(size=truth.size)
    for epsilon, points in ((1.0, 1000), (4.0, 300), (4.0, 1000), (4.0, 10_000), (10.0, 1000)):
        yield f"Gaussian, epsilon {epsilon:g}", epsilon, points, gaussian(epsilon)
    yield "Laplace, epsilon 2", 2.0, 1000, laplace(2.0)
    yield "randomised response, epsilon 1", 1.0, 1000, response(1.0)
    yield "randomised response, epsilon 4", 4.0, 1000, response(4.0)
    yield "50 points sure", None, 1000, few_sure(50)
    yield "50 members sure", None, 1000, few_sure(50, members=True)
    yield "100 points sure", None, 10_000, few_sure(100)
    yield "100 members sure", None, 10_000, few_sure(100, members=True)
    yield "all points known", None, 1000, all_known
    yield "all points known", None, 10_000, all_known


def bounds(runs: int) -> list[dict[str, Any]]:
    """Mean bound by the list and by the single plan, and how often each is above the truth."""
    rows = []
    for name, epsilon, points, scores in settings():
        rng = np.random.default_rng(1)
        row: dict[str, Any] = {"setting": name, "points": points, "epsilon": epsilon}
        found: dict[str, list[float]] = {}
        for _ in range(runs):
            truth = rng.random(points) < 0.5
            values = scores(rng, truth)
            for method, bound in (("one-run", one_run_bound), ("f-DP", one_run_fdp_bound)):
                for how, guesses in (("list", None), ("one plan", plan_for(points))):
                    one = bound(truth, values, delta=DELTA, level=LEVEL, guesses=guesses)
                    found.setdefault(f"{method}, {how}", []).append(one.epsilon)
        row["mean"] = {how: round(float(np.mean(values)), 3) for how, values in found.items()}
        if epsilon is not None:
            # The f-DP bound supposes a Gaussian; of another mechanism it is no bound.
            row["above"] = {
                how: float(np.mean(np.array(values) > epsilon))
                for how, values in found.items()
                if how.startswith("one-run") or name.startswith("Gaussian")
            }
        rows.append(row)
        print(row, flush=True)
    return rows


def trainer(runs: int) -> dict[str, Any]:
    """How often an audit of the correct trainer raises an alarm, over all tests and bounds.

    On digits_lo with 10 epochs and 300 canaries: as many tests as an audit of full length has.
    """
    import torch

    from mico_competition.audit.trainer.audit import audit_trainer, claim_of_settings
    from mico_competition.data.datasets import load_dataset
    from mico_competition.models.inputs import prepare
    from mico_competition.training.settings import resolve

    torch.set_num_threads(1)
    settings = resolve({"scenario": "digits_lo", "num_epochs": 10})
    data, _ = prepare("digits", load_dataset("digits", "."))
    claim = claim_of_settings(settings)
    found: dict[str, Any] = {"level": LEVEL}
    for name, stack in (("by itself", 1), ("stacks of 3", 3)):
        alarms: dict[str, int] = {}
        count = 0
        for seed in range(runs):
            audit = audit_trainer(
                settings, data, dirac=300, records=30, seed=seed, claim=claim, stack=stack
            )
            count += bool(audit.alarms)
            for alarm in audit.alarms:
                alarms[alarm] = alarms.get(alarm, 0) + 1
            print(f"{name}: {count} of {seed + 1} runs {alarms}", flush=True)
        tests = len(audit.checks) + len(audit.proofs)
        found[name] = {"runs": runs, "tests": tests, "alarms": count, "by test": alarms}
    return found


def main() -> None:
    """Run what is asked for, all by default, and write its part of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="of attacks, bounds, trainer")
    parser.add_argument("--runs", type=int, default=2000, help="of each mechanism in `attacks`")
    parser.add_argument("--audits", type=int, default=100, help="of each kind in `trainer`")
    args = parser.parse_args()
    made: dict[str, Callable[[], Any]] = {
        "attacks": lambda: attacks(args.runs),
        "bounds": lambda: bounds(100),
        "trainer": lambda: trainer(args.audits),
    }
    if unknown := set(args.parts) - set(made):
        parser.error(f"no part {', '.join(sorted(unknown))}: choose of {', '.join(made)}")
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    for name in args.parts or made:
        found[name] = made[name]()
        OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
