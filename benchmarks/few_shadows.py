#!/usr/bin/env python3
"""The empirical-Bayes ratio with few shadow models: docs/results/attacks_few.json (minutes).

    python benchmarks/few_shadows.py [FLEET ...] [--work runs/fleets]

attacks the dev models of fleets that `benchmarks/attack_fleets.py` makes with 10, 30 and 100 of
their train models as shadows, by `eb` and by the winner's six formulas, and keeps the gain over
the best of these in hindsight.  Numbers of other fleets stay in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/results/attacks_few.json"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from testbeds import TESTBEDS, one_of  # noqa: E402

COUNTS, REPEATS = (10, 30, 100), 3
METRIC = "TPR_FPR_1000"


def main() -> None:
    """Measure the fleets asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    fleets = [
        f"{testbed}_{s.rsplit('_', 1)[1]}"
        for testbed in ["digits", "S", "C", "A"]
        for s in _of(testbed)
    ]
    names = f"of {', '.join(fleets)}; default: all"
    parser.add_argument("fleets", nargs="*", metavar="FLEET", type=one_of(fleets), help=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fleets")
    args = parser.parse_args()
    for fleet in args.fleets or fleets:
        rows = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
        rows[fleet] = [measured(fleet, args.work, count) for count in COUNTS]
        ordered = {name: rows[name] for name in fleets if name in rows}
        OUT.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        print(fleet, json.dumps(rows[fleet]), flush=True)


def _of(testbed: str) -> tuple[str, ...]:
    return TESTBEDS[testbed].scenarios


def measured(fleet: str, work: Path, count: int) -> dict:
    """Gain of `eb` with so many shadow models, over random choices of them."""
    from mico_competition.attacks.registry import WINNERS_FORMULAS, get_attack
    from mico_competition.evaluation.cross_fitting import make_task, problems
    from mico_competition.evaluation.measure import compare, measure
    from mico_competition.signals import open_signals

    testbed, kind = fleet.split("_")
    (scenario,) = (name for name in _of(testbed) if name.endswith(kind))
    data = work / (TESTBEDS[testbed].data or ".")
    folder = work / testbed / TESTBEDS[testbed].challenge
    task = make_task(open_signals(folder, scenario, data, phases=("train", "dev")), "dev")
    ((_, problem),) = problems(task, get_attack("eb"))
    repeats = REPEATS if count < len(problem.shadows) else 1
    found = []
    for seed in range(repeats):
        order = np.random.default_rng([seed, count]).permutation(problem.shadows)
        few = replace(problem, shadows=np.sort(order[:count]))
        by_name = {
            name: measure(task.truth, get_attack(name).run(few))
            for name in ("eb", *WINNERS_FORMULAS)
        }
        best = max(WINNERS_FORMULAS, key=lambda name: by_name[name][METRIC].value)
        gain = compare(by_name["eb"], by_name[best])[METRIC]
        found.append((by_name[best][METRIC].value, by_name["eb"][METRIC].value, gain))
    draws = np.mean([gain.draws for _, _, gain in found], axis=0)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {
        "shadows": count,
        "choices": repeats,
        "models": len(task.targets),
        "winner": float(np.mean([winner for winner, _, _ in found])),
        "eb": float(np.mean([eb for _, eb, _ in found])),
        "gain": float(np.mean([gain.value for _, _, gain in found])),
        "low": float(low),
        "high": float(high),
    }


if __name__ == "__main__":
    main()
