#!/usr/bin/env python3
"""How often 95 % intervals hold the truth: docs/results/interval_coverage.json.

    python benchmarks/interval_coverage.py [--runs 400] [--processes 2]    # half an hour

Models of which an attack finds more or less are drawn many times over.  The truth is the score of
very many of them.  `benchmarks/results_page.py` makes the table of docs/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mico_competition.scoring import bootstrap, bootstrap_average, score
from mico_competition.scoring.intervals import interval_method, percentile_interval, widened
from mico_competition.scoring.resampling import resample_scores

from mico_competition.evaluation.measure import compare, measure

OUT = Path(__file__).resolve().parent.parent / "docs/results/interval_coverage.json"
POINTS = 200  # of each model, half of them members, as in MICO
COUNTS = (2, 3, 4, 5, 6, 8, 12)
RESAMPLES = 300
MANY = 20_000  # models that the truth is from
SCORES = ("AUC", "MIA", "TPR_FPR_100", "TPR_FPR_1000")


@dataclass(frozen=True)
class World:
    """What models are like: how far members' scores lie above others', and how that varies.

    Attributes:
        title: in words.
        gap: on average, in standard deviations of a score.
        spread: how much models differ; 0 for not at all.
        rare: the share of models with 3 standard deviations more.
    """

    title: str
    gap: float
    spread: float
    rare: float = 0.0

    def models(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Truth and scores, [count, POINTS] each."""
        truth = np.tile(np.repeat([0, 1], POINTS // 2), (count, 1))
        gaps = self.gap * (1 + self.spread * (2 * rng.beta(2, 2, count) - 1))
        gaps += 3 * (rng.random(count) < self.rare)
        shifts = 0.5 * self.spread * rng.normal(size=count)
        noise = rng.normal(size=truth.shape)
        return truth, noise + gaps[:, None] * truth + shifts[:, None]


WORLDS = (
    World("no signal", 0.0, 0.0),
    World("models alike", 0.8, 0.0),
    World("models differ", 0.8, 1.0),
    World("strong, models differ", 2.0, 1.0),
    World("one model in five far worse hit", 0.5, 0.0, rare=0.2),
)


def truth_of(world: World) -> tuple[dict[str, float], dict[str, float]]:
    """The scores of very many models, and those of a second, noisier attack on them."""
    rng = np.random.default_rng(1)
    truth, scores = world.models(MANY, rng)
    found = []
    for values in (scores, noisier(scores, rng)):
        result = score(truth.ravel(), values.ravel())
        if world.gap == 0 == world.rare:
            result = {"AUC": 0.5, "MIA": 0.0, "TPR_FPR_100": 0.01, "TPR_FPR_1000": 0.1}
        found.append({key: float(result[key]) for key in SCORES})
    return found[0], found[1]


def noisier(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A second attack on the same models."""
    return scores + 0.7 * rng.normal(size=scores.shape)


def coverage(world: World, count: int, runs: int) -> dict[str, float | int | str | None]:
    """Shares of runs in which each interval held the truth; None where there is none."""
    expected, other = truth_of(world)
    rng = np.random.default_rng(100 + count)
    held: dict[str, int] = {}
    unknown: set[str] = set()

    def note(name: str, low: float, high: float, value: float) -> None:
        if math.isnan(low):
            unknown.add(name)
        held[name] = held.get(name, 0) + int(low <= value <= high)

    for run in range(runs):
        drawn = [world.models(count, rng) for _ in range(3)]
        truth, scores = drawn[0]
        found = bootstrap(list(truth), list(scores), resamples=RESAMPLES, seed=run)
        for key in SCORES:
            note(key, *found[key], expected[key])
        three = {str(i): (list(t), list(s)) for i, (t, s) in enumerate(drawn)}
        ends = bootstrap_average(three, resamples=RESAMPLES, seed=run)
        note("average", *ends, expected["TPR_FPR_1000"])
        attacks = (scores, noisier(scores, rng))
        one, two = (measure(truth == 1, s, resamples=RESAMPLES, seed=run) for s in attacks)
        gains = compare(one, two)
        for key in ("AUC", "TPR_FPR_1000"):
            gain = gains[key]
            note(f"gain {key}", gain.low, gain.high, expected[key] - other[key])
        draws, _ = resample_scores(list(truth), list(scores), resamples=RESAMPLES, seed=run)
        plain = percentile_interval(draws["AUC"], widened(count, 0.95))
        note("bootstrap AUC", *plain, expected["AUC"])
    shares = {name: None if name in unknown else n / runs for name, n in held.items()}
    return {"world": world.title, "models": count, "method": interval_method(count), **shares}


def main() -> None:
    """Simulate all worlds and counts, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    cases = [(world, count, args.runs) for world in WORLDS for count in COUNTS]
    with ProcessPoolExecutor(args.processes) as pool:
        rows = list(pool.map(coverage, *zip(*cases)))
    report = {"runs": args.runs, "points": POINTS, "resamples": RESAMPLES, "rows": rows}
    OUT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {OUT}")


if __name__ == "__main__":
    main()
