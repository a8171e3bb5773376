#!/usr/bin/env python3
"""What benchmarks/peers.py measured, in docs/PEERS.md: it rewrites what is between the markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, RESULTS = DOCS / "PEERS.md", DOCS / "results/peers.json"
OURS = "mico_competition"
NAMES = {OURS: "this package", "paper": "the papers' formulas"}
GAUSSIAN = ("Gaussian", "one-run f-DP")
"""Bounds that assume a Gaussian mechanism; of another one they are no bounds."""


def main() -> None:
    """Write the page."""
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), report), encoding="utf-8")


def filled(page: str, report: dict[str, Any]) -> str:
    """`page` with the blocks that the report gives."""
    for block, lines in {
        "installed": installed(report),
        "attacks": attacks(report),
        "alarms": bounds(report, "false alarms"),
        "means": bounds(report, "mean"),
    }.items():
        begin, end = f"<!-- {block}: begin -->", f"<!-- {block}: end -->"
        head, rest = page.split(begin)
        page = "\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]])
    return page


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def installed(report: dict[str, Any]) -> list[str]:
    """What was installed, and what could not be used."""
    rows = []
    for name, peer in report["peers"].items():
        fault = f"no: `{peer['fault']}`" if peer["fault"] else "yes"
        package, version = peer["requirement"].split("==")
        rows.append([name, f"`{package}`", version, fault])
    return table(["peer", "package on PyPI", "version", "imports"], rows)


def attacks(report: dict[str, Any]) -> list[str]:
    """A row for each attack of each package."""
    seconds = {r["attack"]: r["seconds"] for r in report["attacks"] if r["package"] == OURS}
    rows = []
    for row in sorted(report["attacks"], key=lambda row: str(row["attack"])):
        distance = row.get("largest difference")
        taken, base = row["seconds"], seconds.get(row["attack"])
        rows.append(
            [
                row["attack"],
                NAMES.get(row["package"], row["package"]),
                *(f"{100 * row[rate]:.1f} %" for rate in ("TPR at 10 % FPR", "at 1 %")),
                f"{row['AUC']:.3f}",
                "-" if distance is None else f"{distance:.1g}",
                "-" if not taken or not base else f"{taken / base:.1f}",
            ]
        )
    heads = ["attack", "package", "TPR at 10 % FPR", "at 1 %", "AUC"]
    return table([*heads, "largest difference", "time"], rows)


def bounds(report: dict[str, Any], what: str) -> list[str]:
    """A row for each bound of each package, with false alarms or means by mechanism."""
    seconds = {r["bound"]: r["seconds"] for r in report["bounds"] if r["package"] == OURS}
    rows = []
    for row in sorted(report["bounds"], key=lambda row: str(row["bound"])):
        cells = [row["bound"], NAMES.get(row["package"], row["package"])]
        cells.append(str(min(one["runs"] for one in row["mechanisms"].values())))
        for mechanism in report["mechanisms"]:
            one = row["mechanisms"][mechanism]
            applies = row["bound"] not in GAUSSIAN or mechanism.startswith(("no", "Gauss"))
            text = f"{100 * one[what]:.1f} %" if what != "mean" else f"{max(0, one[what]):.2f}"
            cells.append(text if applies else "-")
        base = seconds.get(row["bound"])
        cells.append(f"{row['seconds'] / base:.1f}" if base else "-")
        rows.append(cells)
    return table(["bound", "package", "runs", *report["mechanisms"], "time"], rows)


if __name__ == "__main__":
    main()
