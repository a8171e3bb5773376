"""What the models of 2022 take on a GPU by what gpu.py measured, and the sum over all 2,400."""

from __future__ import annotations

from typing import Any

from markdown_tables import table

from mico_competition.competition.table import get_scenario, phases_of

TASKS = ("purchase100", "cifar10", "sst2")
OF_2022 = tuple(f"{task}_{kind}" for task in TASKS for kind in ("inf", "hi", "lo", "ddp"))
NOT_MEASURED = "not measured on a GPU"


def models_of(scenario: str) -> int:
    """The number of models of a scenario."""
    phases = phases_of(get_scenario(scenario).challenge).values()
    return sum(len(phase.model_ids) for phase in phases)


def hours_section(found: dict[str, Any]) -> str:
    """The GPU hours of all 2,400 models, with the source of each row."""
    rows = []
    for scenario in OF_2022:
        count = models_of(scenario)
        seconds, source = seconds_a_model(found, scenario)
        cells = (
            ["-", "-"]
            if seconds is None
            else [f"{seconds:.2f} s", f"{_hours(found, scenario):.2f}"]
        )
        rows.append([scenario, str(count), *cells, source])
    total, counted, models = hours_of_all(found)
    if not counted:
        return f"The GPU hours of all {models:,} models were {NOT_MEASURED}."
    rows.append(["sum", f"{counted:,} of {models:,}", "", f"{total:.1f}", ""])
    head = ["scenario", "models", "a model", "GPU hours", "source"]
    tiny = "Of a tiny version, so these are not GPU hours: " if found.get("tiny") else ""
    title = f"{tiny}{models:,} models: GPU hours, one process after another"
    return f"{title}\n\n{table(head, rows)}"


def hours_of_all(found: dict[str, Any]) -> tuple[float, int, int]:
    """The sum of the GPU hours that are known; of how many models it is; and how many there are."""
    known = [name for name in OF_2022 if seconds_a_model(found, name)[0] is not None]
    total = sum(_hours(found, name) for name in known)
    return total, sum(map(models_of, known)), sum(map(models_of, OF_2022))


def _hours(found: dict[str, Any], scenario: str) -> float:
    return models_of(scenario) * (seconds_a_model(found, scenario)[0] or 0.0) / 3600


def seconds_a_model(
    found: dict[str, Any], scenario: str, precision: str = "float32"
) -> tuple[float | None, str]:
    """Seconds of a model of a scenario, by the fastest that was measured; and the source."""
    task, _, kind = scenario.rpartition("_")
    like = f"{task}_{'inf' if kind == 'inf' else 'lo'}"  # the others differ in their noise alone
    as_it = "" if like == scenario else f"as {like}: "
    for row in found.get("models", ()) if precision == "float32" else ():
        if row["scenario"] == like and "accuracy" in row:
            return row["seconds"], f"{as_it}measured, a whole model"
    wanted = (like, precision)
    rows = [row for row in trial_rows(found) if (row["scenario"], row["precision"]) == wanted]
    if not rows and precision == "float32":  # an earlier form, which timed an epoch
        rows = [row for row in found.get("runs", ()) if row["scenario"] == like]
    if not rows:
        return None, NOT_MEASURED
    best = max(rows, key=lambda row: row["models_an_hour"])
    how = f" in a stack of {best['stack']}" if best["stack"] > 1 else ""
    how += ", with CUDA graphs" if best.get("graphs") else ""
    part = "one epoch"
    if "trial_steps" in best:
        part = f"{best['trial_steps']} of {best['steps']:,} steps"
    return 3600 / best["models_an_hour"], f"{as_it}scaled from {part}{how}"


def trial_rows(found: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """The rows of trials that did not fail, of these parts or of all."""
    names = names or ("tables", "pictures", "text")
    return [row for name in names for row in found.get(name, ()) if "failed" not in row]


def over_plain(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """A private step over a plain one of the same stack and precision, if batches are as large.

    The plain one has no CUDA graphs, as by default.
    """
    plain = f"{row['scenario'].rpartition('_')[0]}_inf"
    wanted = (plain, row["stack"], row["precision"], False)
    for other in rows if row["scenario"] != plain else ():
        if (other["scenario"], other["stack"], other["precision"], other["graphs"]) != wanted:
            continue
        batches = [each["records_a_second"] * each["step_seconds"] for each in (row, other)]
        if abs(batches[0] / batches[1] - 1) < 0.02:
            return float(row["step_seconds"] / other["step_seconds"])
    return None
