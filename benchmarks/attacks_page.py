#!/usr/bin/env python3
"""docs/ATTACKS.md from docs/results/attacks/*.json, attack_speed.json and attacks_notes.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "results"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import attacks_glance as glance  # noqa: E402
import attacks_white_box as white_box  # noqa: E402
from testbeds import TESTBEDS  # noqa: E402

METRICS = {
    "TPR_FPR_1000": "TPR at 10 % FPR",
    "TPR_FPR_100": "at 1 %",
    "TPR_FPR_10": "at 0.1 %",
    "AUC": "AUC",
}
FIRST = "TPR_FPR_1000"

# fleet, attack, the goal: a gain over the winner's best formula, in points; 0 for any gain
BARS = [
    ("A_inf", "best", 15.0),
    ("A_hi", "best", 2.5),
    ("A_lo", "best", 1.5),
    ("A_lo_ddp", "best", 2.0),
    ("C_inf", "best", 3.5),
    ("A_inf", "stack", 2.0),
    ("A_inf", "query-stack", 2.0),
    ("cnn_inf", "layers", 0.0),
    ("text_inf", "layers", 0.0),
    ("full_inf", "best", 4.0),
    ("full_hi", "best", 1.0),
    ("full_lo", "best", 0.7),
    ("full_lo_ddp", "best", 1.2),
    ("bundles_inf", "best", 7.0),
    ("widebundles_hi", "best", 3.5),
    ("images_real_inf", "layers", 5.0),
    ("images_real_lo", "layers", 0.0),
    ("short_inf", "layers", 10.0),
    ("short_inf_known", "layers", 10.0),
    ("short_lo_known", "layers", 0.0),
]
FLEETS = ["A_inf", "A_hi", "A_lo", "A_lo_ddp", "C_inf", "C_hi", "digits_inf", "digits_hi"]
FLEETS += ["cnn_inf", "text_inf", "full_inf", "full_hi", "full_lo", "full_lo_ddp", "bundles_inf"]
FLEETS += [
    "bundles_hi",
    "widebundles_inf",
    "widebundles_hi",
    "cancer_inf",
    "cancer_hi",
    "cancer_lo",
    "images_real_inf",
    "images_real_lo",
    "images_wide_inf",
]
FLEETS += ["short_inf", "short_inf_known", "short_lo", "short_lo_known"]

Found = dict[str, Any]


def main() -> None:
    """Write the page."""
    notes = (RESULTS / "attacks_notes.md").read_text(encoding="utf-8")
    opening, _, rest = notes.partition("<!-- at a glance -->\n")
    head, _, tail = rest.partition("<!-- the numbers -->\n")
    numbers = bars(), *fleets(), white_box.oracles(), study(), few(), white_box.costs(), speed()
    parts = [opening + glance.table(read, cell), head, *numbers, tail]
    (DOCS / "ATTACKS.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")
    print(f"Wrote {DOCS / 'ATTACKS.md'}")


def read(fleet: str, ending: str = "") -> Found | None:
    """All attacks of a fleet, from the files of all its groups; None if there are none."""
    merged: Found | None = None
    for path in sorted((RESULTS / "attacks").glob(f"{fleet}{ending}-*.json")):
        (found,) = json.loads(path.read_text(encoding="utf-8"))
        if merged is None:
            merged = {**found, "commits": [], "attacks": []}
        merged["commits"] += [found["commit"]] if found["commit"] not in merged["commits"] else []
        names = {attack["name"] for attack in merged["attacks"]}
        new = [attack for attack in found["attacks"] if attack["name"] not in names]
        merged["attacks"] += [{"commit": found["commit"], **attack} for attack in new]
    return merged


def cell(numbers: dict[str, float], metric: str, gain: bool = False) -> str:
    """A number with its interval; rates in points."""
    factor, form = (1, ".3f") if metric == "AUC" else (100, ".1f")
    value, low, high = (numbers[key] for key in ("value", "low", "high"))
    sign = "+" if gain else ""
    text, *ends = (
        f"{factor * number:{shown}}"
        for number, shown in ((value, sign + form), (low, form), (high, form))
        if number is not None
    )
    text, *ends = (t if float(t) else t.lstrip("+-") for t in (text, *ends))  # no -0.0
    return f"{text} [{', '.join(ends)}]" if ends else text


def attack_of(found: Found | None, name: str) -> Found | None:
    """One attack's numbers."""
    return next((a for a in found["attacks"] if a["name"] == name), None) if found else None


