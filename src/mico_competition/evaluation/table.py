"""Writes evaluations as text for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from mico_competition.evaluation.measure import METRICS, Estimate
from mico_competition.evaluation.rows import (
    Evaluation,
    Row,
    Step,
    interval_excludes_zero,
    scores_in_percent,
)
from mico_competition.scoring.intervals import describe_intervals
from mico_competition.support.tables import aligned

COLUMNS = (
    "scenario",
    "phase",
    "records",
    "knowledge",
    "attack",
    "white_box",
    "shadows",
    "kind",
    "against",
    "metric",
    "value",
    "low",
    "high",
    "models",
    "members",
    "nonmembers",
    "interval_method",
    "cpu_seconds",
    "signal_cpu_seconds",
    "models_used",
    "records_used",
)
"""The columns of the CSV file, with one number in each line; `kind` is "value", "gain" (over
`against`) or "study".

`models` are targets, `models_used` targets and shadows; `cpu_seconds` exclude `signal_cpu_seconds`.
"""

COST = "CPU seconds of each attack, with those of its signals separately; models and records used"
COST_HEADS = ("attack", "signals", "models", "records")


def cell(metric: str, estimate: Estimate, gain: bool = False) -> str:
    """A number and its interval as text: rates in percent, AUC as a number.

    >>> import numpy as np
    >>> cell("TPR_FPR_1000", Estimate(0.5, 0.45, 0.54, np.zeros(0)))
    '50.0 [45.0, 54.0]'
    >>> cell("AUC", Estimate(0.011, 0.002, 0.02, np.zeros(0)), gain=True)
    '+0.011* [0.002, 0.020]'
    """
    return " ".join(part for part in starred_parts(metric, estimate, gain) if part)


def starred_parts(metric: str, estimate: Estimate, gain: bool = False) -> tuple[str, str]:
    """As `parts_of`, with a star at a gain whose interval excludes 0."""
    value, ends = parts_of(metric, estimate, gain)
    return value + ("*" if gain and starred(metric, estimate) else ""), ends


def starred(metric: str, estimate: Estimate) -> bool:
    """Whether the interval of a gain excludes 0, also as it is shown."""
    ends = (number(metric, end) for end in (estimate.low, estimate.high))
    return interval_excludes_zero(estimate) and all(float(end) for end in ends)


def parts_of(metric: str, estimate: Estimate, gain: bool = False) -> tuple[str, str]:
    """A number and its interval as two texts; no interval if it is unknown."""
    value = number(metric, estimate.value, gain)
    if not math.isfinite(estimate.low):
        return value, ""
    low, high = (number(metric, end) for end in (estimate.low, estimate.high))
    return value, f"[{low}, {high}]"


def number(metric: str, value: float, gain: bool = False) -> str:
    """One number of a metric; zero has no sign.

    >>> number("AUC", -0.0001, gain=True), number("TPR_FPR_100", 0.012)
    ('0.000', '1.2')
    """
    factor, form = (100, ".1f") if scores_in_percent(metric) else (1, ".3f")
    words = format(factor * value, "+" + form if gain else form)
    return words if float(words) else words.lstrip("+-")


def headline(found: Evaluation) -> str:
    """What was evaluated, in a line."""
    first = found.rows[0].measured
    asked = "all records" if found.records == "all" else "challenge points"
    knowledge = ", training set known otherwise" if found.known else ""
    of = "" if found.records == "own" else f" ({asked}{knowledge})"
    subject = ", ".join(part for part in (found.scenario, found.phase) if part)
    return (
        f"{subject}: {first.models} models, {first.members:,} members and "
        f"{first.nonmembers:,} non-members{of}"
    )


def text(found: Evaluation) -> str:
    """Tables for a terminal: the numbers, the paired gains, and the costs."""
    base = found.rows[0]
    lines = [headline(found), "", f"TPR in %. {intervals(found)}"]
    lines += _table([(row.name, row.measured.estimates) for row in found.rows], gain=False)
    gains = [(row.name, row.gain) for row in found.rows if row.gain is not None]
    if not gains:
        lines += [f"{row.name} is {row.title}" for row in found.rows if label(row) != row.name]
    if gains:
        lines += ["", f"gain over {label(base)}, paired (* = the interval excludes 0)"]
        lines += _table(gains, gain=True)
    more = found.remarks()
    lines += ["", *more] if more else []
    lines += ["", COST, *_costs(found)]
    return "\n".join(lines)


def intervals(found: Evaluation) -> str:
    """The method of the intervals, in a sentence."""
    return describe_intervals({found.scenario: found.rows[0].measured.models})


def costs(row: Row) -> tuple[str, str, str, str]:
    """The cost of an attack: CPU seconds, those of its signals, models and records."""
    cost = row.cost
    seconds, signals = (f"{x:.1f}" for x in (cost.cpu_seconds, cost.signal_cpu_seconds))
    return seconds, signals, f"{cost.models:,}", f"{cost.records:,}"


def _costs(found: Evaluation) -> list[str]:
    width = max(len("attack"), *(len(row.name) for row in found.rows)) + 2
    lines = ["attack".ljust(width) + "".join(head.rjust(12) for head in COST_HEADS)]
    for row in found.rows:
        lines.append(row.name.ljust(width) + "".join(cell.rjust(12) for cell in costs(row)))
    return lines


def study_text(steps: Sequence[Step]) -> str:
    """The study's table for a terminal."""
    rows = [(f"{step.attack}, {step.shadows} shadows", step.estimates) for step in steps]
    return "\n".join(["by the number of shadow models", *_table(rows, gain=False)])


