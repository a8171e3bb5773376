#!/usr/bin/env python3
"""Tables of what gpu.py measured: it prints them, and bench.py puts them into RESULTS.md.

`python benchmarks/gpu_page.py` puts those of docs/results/gpu.json there and measures nothing.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_cases import cell
from gpu_bars import bars_section
from gpu_hours import NOT_MEASURED, hours_section, over_plain, trial_rows
from markdown_tables import table

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "gpu.json"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
_REASON = 200  # characters of why something failed


def gpu_section() -> str:
    """The part of RESULTS.md about a GPU, from the committed measurement."""
    if not RESULT.exists():
        return f"## On a GPU\n\nThis was {NOT_MEASURED}: `benchmarks/gpu.py` does it."
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    later = f"What was written after commit {found['code']} was {NOT_MEASURED}."
    return f"## On a GPU\n\n{page(found, RESULT.relative_to(ROOT))}\n\n{later}"


def page(found: dict[str, Any], source: Path) -> str:
    """All tables; what was not measured is named, and `source`, where the numbers are."""
    shown = {name for name in SECTIONS if found.get(name)}
    shown |= {"tables", "pictures"} if found.get("runs") else set()  # an earlier form of them
    missing = [title for name, (title, _) in SECTIONS.items() if name not in shown]
    parts = [_about(found, source), bars_section(found)]
    parts += [show(found) for name, (_, show) in SECTIONS.items() if found.get(name)]
    if found.get("runs"):
        parts.append(_runs(found))
    if missing:
        parts.append(f"Not measured on a GPU: {'; '.join(missing)}.")
    parts += [f"{name} failed: {_short(said)}" for name, said in found.get("failed", {}).items()]
    parts += [
        f"{name} was cut after {seconds:.0f} s, the end of its time box."
        for name, seconds in found.get("cut", {}).items()
    ]
    return "\n\n".join([*parts, hours_section(found)])


def _about(found: dict[str, Any], source: Path) -> str:
    tiny = "**A tiny version, which only tries the script.** " if found.get("tiny") else ""
    text = f"transformers {found['transformers']}, " if "transformers" in found else ""
    earlier = ", by an earlier form of" if found.get("runs") else ""
    return (
        f"{tiny}{found['device']}, torch {found['torch']}, opacus {found['opacus']}, {text}Python "
        f"{found['python']}, code of commit {found['code']}{earlier or ':'} `benchmarks/gpu.py`, "
        f"whose JSON is {source}."
    )


def _tests(found: dict[str, Any]) -> str:
    row = found["tests"][-1]
    cut = ", and then its time was over" if row["cut"] else ""
    failures = "".join(f"\n- failed: {name}" for name in row["failures"])
    counts = ", ".join(f"{row[name]} {name}" for name in ("passed", "failed", "skipped"))
    return f"The tests marked `gpu`: {counts} in {row['seconds']:.0f} s{cut}.{failures}"


def _steps(found: dict[str, Any]) -> str:
    modes = list(
        dict.fromkeys(
            mode
            for name in ("seconds", "failed")
            for case in found["steps"]
            for mode in case.get(name, ())
        )
    )[1:]
    times, peaks = [], []
    for case in found["steps"]:
        seconds, peak = case["seconds"], case["peak_bytes"]
        plain = 1e3 * statistics.median(seconds["plain"])
        ratios = [cell(seconds[m], seconds["plain"]) if m in seconds else "failed" for m in modes]
        times.append([f"{case['title']}, batch {case['batch']}", f"{plain:.2f} ms", *ratios])
        if peak:
            ratios = [f"{peak[m] / peak['plain']:.2f}" if m in peak else "failed" for m in modes]
            peaks.append([times[-1][0], f"{peak['plain'] / 2**20:,.0f} MB", *ratios])
    parts = [
        "A private step over a plain one: ratios of medians, and in brackets the middle half of "
        "the repeats. Private steps compute products in full float32, unless told otherwise; plain "
        "ones use TF32 in convolutions, as torch does by default, except in the column *plain in "
        "float32*.",
        table(["model", "plain step", *modes], times),
    ]
    if peaks:
        parts.append("Peak memory of a step, over that of a plain one:")
        parts.append(table(["model", "plain step", *modes], peaks))
    parts += [
        f"{case['title']}, {mode}, failed: {_short(said)}"
        for case in found["steps"]
        for mode, said in case.get("failed", {}).items()
    ]
    return "\n\n".join(parts)


def _short(said: str) -> str:
    """The first line of an error, or its beginning, without a full stop of its own."""
    line = (said.strip().splitlines() or ["no reason was told"])[0]
    return line.rstrip(".") + "." if len(line) <= _REASON else line[:_REASON] + "..."


def _trials(found: dict[str, Any], name: str, title: str) -> str:
    measured = trial_rows(found, name)
    words = any("tokens_a_second" in row for row in measured)
    ratios = [over_plain(row, measured) for row in measured]
    rows = []
    for row, ratio in zip(measured, ratios):
        cells = [row["scenario"], _how(row), str(row["stack"])]
        cells += [f"{1e3 * row['step_seconds']:.1f} ms"]
        cells += ["-" if ratio is None else f"{ratio:.2f}"] if any(ratios) else []
        cells += [f"{row['records_a_second']:,.0f}", f"{row['models_an_hour']:,.1f}"]
        cells += [f"{row['tokens_a_second']:,.0f}"] if words else []
        energy = row.get("kilowatt_hours")
        cells += ["-" if energy is None else f"{energy:.3g} kWh for {row['models']}"]
        rows.append([*cells, f"{row['memory'] / 2**30:.1f} GB"])
    head = ["scenario", "precision", "stack", "a step", *(["over plain"] if any(ratios) else [])]
    head += ["records a second", "models an hour", *(["tokens a second"] if words else [])]
    parts = [title, table([*head, "energy of models", "memory"], rows)] if rows else [title]
    parts += [
        f"{row['scenario']}, {_how(row)}, in a stack of {row['stack']}, failed: "
        f"{_short(row['failed'])}"
        for row in found[name]
        if "failed" in row
    ]
    return "\n\n".join(parts)


def _how(row: dict[str, Any]) -> str:
    """In which precision a trial ran, and whether with CUDA graphs."""
    return str(row["precision"]) + (", CUDA graphs" if row["graphs"] else "")


def _signals(found: dict[str, Any]) -> str:
    said = (
        f"{row['models']} models ({row['title']}) at {row['records']} records in "
        f"{row['seconds']:.1f} s"
        for row in found["signals"]
    )
    return f"Outputs and gradient norms of {'; of '.join(said)}."


def _profile(found: dict[str, Any]) -> str:
    titles = ", ".join(row["title"] for row in found["profile"])
    return f"The JSON has profiles of private steps: {titles}."


def _models(found: dict[str, Any]) -> str:
    rows = []
    for row in found["models"]:
        whole = "accuracy" in row
        epsilon = row.get("epsilon")
        cells = [row["scenario"], row["data"], f"{100 * row['part']:.0f} % of {row['steps']:,}"]
        cells += [f"{row['seconds']:.1f} s", f"{row['accuracy']:.3f}" if whole else "-"]
        rows.append([*cells, "-" if epsilon is None else f"{epsilon:.3f}"])
    head = ["scenario", "images", "steps", "time", "accuracy", "epsilon"]
    return "Whole models, evaluation and files included:\n\n" + table(head, rows)


def _runs(found: dict[str, Any]) -> str:
    rows = [
        [
            run["scenario"],
            str(run["stack"]),
            f"{run['seconds']:.1f} s",
            f"{run['stack'] * run['records'] / run['seconds']:,.0f}",
            f"{run['models_an_hour']:,.0f}",
        ]
        for run in found["runs"]
    ]
    head = ["scenario", "stack", "one epoch", "records a second", "models an hour"]
    return (
        "Whole runs of MICO's size on made-up records, one epoch timed; models an hour follow from "
        f"the epochs of the scenario (stacks of 200: {NOT_MEASURED}):\n\n" + table(head, rows)
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "tests": ("the tests marked `gpu`", _tests),
    "steps": ("a private step over a plain one", _steps),
    "tables": (
        "stacks of 1, 10, 50 and 200 Purchase-100 models",
        lambda found: _trials(found, "tables", "Purchase-100's MLP, steps of whole runs:"),
    ),
    "pictures": (
        "CIFAR-10's CNN in whole runs, alone and in stacks",
        lambda found: _trials(found, "pictures", "CIFAR-10's CNN, steps of whole runs:"),
    ),
    "text": (
        "roberta-base in float32, TF32 and bfloat16",
        lambda found: _trials(
            found, "text", "A model of roberta-base's shape, on sentences as long as SST-2's:"
        ),
    ),
    "signals": ("signals of 100 models", _signals),
    "profile": ("profiles of private steps", _profile),
    "models": ("whole CIFAR-10 models with accuracy and epsilon", _models),
}


def main() -> None:
    """Put the section into RESULTS.md, where it is the last one."""
    text = RESULTS.read_text(encoding="utf-8")
    begin = re.search(r"^## On a GPU$", text, re.MULTILINE)
    before = text[: begin.start()] if begin else text.rstrip() + "\n\n"
    RESULTS.write_text(before + gpu_section() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
