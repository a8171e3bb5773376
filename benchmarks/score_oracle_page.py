#!/usr/bin/env python3
"""Labels read off scores: the table of docs/HOST.md, from docs/results/score_oracle.json.

python benchmarks/score_oracle_page.py          # the table from the file
python benchmarks/score_oracle_page.py --run    # runs the attacks first; minutes
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))

from score_oracle import MEMBERS, MODELS, POINTS, ExactAttack, Oracle  # noqa: E402
from score_oracle_steps import edge_attack, guess_all  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "HOST.md", ROOT / "docs" / "results" / "score_oracle.json"
BEGIN, END = "<!-- score oracle: begin -->", "<!-- score oracle: end -->"
SEEDS, LIMITS, ALL = (0, 1, 2), (100, 1000), 10**6
EXACT = {"ten decimals": 10, "four decimals": 4}
STEPS = (0.001, 0.005, 0.01)
USUAL = 0.005


def main(arguments: list[str]) -> None:
    """Run the attacks if asked to, and write the page's block."""
    if "--run" in arguments:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


def measure() -> dict[str, Any]:
    """Labels known by the number of submissions, of every kind of scores."""
    rows = {}
    for name, digits in EXACT.items():
        rows[name] = measured(lambda seed, limit, digits=digits: exact_attack(seed, digits, limit))
    for step in STEPS:
        rows[f"steps of {step:g}"] = measured(
            lambda seed, limit, step=step: edge_attack(seed, step, limit)
        )
    guesses = {
        str(limit): [round(guess_all(seed, USUAL, limit), 4) for seed in SEEDS] for limit in LIMITS
    }
    return {
        "command": "python benchmarks/score_oracle_page.py --run",
        "seeds": list(SEEDS),
        "models": MODELS,
        "records": MODELS * POINTS,
        "members": MEMBERS,
        "software": {"python": platform.python_version(), "numpy": np.__version__},
        "attacks": rows,
        "guessed": {"step": USUAL, "right": guesses},
    }


def exact_attack(seed: int, digits: int, limit: int) -> ExactAttack:
    """The attack on so many decimals, run."""
    attack = ExactAttack(Oracle(seed, digits=digits), use_area=digits >= 10)
    attack.run(limit)
    return attack


def measured(run: Any) -> dict[str, Any]:
    """Of one kind of scores: labels known within each limit, and submissions until all are."""
    row: dict[str, Any] = {"wrong": 0, "known": {}, "submissions": []}
    for limit in (*LIMITS, ALL):
        for seed in SEEDS:
            attack = run(seed, limit)
            known = attack.known >= 0
            row["wrong"] += int((attack.known != attack.oracle.truth)[known].sum())
            if limit == ALL:
                row["submissions"].append(attack.oracle.asked)
            else:
                row["known"].setdefault(str(limit), []).append(int(known.sum()))
        print(row, flush=True)
    return row


def table(found: dict[str, Any]) -> str:
    """The block of the page."""
    mean = statistics.mean
    lines = [
        f"| scores | {' | '.join(f'{n:,} submissions' for n in LIMITS)} | all labels after |",
        "|---" * (2 + len(LIMITS)) + "|",
    ]
    for name, row in found["attacks"].items():
        cells = [f"{mean(row['known'][str(limit)]):,.0f} labels" for limit in LIMITS]
        lines.append(f"| {name} | {' | '.join(cells)} | {mean(row['submissions']):,.0f} |")
    wrong = sum(row["wrong"] for row in found["attacks"].values())
    guessed = found["guessed"]
    right = " and ".join(
        f"{mean(guessed['right'][str(n)]):.1%} after {n:,} submissions" for n in LIMITS
    )
    lines += [
        "",
        f"Labels that the attacker knows, of the {found['records']:,} of one scenario "
        f"({found['models']} models, {found['members']:,} members); means over "
        f"{len(found['seeds'])} draws of the truth, {wrong} labels wrong in all. A guess of "
        f"all labels from steps of {guessed['step']:g} by least squares is right for {right}; a "
        f"coin for 50%. Python {found['software']['python']}, numpy "
        f"{found['software']['numpy']}; `{found['command']}` repeats the measurement.",
    ]
    return "\n".join(lines)


def filled(page: str, found: dict[str, Any]) -> str:
    """The page with its block written anew."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    main(sys.argv[1:])
