#!/usr/bin/env python3
"""What benchmarks/peers.py and bench.py measured, in docs/PEERS.md, between its markers."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from markdown_tables import table

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, RESULTS = DOCS / "PEERS.md", DOCS / "results/peers.json"
STEPS, GPU = DOCS / "results/step_times.json", DOCS / "results/gpu.json"
OURS = "mico_competition"
NAMES = {OURS: "this package", "paper": "the papers' formulas"}
MODES = {
    "bookkeeping": "this package",
    "hooks": "Opacus `hooks` (its default)",
    "functorch": "Opacus `functorch`",
    "ghost": "Opacus `ghost`",
    "fastDP": "fastDP 2.0.0",
}


def main() -> None:
    """Write the page."""
    text = filled(PAGE.read_text(encoding="utf-8"), *map(read, (RESULTS, STEPS, GPU)))
    PAGE.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """A file of measurements."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def filled(page: str, report: dict[str, Any], steps: dict[str, Any], gpu: dict[str, Any]) -> str:
    """`page` with the blocks that the measurements give."""
    for block, lines in {
        "installed": installed(report),
        "arrays": arrays(report),
        "attacks": attacks(report),
        "audits": audits(report),
        "alarms": bounds(report, "false alarms"),
        "means": bounds(report, "mean"),
        "steps": step_times(steps),
        "gpu": gpu_times(gpu),
    }.items():
        begin, end = f"<!-- {block}: begin -->", f"<!-- {block}: end -->"
        head, rest = page.split(begin)
        page = "\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]])
    return page


def plain(value: float) -> str:
    """1e-5 for 1e-05."""
    return f"{value:g}".replace("e-0", "e-")


def time_of(seconds: float) -> str:
    """Milliseconds, in three digits or fewer."""
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:,.0f} ms"


