"""Results as an aligned text table, as a table in a notebook, and as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mico_competition.evaluation.measure import METRICS, Estimate
from mico_competition.evaluation.remarks import remarks
from mico_competition.evaluation.table import cell, starred_parts
from mico_competition.scoring.few_records import rate_of
from mico_competition.scoring.intervals import describe_intervals
from mico_competition.scoring.metrics import percent
from mico_competition.support.tables import Cell, aligned, html_line, html_table

if TYPE_CHECKING:
    import pandas

    from mico_competition.evaluation.attack_result import AttackResult
    from mico_competition.evaluation.results import Results

HEADS = {key: "AUC" if key == "AUC" else f"TPR@{percent(rate_of(key))} FPR, %" for key in METRICS}
"""Key of a metric -> the head of its column."""


def heading(results: Results) -> str:
    """What was attacked, in a line."""
    first = next(iter(results.values())).measured
    subject = ", ".join(part for part in (results.subject, results.phase) if part)
    models = f"{first.models} target model{'s' if first.models > 1 else ''}"
    points = f"{first.members:,} members and {first.nonmembers:,} non-members"
    return f"{subject + ': ' if subject else ''}{models}, {points}"


def notes(results: Results) -> list[str]:
    """What a reader must know of the numbers: their intervals, rates too small, and remarks."""
    first = next(iter(results.values())).measured
    found = [describe_intervals({results.subject: first.models})]
    small = [
        percent(rate_of(key))
        for key in METRICS
        if key != "AUC" and rate_of(key) * first.nonmembers < 1
    ]
    if small:
        found.append(
            f"{first.nonmembers:,} non-members do not resolve {' and '.join(small)} FPR: the TPR "
            "there is that without any false positive."
        )
    return found + remarks({name: attack.measured for name, attack in results.items()})


def text(results: Results) -> str:
    """The table for a terminal, with the paired gains below."""
    heads = ["attack", *HEADS.values(), "seconds"]
    rows = [[a.name, *_words(a.measured.estimates), f"{a.seconds:.1f}"] for a in results.values()]
    lines = [heading(results), "", *aligned([heads, *rows])]
    gains = [[a.name, *_words(a.gain, gain=True)] for a in results.values() if a.gain is not None]
    if gains:
        above = f"gain over {results.against}, paired (* = the interval excludes 0)"
        lines += ["", above, *aligned([heads[:-1], *gains])]
    return "\n".join([*lines, "", *notes(results)])


def html(results: Results) -> str:
    """The table for a notebook: its colours are the notebook's own, light or dark."""
    heads = ["attack", *HEADS.values(), "seconds"]
    rows: list[list[Cell]] = [
        [a.name, *_pairs(a.measured.estimates), f"{a.seconds:.1f}"] for a in results.values()
    ]
    gains: list[list[Cell]] = [
        [a.name, *_pairs(a.gain, gain=True)] for a in results.values() if a.gain is not None
    ]
    parts = [html_line(heading(results)), html_table(heads, rows, numbers=True)]
    if gains:
        above = f"Gain over {results.against}, paired; * where the interval excludes 0"
        parts += [html_line(above), html_table(heads[:-1], gains, numbers=True)]
    return "\n".join([*parts, *(html_line(note, small=True) for note in notes(results))])


def frame(attacks: Iterable[AttackResult], gain: bool) -> pandas.DataFrame:
    """One row for each attack; see `Results.to_frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas") from error
    rows = {}
    for attack in attacks:
        estimates = attack.gain if gain else attack.measured.estimates
        if estimates is None:
            continue
        row = {
            (METRICS[key], end): getattr(estimates[key], end)
            for key in METRICS
            for end in ("value", "low", "high")
        }
        if not gain:
            row["time", "seconds"] = attack.seconds
            row["time", "cpu_seconds"] = attack.cost.cpu_seconds
        rows[attack.name] = row
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index.name = "attack"
    if rows:
        found.columns = pd.MultiIndex.from_tuples(found.columns)
    return found


def _pairs(estimates: Mapping[str, Estimate], gain: bool = False) -> list[tuple[str, str]]:
    """The number and the interval of each metric as texts; a star for a gain that is clear."""
    return [starred_parts(key, estimates[key], gain) for key in METRICS]


def _words(estimates: Mapping[str, Estimate], gain: bool = False) -> list[str]:
    return [cell(key, estimates[key], gain) for key in METRICS]
