#!/usr/bin/env python3
"""How often 95 % intervals hold the truth: docs/results/interval_coverage.json.

    python benchmarks/interval_coverage.py [--runs 200] [--processes 2]    # an hour

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
from statistics import NormalDist
from typing import Any

import numpy as np
from mico_competition.scoring import bootstrap, bootstrap_average, score
from mico_competition.scoring.few_models import effective_models
from mico_competition.scoring.intervals import interval_method, percentile_interval, widened
from mico_competition.scoring.resampling import resample_scores

from mico_competition.evaluation.measure import compare, measure

OUT = Path(__file__).resolve().parent.parent / "docs/results/interval_coverage.json"
POINTS = 200  # of each model, half of them members, as in MICO
COUNTS = (2, 3, 5, 6, 10, 20, 30)
EVERY = 2  # runs, in one of which averages and gains are looked at too
RESAMPLES = 300
NOISE = 0.7  # of a second attack
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
        sizes: the points of the models, in turn; half of them members.
    """

    title: str
    gap: float
    spread: float
    rare: float = 0.0
    sizes: tuple[int, ...] = (POINTS,)

    def models(self, count: int, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
        """Truth and scores of each model."""
        gaps = self.gap * (1 + self.spread * (2 * rng.beta(2, 2, count) - 1))
        gaps += 3 * (rng.random(count) < self.rare)
        shifts = 0.5 * self.spread * rng.normal(size=count)
        truths, scores = [], []
        for i in range(count):
            truth = np.repeat([0, 1], self.sizes[i % len(self.sizes)] // 2)
            truths.append(truth)
            scores.append(rng.normal(size=truth.size) + gaps[i] * truth + shifts[i])
        return truths, scores


WORLDS = (
    World("no signal", 0.0, 0.0),
    World("models alike", 0.8, 0.0),
    World("models differ", 0.8, 1.0),
    World("strong, models differ", 2.0, 1.0),
    World("near perfect (AUC 0.993)", 3.5, 0.0),
    World("near perfect (AUC 0.9993)", 4.5, 0.0),
    World("near perfect (AUC 0.99999)", 6.03, 0.0),
    World("near perfect, models differ", 4.5, 0.3),
    World("models alike, sizes 60 and 340", 0.8, 0.0, sizes=(60, 340)),
    World("models differ, sizes 60 and 340", 0.8, 1.0, sizes=(60, 340)),
    World("near perfect (AUC 0.9993), sizes 60 and 340", 4.5, 0.0, sizes=(60, 340)),
    World("one model in five far worse hit", 0.5, 0.0, rare=0.2),
)


def truth_of(world: World) -> tuple[dict[str, float], dict[str, float]]:
    """The scores of very many models, and those of a second, noisier attack on them."""
    rng = np.random.default_rng(1)
    truth, scores = world.models(MANY, rng)
    found = []
    for noise in (0.0, NOISE):
        if not world.spread and not world.rare:  # then it is known
            found.append(exact(world.gap / math.hypot(1, noise)))
            continue
        values = noisier(scores, rng) if noise else scores
        result = score(np.concatenate(truth), np.concatenate(values))
        found.append({key: float(result[key]) for key in SCORES})
    return found[0], found[1]


def exact(gap: float) -> dict[str, float]:
    """The scores where members' are normal and lie `gap` standard deviations above others'."""
    normal = NormalDist()
    rates = {"TPR_FPR_100": 0.01, "TPR_FPR_1000": 0.1}
    found = {key: normal.cdf(gap + normal.inv_cdf(rate)) for key, rate in rates.items()}
    return {"AUC": normal.cdf(gap / 2**0.5), "MIA": 2 * normal.cdf(gap / 2) - 1, **found}


def noisier(scores: list[Any], rng: np.random.Generator) -> list[Any]:
    """A second attack on the same models."""
    return [values + NOISE * rng.normal(size=values.shape) for values in scores]


class Tally:
    """How often each interval held its truth, of how many that there were."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.known: dict[str, int] = {}

    def note(self, name: str, ends: tuple[float, float], value: float) -> None:
        """One interval."""
        known = not math.isnan(ends[0])
        self.known[name] = self.known.get(name, 0) + known
        self.held[name] = self.held.get(name, 0) + int(ends[0] <= value <= ends[1])

    def shares(self) -> dict[str, float | None]:
        """Of those that there were; None where there were none."""
        return {k: self.held[k] / n if n else None for k, n in self.known.items()}


def coverage(world: World, count: int, runs: int) -> dict[str, float | int | str | None]:
    """Shares of runs in which each interval held the truth; None where there is none."""
    expected, other = truth_of(world)
    rng = np.random.default_rng(100 + count)
    tally = Tally()
    for run in range(runs):
        truth, scores = world.models(count, rng)
        found = bootstrap(truth, scores, resamples=RESAMPLES, seed=run)
        for key in SCORES:
            tally.note(key, found[key], expected[key])
        draws, _ = resample_scores(truth, scores, resamples=RESAMPLES, seed=run)
        plain = percentile_interval(draws["AUC"], widened(count, 0.95))
        tally.note("bootstrap AUC", plain, expected["AUC"])
        if run % EVERY:
            continue
        drawn = [(truth, scores)] + [world.models(count, rng) for _ in range(2)]
        three = {str(i): pair for i, pair in enumerate(drawn)}
        ends = bootstrap_average(three, resamples=RESAMPLES, seed=run)
        tally.note("average", ends, expected["TPR_FPR_1000"])
        if len(world.sizes) > 1:  # attacks are compared on as many points of each model
            continue
        both = (np.stack(values) for values in (scores, noisier(scores, rng)))
        member = np.stack(truth) == 1
        gains = compare(*(measure(member, v, resamples=RESAMPLES, seed=run) for v in both))
        for key in ("AUC", "TPR_FPR_1000"):
            gain = gains[key]
            tally.note(f"gain {key}", (gain.low, gain.high), expected[key] - other[key])
    sizes = [world.sizes[i % len(world.sizes)] for i in range(count)]
    method = interval_method(effective_models(sizes))
    return {"world": world.title, "models": count, "method": method, **tally.shares()}


def main() -> None:
    """Simulate all worlds and counts, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    cases = [(world, count, args.runs) for world in WORLDS for count in COUNTS]
    with ProcessPoolExecutor(args.processes) as pool:
        rows = list(pool.map(coverage, *zip(*cases)))
    report = {"runs": args.runs, "points": POINTS, "resamples": RESAMPLES, "rows": rows}
    report["every"] = EVERY
    OUT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {OUT}")


if __name__ == "__main__":
    main()