def percent(one: dict[str, Any]) -> str:
    """A share with its interval."""
    value, low, high = (100 * one[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def number(one: dict[str, Any], digits: int) -> str:
    """A mean with its interval."""
    value, low, high = (
        f"{round(one[key], digits) + 0.0:.{digits}f}" for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def installed(report: dict[str, Any]) -> list[str]:
    """What was installed, and what could not be used."""
    rows = []
    for name, peer in report["peers"].items():
        fault = peer["fault"] or report["faults"].get(name)
        package, version = peer["requirement"].split("==")
        beside = [f"`{one.replace('==', ' ')}`" for one in peer["beside"]]
        more = [f"{len(beside) - 4} more"] * (len(beside) > 4)
        rows.append([name, f"`{package}`", version])
        rows[-1].append(", ".join([*beside[:4], *more]) or "its own list")
        rows[-1].append(f"no: `{fault}`" if fault else "yes")
    lines = table(["peer", "package on PyPI", "version", "dependencies installed", "runs"], rows)
    return [
        *lines.splitlines(),
        "",
        f"Python {report['python']}; {report['machine']} for each package.",
    ]


def arrays(report: dict[str, Any]) -> list[str]:
    """The models that are attacked."""
    targets, shadows = report["targets"], report["shadows"]
    low, high = min(report["records"]), max(report["records"])
    return [
        f"{report['seeds']} sets of {targets + shadows} models of scikit-learn's digits "
        f"(`digits_inf`), each set from seeds of its own. In each, {targets} models are attacked "
        f"with the other {shadows} as shadow models, on the {low:,} to {high:,} records that at "
        "least two shadow models were trained on and two were not. Rates are those of all targets "
        f"of a set together; a cell has their mean over {report['seeds']} sets and its 95 % "
        "interval (Student's t)."
    ]


def attacks(report: dict[str, Any]) -> list[str]:
    """A row for each attack of each package."""
    rows = []
    for row in sorted(report["attacks"], key=lambda row: str(row["attack"]).lower()):
        distance = row.get("largest difference")
        timed = row["seconds"] and row["package"] != "paper"
        rows.append(
            [
                row["attack"],
                NAMES.get(row["package"], row["package"]),
                *(percent(row[rate]) for rate in ("TPR at 10 % FPR", "at 1 %")),
                number(row["AUC"], 3),
                "-" if distance is None else f"{distance:.1g}",
                time_of(row["seconds"]) if timed else "-",
            ]
        )
    heads = ["attack", "package", "TPR at 10 % FPR", "at 1 %", "AUC"]
    return table([*heads, "largest difference", "CPU time"], rows).splitlines()


def audits(report: dict[str, Any]) -> list[str]:
    """The simulated audits, and what so many of them can show."""
    from scipy.stats import binom

    points = [one["points"] for one in report["mechanisms"].values()]
    fewer = [n for n, one in report["mechanisms"].items() if one["points"] == min(points)]
    every = max(one["runs"] for one in report["mechanisms"].values())
    level = report["level"]
    cells = {one["false alarms"]["n"] for row in report["bounds"] for one in all_of(row)}
    chance = []
    for n in sorted(cells, reverse=True):
        low, high = (100 * binom.ppf(q, n, 1 - level) / n for q in (0.025, 0.975))
        chance.append(f"{low:.1f} to {high:.1f} % in {n:,}")
    return [
        f"Scores of simulated audits whose epsilon is known, at delta {plain(report['delta'])} and "
        f"{100 * level:.0f} %: {max(points):,} points, or {min(points)} for {' and '.join(fewer)}, "
        "each of them a member with probability one half. A bound above the true epsilon is a "
        f"false alarm; {100 * (1 - level):.0f} % are allowed. All packages get the same "
        f"scores, {every:,} runs of each mechanism; slow bounds get the first part of the runs of "
        'each seed, and the column "runs" says how many. By chance alone a bound with exactly '
        f"{100 * (1 - level):.0f} % of false alarms shows {', '.join(chance)} runs."
    ]


def all_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What a bound found, mechanism by mechanism."""
    return list(row["mechanisms"].values())


def bounds(report: dict[str, Any], what: str) -> list[str]:
    """A row for each bound of each package, with false alarms or means by mechanism."""
    rows = []
    for row in sorted(report["bounds"], key=lambda row: str(row["bound"])):
        runs = sorted({one[what]["n"] for one in all_of(row)})
        cells = [row["bound"], NAMES.get(row["package"], row["package"])]
        cells.append(" or ".join(f"{n:,}" for n in runs))
        for mechanism in report["mechanisms"]:
            one = row["mechanisms"].get(mechanism)
            shown = number(one[what], 2) if one and what == "mean" else one and percent(one[what])
            cells.append(shown or "-")
        rows.append([*cells, time_of(row["seconds"])])
    return table(["bound", "package", "runs", *report["mechanisms"], "CPU time"], rows).splitlines()


def step_times(steps: dict[str, Any]) -> list[str]:
    """A private step over a plain one, in one thread."""
    modes = {mode: title for mode, title in MODES.items() if mode in steps["steps"][0]}
    rows = [
        [row["model"], f"{row['plain ms']:.1f} ms"]
        + ["{:.2f} ({:.2f}-{:.2f})".format(*row[mode]) for mode in modes]
        for row in steps["steps"]
        if row["threads"] == 1
    ]
    lines = table(["model", "plain step", *modes.values()], rows)
    return [*lines.splitlines(), "", steps["versions"]]


def gpu_times(gpu: dict[str, Any]) -> list[str]:
    """The same on a GPU, from benchmarks/gpu.py, by the modes that it measured."""
    rows = []
    modes = {mode: title for mode, title in MODES.items() if mode in gpu["steps"][0]["seconds"]}
    for case in gpu["steps"]:
        plain = case["seconds"]["plain"]
        row = [f"{case['title']}, batch {case['batch']}", f"{1e3 * median(plain):.2f} ms"]
        for mode in modes:
            if mode not in case["seconds"]:
                row.append("failed")
                continue
            times = case["seconds"][mode]
            ratios = sorted(t / b for t, b in zip(times, plain))
            low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
            row.append(f"{median(times) / median(plain):.2f} ({low:.2f}-{high:.2f})")
        rows.append(row)
    machine = f"{gpu['device']}, torch {gpu['torch']}, opacus {gpu['opacus']}, Python "
    lines = table(["model", "plain step", *modes.values()], rows)
    code = f"code of commit {gpu['code']}; later code was not measured on a GPU"
    return [*lines.splitlines(), "", f"{machine}{gpu['python']}, {code}."]


if __name__ == "__main__":
    main()