def label(row: Row) -> str:
    """A row's name; with the formula for the winner's best."""
    return f"{row.name} ({row.title})" if row.title.startswith("calibrate-") else row.name


def _table(rows: Sequence[tuple[str, Any]], gain: bool) -> list[str]:
    heads = [name.replace("TPR at ", "TPR@").replace(" FPR", "") for name in METRICS.values()]
    cells = [
        (name, *(cell(metric, estimates[metric], gain) for metric in METRICS))
        for name, estimates in rows
    ]
    return aligned([("attack", *heads), *cells])


def records(found: Evaluation, steps: Sequence[Step] = ()) -> list[dict[str, Any]]:
    """One dict of `COLUMNS` for each number."""
    about = {
        "scenario": found.scenario,
        "phase": found.phase,
        "records": found.records,
        "knowledge": found.knowledge,
    }
    rows = []
    for row in found.rows:
        counts = {
            "attack": row.name,
            "white_box": row.white_box,
            "models": row.measured.models,
            "members": row.measured.members,
            "nonmembers": row.measured.nonmembers,
            "interval_method": row.measured.method,
            **_cost(row),
        }
        kinds = [("value", "", row.measured.estimates)]
        if row.gain is not None:
            kinds.append(("gain", found.against, row.gain))
        for kind, against, estimates in kinds:
            more = {**about, **counts, "kind": kind, "against": against, "shadows": ""}
            rows += [{**more, **_numbers(m, estimates[m])} for m in METRICS]
    first = found.rows[0].measured
    for step in steps:
        more = {
            **about,
            "attack": step.attack,
            "white_box": "",
            "models": first.models,
            "members": first.members,
            "nonmembers": first.nonmembers,
            "interval_method": first.method,
            "kind": "study",
            "against": "",
            "shadows": step.shadows,
        }
        rows += [{**more, **_numbers(m, step.estimates[m])} for m in METRICS]
    return rows


def _cost(row: Row) -> dict[str, Any]:
    return {
        "cpu_seconds": round(row.cost.cpu_seconds, 3),
        "signal_cpu_seconds": round(row.cost.signal_cpu_seconds, 3),
        "models_used": row.cost.models,
        "records_used": row.cost.records,
    }


def _numbers(metric: str, estimate: Estimate) -> dict[str, Any]:
    return {
        "metric": metric,
        "value": estimate.value,
        "low": _or_none(estimate.low),
        "high": _or_none(estimate.high),
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The numbers of `records` as CSV with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_json(found: Sequence[tuple[Evaluation, Sequence[Step]]]) -> str:
    """Evaluations, nested: scenario, attacks, metrics, gains, and the study."""
    return json.dumps([_nested(*pair) for pair in found], indent=2, allow_nan=False) + "\n"


def _nested(found: Evaluation, steps: Sequence[Step]) -> dict[str, Any]:
    first = found.rows[0].measured
    return {
        "scenario": found.scenario,
        "phase": found.phase,
        "records": found.records,
        "knowledge": found.knowledge,
        "models": first.models,
        "members": first.members,
        "nonmembers": first.nonmembers,
        "interval_method": first.method,
        "against": found.against,
        "attacks": [
            {
                "name": row.name,
                "title": row.title,
                "white_box": row.white_box,
                "seconds": round(row.seconds, 3),
                **_cost(row),
                "metrics": _all(row.measured.estimates),
                "gain": None if row.gain is None else _all(row.gain),
                "challenge_points": _at_challenge_points(row),
            }
            for row in found.rows
        ],
        "study": [
            {
                "attack": step.attack,
                "shadows": step.shadows,
                "repeats": step.repeats,
                "metrics": _all(step.estimates),
                "spread": step.spread,
            }
            for step in steps
        ],
    }


def _at_challenge_points(row: Row) -> dict[str, Any] | None:
    """The numbers of `Row.challenge`; None if only the challenge points were scored."""
    if row.challenge is None:
        return None
    return {
        "members": row.challenge.members,
        "nonmembers": row.challenge.nonmembers,
        "metrics": _all(row.challenge.estimates),
        "gain": None if row.challenge_gain is None else _all(row.challenge_gain),
    }


def _all(estimates: Any) -> dict[str, Any]:
    numbers = {metric: _numbers(metric, estimates[metric]) for metric in METRICS}
    return {m: {k: n[k] for k in ("value", "low", "high")} for m, n in numbers.items()}
