"""The bars that were set for an H100, beside what gpu.py measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench_cases import cell
from gpu_hours import (
    NOT_MEASURED,
    hours_of_all,
    models_of,
    over_plain,
    seconds_a_model,
    trial_rows,
)
from markdown_tables import table

Measured = tuple[float | None, str]
"""The number to hold against a bar, None if there is none, and what to say of it."""

NOTHING: Measured = (None, NOT_MEASURED)
PRIVATE = "bookkeeping"


@dataclass(frozen=True)
class Bar:
    """What is to be reached: a number that is at most `most`."""

    title: str
    most: float
    unit: str
    measured: Callable[[dict[str, Any]], Measured]


def bars_section(found: dict[str, Any]) -> str:
    """Each bar, what was measured, and whether it was reached."""
    rows = []
    for bar in BARS:
        value, said = bar.measured(found)
        reached = "-"
        if value is not None and not found.get("tiny"):
            reached = "yes" if value <= bar.most else "no"
        if value is not None and found.get("tiny"):
            said = f"tiny: {said}"
        rows.append([bar.title, f"{bar.most:g}{bar.unit}", said, reached])
    tiny = "; a tiny version tells nothing of them" if found.get("tiny") else ""
    title = f"Bars that were set for an H100, beside what was measured{tiny}:"
    return f"{title}\n\n{table(['bar', 'at most', 'measured', 'reached'], rows)}"


def _stack(found: dict[str, Any]) -> Measured:
    """Of the stack that trains most private models an hour."""
    alone = _case("MLP 600-128-100")(found)[1]
    rows = [row for row in trial_rows(found, "tables") if row["precision"] == "float32"]
    private = [row for row in rows if row["stack"] > 1 and over_plain(row, rows) is not None]
    plain = [row for row in private if not row["graphs"]]
    if plain:
        best = max(plain, key=lambda row: row["models_an_hour"])
        value = over_plain(best, rows)
        said = f"{value:.2f} in a stack of {best['stack']}"
        for row in private:
            if row["graphs"] and row["stack"] == best["stack"]:
                said += f", {over_plain(row, rows):.2f} with CUDA graphs"
    else:
        runs = {(row["scenario"], row["stack"]): row for row in found.get("runs", ())}
        pairs = [
            (row, runs["purchase100_inf", stack])
            for (name, stack), row in runs.items()
            if name == "purchase100_lo" and stack > 1 and ("purchase100_inf", stack) in runs
        ]
        if not pairs:
            return None, f"{NOT_MEASURED}; one MLP alone: {alone}" if found.get(
                "steps"
            ) else NOT_MEASURED
        own, other = max(pairs, key=lambda pair: pair[0]["models_an_hour"])
        value = own["seconds"] / other["seconds"]
        said = f"{value:.2f} over a whole epoch in a stack of {own['stack']}"
    return value, f"{said}; one MLP alone: {alone}"


def _case(title: str) -> Callable[[dict[str, Any]], Measured]:
    """The ratio of single steps of a model of the part `steps`."""

    def measured(found: dict[str, Any]) -> Measured:
        for case in found.get("steps", ()):
            seconds = case["seconds"]
            if case["title"] == title and PRIVATE in seconds:
                median = {mode: statistics.median(each) for mode, each in seconds.items()}
                said = f"{cell(seconds[PRIVATE], seconds['plain'])}"
                if "plain in float32" in seconds:
                    ratio = median[PRIVATE] / median["plain in float32"]
                    said += f"; {ratio:.2f} over a plain step in float32"
                graphs = f"{PRIVATE}, graphs"
                if graphs in seconds:
                    said += f"; {median[graphs] / median['plain']:.2f} with CUDA graphs"
                return median[PRIVATE] / median["plain"], said
        return NOTHING

    return measured


def _time(
    scenario: str,
    *,
    unit: tuple[float, str],
    together: bool = False,
    precision: str = "float32",
) -> Callable[[dict[str, Any]], Measured]:
    """What a model of a scenario takes, or all together, in a unit of so many seconds."""

    def measured(found: dict[str, Any]) -> Measured:
        seconds, source = seconds_a_model(found, scenario, precision)
        if seconds is None:
            return NOTHING
        value = (models_of(scenario) if together else 1) * seconds / unit[0]
        said = f"{value:.1f}{unit[1]}, {source}"
        if scenario == "sst2_lo":
            other = seconds_a_model(found, scenario, "bfloat16")[0]
            said += "" if other is None else f"; in bfloat16 {other / unit[0]:.1f}{unit[1]}"
        return value, said

    return measured


def _all(found: dict[str, Any]) -> Measured:
    total, counted, models = hours_of_all(found)
    if not counted:
        return NOTHING
    if counted == models:
        return total, f"{total:.1f} hours"
    said = f"{total:.1f} hours for {counted:,} of them, the others {NOT_MEASURED}"
    return (total if total > HOURS else None), said


HOURS = 24.0
SECONDS, MINUTES = (1.0, " s"), (60.0, " min")
BARS = (
    Bar("a private step over a plain one: MLPs in a stack", 1.3, "", _stack),
    Bar("the same: CNN", 1.2, "", _case("CNN")),
    Bar("the same: roberta-base's shape", 1.3, "", _case("RoBERTa 12 x 768")),
    Bar("200 private models of purchase100_lo", 5.0, " min",
        _time("purchase100_lo", together=True, unit=MINUTES)),
    Bar("a model of cifar10_lo", 60.0, " s", _time("cifar10_lo", unit=SECONDS)),
    Bar("the same in bfloat16", 30.0, " s",
        _time("cifar10_lo", unit=SECONDS, precision="bfloat16")),
    Bar("a model of sst2_lo, 3 epochs", 4.0, " min", _time("sst2_lo", unit=MINUTES)),
    Bar("GPU hours of all 2,400 models", HOURS, "", _all),
)  # fmt: skip
