#!/usr/bin/env python3
"""The entries of 2023 as sent and without their mistakes: docs/results/entries_2023.json (minutes).

    python benchmarks/attack_fleets.py digits bundles --work runs/fleets
    python benchmarks/entries_2023.py [--work runs/fleets]

attacks the dev models of two fleets at their challenge points, as the competition does, with every
entry that won a prize, and measures what each mistake cost, paired over models. It also asks how
well scores single out the true members among the splits of 2022's 32-bit seeds (docs/METHODS.md,
section 12.2).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from testbeds import BEDS, ROOT, TESTBEDS, commit, one_of

from mico_competition.attacks.registry import WINNERS_FORMULAS, get_attack
from mico_competition.competition.table import use
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.measure import Estimate, compare, measure
from mico_competition.signals import open_signals

OUT = ROOT / "docs/results/entries_2023.json"
METRIC = "TPR_FPR_1000"
FLEETS = {
    **{f"digits_{kind}": ("digits", f"digits_{kind}") for kind in ("inf", "hi", "lo")},
    **{f"bundles_{kind}": ("bundles", f"bundles_{kind}") for kind in ("inf", "hi")},
}
ENTRIES = ("winner-2023", "first-principles-sent", "first-principles", "fleshman", "suri")
OTHERS = ("threshold", "lira-online", "lira-online-global", "rmia", "bavaria", "eb")
WHITE_BOX = {"digits": "best", "bundles": "trace"}  # of tables, decodes take minutes
SCALED = ("winner-2023", "fleshman", "eb")
TRIED = 2**20  # seeds
ALL_SEEDS = 2**32


def main() -> None:
    """Measure the fleets that are named, or those that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = f"of {', '.join(FLEETS)}"
    parser.add_argument("fleets", nargs="*", metavar="FLEET", type=one_of(FLEETS), help=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {"fleets": {}}
    splits, seconds = splits_of_2022(TRIED)
    found["seeds"] = {"tried": TRIED, "microseconds": round(1e6 * seconds / TRIED, 2)}
    found["torch"] = torch.__version__
    for name in args.fleets or [name for name in FLEETS if name not in found["fleets"]]:
        testbed, scenario = FLEETS[name]
        competition = TESTBEDS[testbed].competition
        use(BEDS / competition if competition else None)
        found["fleets"][name] = measured(testbed, scenario, args.work, splits)
        ordered = {one: found["fleets"][one] for one in FLEETS if one in found["fleets"]}
        OUT.write_text(json.dumps({**found, "fleets": ordered}, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found["fleets"][name]), flush=True)


def splits_of_2022(count: int) -> tuple[np.ndarray, float]:
    """bool[count, 200], the members of seeds 0, 1, ... in 2022's scheme, and the CPU seconds taken.

    The first half of the permutation are non-members, the second half members.
    """
    members = np.zeros((count, 200), dtype=bool)
    generator, started = torch.Generator(), time.process_time()
    for seed in range(count):
        order = torch.randperm(200, generator=generator.manual_seed(seed))
        members[seed, order[100:].numpy()] = True
    return members, time.process_time() - started


def measured(testbed: str, scenario: str, work: Path, splits: np.ndarray) -> dict[str, Any]:
    """All entries and mistakes on the dev models of one scenario."""
    row = TESTBEDS[testbed]
    data = work / (row.data or ".")
    folder = work / testbed / row.challenge
    source = open_signals(folder, scenario, data, records="all", phases=("train", "dev"))
    task = make_task(source, "dev")
    names = {*ENTRIES, *OTHERS, WHITE_BOX[testbed], *WINNERS_FORMULAS}
    scores = {name: run(task, get_attack(name)) for name in sorted(names)}
    scores |= {f"{name}, scaled by model": by_model(scores[name]) for name in SCALED}
    by_name = {name: measure(task.truth, one) for name, one in scores.items()}
    best = max(WINNERS_FORMULAS, key=lambda name: by_name[name][METRIC].value)
    pairs = {
        "lookup by place": ("first-principles-sent", "first-principles"),
        "formula": ("winner-2023", best),
        **{f"scaling, {name}": (f"{name}, scaled by model", name) for name in SCALED},
    }
    return {
        "scenario": scenario,
        "commit": commit(),
        "shadows": len(source.fleet.rows("train")),
        "models": len(task.targets),
        "points": int(task.truth.shape[1]),
        "best formula": best,
        "attacks": {name: numbers(by_name[name][METRIC]) for name in by_name},
        "gains": {name: numbers(compare(by_name[name], by_name[best])[METRIC]) for name in by_name},
        "costs": {
            name: numbers(compare(by_name[wrong], by_name[right])[METRIC])
            for name, (wrong, right) in pairs.items()
        },
        "search": {
            name: search(scores[name], task.truth, splits)
            for name in ("winner-2023", "eb", WHITE_BOX[testbed])
        },
    }


def by_model(scores: np.ndarray) -> np.ndarray:
    """Each model's scores stretched over [0, 1] by themselves."""
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    scaled: np.ndarray = (scores - low) / (high - low)
    return scaled


def numbers(one: Estimate) -> dict[str, float]:
    """A number with its interval."""
    return {key: round(float(getattr(one, key)), 5) for key in ("value", "low", "high")}


def search(scores: np.ndarray, truth: np.ndarray, splits: np.ndarray) -> dict[str, Any]:
    """Where the true split lies among those of the seeds, by the sum of its members' scores.

    `z` is its distance from the mean of random halves in standard deviations, `first` the share of
    models in which no seed that was tried has a larger sum, and `found` the probability, averaged
    over models, that none of all seeds has (formula 97). `joint` is the distance of all models'
    true splits together, as if one seed had made them all.
    """
    size = truth.shape[1]
    kept = np.clip(scores, *np.percentile(scores, [0.5, 99.5]))
    spread = np.sqrt(size / 4 * kept.var(axis=1, ddof=1))
    excess = (kept * truth).sum(axis=1) - kept.sum(axis=1) / 2
    z = excess / spread
    sums = splits.astype(np.float32) @ kept.T.astype(np.float32)
    beaten = (sums > (kept * truth).sum(axis=1)).sum(axis=0)
    tails = np.array([math.erfc(one / math.sqrt(2)) / 2 for one in z])
    joint = excess.sum() / math.sqrt(float((spread**2).sum()))
    return {
        "z": [round(float(end), 2) for end in (z.mean(), z.min(), z.max())],
        "first": round(float((beaten == 0).mean()), 3),
        "found": round(float(np.exp(-ALL_SEEDS * tails).mean()), 4),
        "joint": round(float(joint), 1),
    }


if __name__ == "__main__":
    main()