def bars() -> str:
    """Ours against the winner's best formula, with the target gain."""
    lines = [
        "## Against the winner of 2023",
        "",
        "TPR at 10 % FPR in percent. The winner's formula is the one of his six that is best on "
        "these targets, in hindsight. The gain is paired over models; in brackets are 95 % "
        "intervals. The goal is the gain, in points, that the project's plan asked for, and "
        "`above` is any gain. It is met if the gain reaches it and the interval lies above 0.",
        "",
        "| fleet | points | attack | winner's formula | ours | gain | goal | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for fleet, name, wanted in BARS:
        for ending, asked in (("", "challenge"), ("_all", "all records")):
            found = read(fleet, ending)
            ours, base = attack_of(found, name), attack_of(found, "winner-best")
            if ours is None or base is None:
                continue
            if fleet.endswith("ddp"):
                scored = (found["members"] + found["nonmembers"]) // found["models"]
                asked = f"challenge and {scored - 200:,} more"
            cells = [fleet, asked, name, cell(base["metrics"][FIRST], FIRST)]
            cells += [cell(ours["metrics"][FIRST], FIRST), cell(ours["gain"][FIRST], FIRST, True)]
            gain = ours["gain"][FIRST]
            met = gain["low"] > 0 and round(100 * gain["value"], 1) >= wanted
            cells += [f"+ {wanted:g}" if wanted else "above", "yes" if met else "**no**"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def fleets() -> Iterator[str]:
    """A section a fleet."""
    yield "## All attacks on all fleets\n"
    for fleet in FLEETS:
        for ending in ("", "_all"):
            found = read(fleet, ending)
            if found is not None:
                yield section(fleet, found)


def section(fleet: str, found: Found) -> str:
    """One table: the best first."""
    asked = "all records" if found["records"] == "all" else "challenge points"
    known = ", other training records known" if found["knowledge"] == "distinguisher" else ""
    base = found["attacks"][0]
    lines = [
        f"### {fleet}: {asked}{known}",
        "",
        f"{glance.testbed_of(fleet).title}; `{found['scenario']}`, {found['phase']} models: "
        f"{found['models']}, with {found['members']:,} members and {found['nonmembers']:,} "
        f"non-members. Gain over {base['title']}, the winner's best here. Code of "
        f"{' and '.join(found['commits'])}.",
        "",
        "| attack | " + " | ".join(METRICS.values()) + " | gain at 10 % | cost |",
        "|---|" + "---|" * (len(METRICS) + 2),
    ]
    for attack in sorted(found["attacks"], key=lambda a: -a["metrics"][FIRST]["value"]):
        name = f"**{attack['name']}**" if attack["white_box"] else attack["name"]
        cells = [cell(attack["metrics"][metric], metric) for metric in METRICS]
        cells.append(cell(attack["gain"][FIRST], FIRST, True) if attack["gain"] else "")
        lines.append(f"| {name} | {' | '.join(cells)} | {cost(attack)} |")
    return "\n".join(lines) + "\n"


def cost(attack: Found) -> str:
    """Processor seconds, those of signals, models and records; of older runs, wall seconds."""
    if "seconds" not in attack:
        return ""
    if "cpu_seconds" not in attack:
        return f"w {attack['seconds']:.1f}"
    seconds = f"{attack['cpu_seconds']:.1f} + {attack['signal_cpu_seconds']:.1f}"
    return f"{seconds}; {attack['models_used']} x {attack['records_used']:,}"


def study() -> str:
    """TPR by the number of shadow models."""
    parts = []
    for path in sorted((RESULTS / "attacks").glob("*_study.json")):
        (found,) = json.loads(path.read_text(encoding="utf-8"))
        counts = sorted({step["shadows"] for step in found["study"]})
        lines = [
            f"{path.stem.removesuffix('_study')}, {found['models']} {found['phase']} models, "
            f"{found['records']} {'records' if found['records'] == 'all' else 'points'}, TPR at "
            f"10 % FPR in percent. Code of {found['commit']}.",
            "",
            "| attack | " + " | ".join(map(str, counts)) + " |",
            "|---|" + "---|" * len(counts),
        ]
        for name in dict.fromkeys(step["attack"] for step in found["study"]):
            steps = {step["shadows"]: step for step in found["study"] if step["attack"] == name}
            cells = [cell(steps[count]["metrics"][FIRST], FIRST) for count in counts]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(["## By the number of shadow models\n", *parts]) if parts else ""


def few() -> str:
    """Empirical Bayes with few shadow models, from docs/results/attacks_few.json."""
    path = RESULTS / "attacks_few.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "## Empirical Bayes with few shadow models",
        "",
        "The gain of `eb` over the winner's best formula, which is chosen among his six in "
        "hindsight, separately for each choice of shadows: TPR at 10 % FPR in points, 50 dev "
        "models, mean of three random choices of 10 or 30 train models and of all 100 "
        "(`benchmarks/few_shadows.py`). In digits, a record is in the training set of one model "
        "in 15.",
        "",
        "| fleet | 10 shadow models | 30 | 100 |",
        "|---|---|---|---|",
    ]
    for fleet, rows in found.items():
        cells = [cell({**row, "value": row["gain"]}, FIRST, gain=True) for row in rows]
        lines.append(f"| {fleet}: {TESTBEDS[fleet.split('_')[0]].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def speed() -> str:
    """From docs/results/attack_speed.json."""
    path = RESULTS / "attack_speed.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    slowest = max(found["seconds"], key=found["seconds"].get)
    lira = found["lira"]
    lines = [
        "## Speed",
        "",
        f"{found['size']}, from cached signals, {found['machine']} (`benchmarks/attack_speed.py`): "
        f"the slowest closed-form attack, {slowest}, takes {found['seconds'][slowest]:.2f} s. "
        f"LiRA takes {lira['ours_seconds']:.3f} s. The runner-up's loop, which searches for each "
        f"point in each model's list of records, takes {lira['loop_seconds']:.0f} s, "
        f"{lira['ratio']:,} times as long, for scores that differ by "
        f"{lira['largest_difference']:.0e} at most. A loop with the membership mask takes "
        f"{lira['loop_with_mask_seconds']:.1f} s, {lira['ratio_with_mask']} times as long.",
    ]
    if "signals" in found:
        signals = found["signals"]
        lines.append(
            f"Signals of {signals['models']} models at {signals['points']:,} records, computed and "
            f"stored, take {signals['ratio']} times the CPU time of bare forward passes in batches "
            f"of {signals['bare_batch']}, the best size for these."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
