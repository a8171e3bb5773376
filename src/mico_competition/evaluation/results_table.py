"""Results as an aligned text table, as a table in a notebook, and as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from mico_competition.evaluation.measure import METRICS, Estimate
from mico_competition.evaluation.table import parts_of, starred
from mico_competition.scoring.few_records import rate_of
from mico_competition.scoring.intervals import describe_intervals
from mico_competition.scoring.metrics import percent

if TYPE_CHECKING:
    import pandas

    from mico_competition.evaluation.results import AttackResult, Results

HEADS = {key: "AUC" if key == "AUC" else f"TPR@{percent(rate_of(key))} FPR, %" for key in METRICS}
"""Key of a metric -> the head of its column."""

_CELL = "padding:.3em .8em .3em 0;text-align:right;white-space:nowrap;background:transparent"
_NAME = _CELL.replace("right", "left")
_LINE = "border-bottom:1px solid rgba(128,128,128,.45)"
_SMALL = "opacity:.75;font-size:.85em"


def heading(results: Results) -> str:
    """What was attacked, in a line."""
    first = next(iter(results.values())).measured
    subject = ", ".join(part for part in (results.subject, results.phase) if part)
    models = f"{first.models} target model{'s' if first.models > 1 else ''}"
    points = f"{first.members:,} members and {first.nonmembers:,} non-members"
    return f"{subject + ': ' if subject else ''}{models}, {points}"


def notes(results: Results) -> list[str]:
    """What a reader must know of the numbers: their intervals, and rates that are too small."""
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
    return found


def text(results: Results) -> str:
    """The table for a terminal, with the paired gains below."""
    heads = ["attack", *HEADS.values(), "seconds"]
    rows = [[a.name, *_words(a.measured.estimates), f"{a.seconds:.1f}"] for a in results.values()]
    lines = [heading(results), "", *_aligned([heads, *rows])]
    gains = [[a.name, *_words(a.gain, gain=True)] for a in results.values() if a.gain is not None]
    if gains:
        above = f"gain over {results.against}, paired (* = the interval excludes 0)"
        lines += ["", above, *_aligned([heads[:-1], *gains])]
    return "\n".join([*lines, "", *notes(results)])


def html(results: Results) -> str:
    """The table for a notebook: its colours are the notebook's own, light or dark."""
    heads = ["attack", *HEADS.values(), "seconds"]
    rows = [
        (a.name, a.title, [*_pairs(a.measured.estimates), (f"{a.seconds:.1f}", "")])
        for a in results.values()
    ]
    gains = [
        (a.name, "", _pairs(a.gain, gain=True)) for a in results.values() if a.gain is not None
    ]
    parts = [f'<p style="margin:.3em 0">{escape(heading(results))}</p>', _html(heads, rows)]
    if gains:
        above = f"Gain over {results.against}, paired; * where the interval excludes 0"
        parts += [f'<p style="margin:.8em 0 .3em">{escape(above)}</p>', _html(heads[:-1], gains)]
    below = "<br>".join(escape(note) for note in notes(results))
    return "\n".join([*parts, f'<p style="{_SMALL};margin:.5em 0">{below}</p>'])


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


def _pairs(estimates: object, gain: bool = False) -> list[tuple[str, str]]:
    """The number and the interval of each metric as texts; a star for a gain that is clear."""
    found = []
    for key in METRICS:
        estimate: Estimate = estimates[key]  # type: ignore[index]
        value, ends = parts_of(key, estimate, gain)
        found.append((value + ("*" if gain and starred(key, estimate) else ""), ends))
    return found


def _words(estimates: object, gain: bool = False) -> list[str]:
    return [" ".join(part for part in pair if part) for pair in _pairs(estimates, gain)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]


def _html(heads: Sequence[str], rows: Sequence[tuple[str, str, list[tuple[str, str]]]]) -> str:
    """A table in HTML with inline styles, which notebooks keep."""
    top = "".join(
        f'<th scope="col" style="{_CELL if i else _NAME};{_LINE}">{escape(head)}</th>'
        for i, head in enumerate(heads)
    )
    lines = []
    for name, title, cells in rows:
        numbers = "".join(
            f'<td style="{_CELL}">{escape(value)}'
            + (f' <span style="{_SMALL}">{escape(ends)}</span>' if ends else "")
            + "</td>"
            for value, ends in cells
        )
        about = f' title="{escape(title)}"' if title else ""
        lines.append(
            f'<tr><th scope="row" style="{_NAME}"{about}>{escape(name)}</th>{numbers}</tr>'
        )
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;'
        f'font-variant-numeric:tabular-nums"><thead><tr>{top}</tr></thead>\n<tbody>'
        f"{chr(10).join(lines)}</tbody></table></div>"
    )
