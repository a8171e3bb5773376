"""Tables of what gpu.py measured: it prints them, and bench.py puts them into RESULTS.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_cases import cell
from markdown_tables import table

from mico_competition.competition.table import get_scenario, phases_of

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "gpu.json"
TASKS = ("purchase100", "cifar10", "sst2")
OF_2022 = tuple(f"{task}_{kind}" for task in TASKS for kind in ("inf", "hi", "lo", "ddp"))
NOT_MEASURED = "not measured on a GPU"


def gpu_section() -> str:
    """The part of RESULTS.md about a GPU, from the committed measurement."""
    if not RESULT.exists():
        return f"## On a GPU\n\nThis was {NOT_MEASURED}: `benchmarks/gpu.py` does it."
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    later = f"What was written after commit {found['code']} was {NOT_MEASURED}."
    return f"## On a GPU\n\n{page(found)}\n\n{later}"


def page(found: dict[str, Any]) -> str:
    """All tables; what was not measured is named."""
    shown = {name for name in SECTIONS if found.get(name)}
    shown |= {"tables", "pictures"} if found.get("runs") else set()  # an earlier form of them
    missing = [title for name, (title, _) in SECTIONS.items() if name not in shown]
    parts = [_about(found)]
    parts += [show(found) for name, (_, show) in SECTIONS.items() if found.get(name)]
    if found.get("runs"):
        parts.append(_runs(found))
    if missing:
        parts.append(f"Not measured on a GPU: {'; '.join(missing)}.")
    parts += [f"{name} failed: {said}" for name, said in found.get("failed", {}).items()]
    parts += [
        f"{name} was cut after {seconds:.0f} s, the end of its time box."
        for name, seconds in found.get("cut", {}).items()
    ]
    return "\n\n".join([*parts, hours_section(found)])


def _about(found: dict[str, Any]) -> str:
    tiny = "**A tiny version, which only tries the script.** " if found.get("tiny") else ""
    text = f"transformers {found['transformers']}, " if "transformers" in found else ""
    return (
        f"{tiny}{found['device']}, torch {found['torch']}, opacus {found['opacus']}, {text}Python "
        f"{found['python']}, code of commit {found['code']}: `benchmarks/gpu.py`, whose JSON is "
        "docs/results/gpu.json."
    )


def _tests(found: dict[str, Any]) -> str:
    row = found["tests"][-1]
    cut = ", and then its time was over" if row["cut"] else ""
    failures = "".join(f"\n- failed: {name}" for name in row["failures"])
    counts = ", ".join(f"{row[name]} {name}" for name in ("passed", "failed", "skipped"))
    return f"The tests marked `gpu`: {counts} in {row['seconds']:.0f} s{cut}.{failures}"


def _steps(found: dict[str, Any]) -> str:
    modes = list(dict.fromkeys(mode for case in found["steps"] for mode in case["seconds"]))[1:]
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
    return "\n\n".join(parts)


def _trials(found: dict[str, Any], name: str, title: str) -> str:
    head = ["scenario", "precision", "stack", "a step", "records a second", "models an hour"]
    words = any("tokens_a_second" in row for row in found[name])
    rows = []
    for row in found[name]:
        precision = row["precision"] + (", CUDA graphs" if row["graphs"] else "")
        cells = [row["scenario"], precision, str(row["stack"])]
        cells += [f"{1e3 * row['step_seconds']:.1f} ms", f"{row['records_a_second']:,.0f}"]
        cells += [f"{row['models_an_hour']:,.1f}"]
        cells += [f"{row['tokens_a_second']:,.0f}"] if words else []
        rows.append([*cells, f"{row['memory'] / 2**30:.1f} GB"])
    head += ["tokens a second"] if words else []
    return f"{title}\n\n{table([*head, 'memory'], rows)}"


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


def hours_section(found: dict[str, Any]) -> str:
    """The GPU hours of all 2,400 models, with the source of each row."""
    rows, total, counted, models = [], 0.0, 0, 0
    for scenario in OF_2022:
        phases = phases_of(get_scenario(scenario).challenge).values()
        count = sum(len(phase.model_ids) for phase in phases)
        models += count
        seconds, source = seconds_a_model(found, scenario)
        if seconds is None:
            rows.append([scenario, str(count), "-", "-", source])
            continue
        hours = count * seconds / 3600
        total, counted = total + hours, counted + count
        rows.append([scenario, str(count), f"{seconds:.2f} s", f"{hours:.2f}", source])
    rows.append(["sum", f"{counted:,} of {models:,}", "", f"{total:.1f}", ""])
    if not counted:
        return f"The GPU hours of all {models:,} models were {NOT_MEASURED}."
    head = ["scenario", "models", "a model", "GPU hours", "source"]
    tiny = "Of a tiny version, so these are not GPU hours: " if found.get("tiny") else ""
    title = f"{tiny}{models:,} models: GPU hours, one process after another"
    return f"{title}\n\n{table(head, rows)}"


def seconds_a_model(found: dict[str, Any], scenario: str) -> tuple[float | None, str]:
    """Seconds of a model of a scenario in float32, by the fastest that was measured; the source."""
    task, _, kind = scenario.rpartition("_")
    like = f"{task}_{'inf' if kind == 'inf' else 'lo'}"  # the others differ in their noise alone
    as_it = "" if like == scenario else f"as {like}: "
    for row in found.get("models", ()):
        if row["scenario"] == like and "accuracy" in row:
            return row["seconds"], f"{as_it}measured, a whole model"
    rows = [
        row
        for name in ("tables", "pictures", "text")
        for row in found.get(name, ())
        if row["scenario"] == like and (row["precision"], row["graphs"]) == ("float32", False)
    ]
    if not rows:
        return None, NOT_MEASURED
    best = max(rows, key=lambda row: row["models_an_hour"])
    stack = f" in a stack of {best['stack']}" if best["stack"] > 1 else ""
    said = f"scaled from {best['trial_steps']} of {best['steps']:,} steps{stack}"
    return 3600 / best["models_an_hour"], f"{as_it}{said}"
