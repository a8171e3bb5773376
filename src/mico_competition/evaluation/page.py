"""The page of an evaluation: one HTML file with tables, ROC curves and the chart of a study.

The page loads nothing from elsewhere. Of a ROC curve it shows only what `scoring.curve` allows, so
that a published page does not reveal labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from mico_competition.evaluation.measure import METRICS, RANKED, Estimate
from mico_competition.evaluation.rows import Evaluation, Row, Step
from mico_competition.evaluation.table import (
    COST,
    COST_HEADS,
    costs,
    headline,
    intervals,
    label,
    starred_parts,
)
from mico_competition.scoring.metrics import percent
from mico_competition.scoring.page import document
from mico_competition.scoring.svg import HEIGHT, LEFT, SIDE, TOP, WIDTH, Axes

TITLE = "Membership inference: attacks compared"
COLOURS = (
    "#7a828c",
    "#2f7de1",
    "#d9822b",
    "#2e9e5b",
    "#c0439c",
    "#d64541",
    "#7b61d6",
    "#159a9c",
    "#a3781f",
)
"""Colours of curves, readable on light and dark pages; the first is the baseline's."""

Pair = tuple[Evaluation, Sequence[Step]]


def to_html(found: Sequence[Pair], *, made: str = "") -> str:
    """The page; ValueError if there are no evaluations.

    `made` is a line about when and with what it was made (`support.made`).
    """
    if not found:
        raise ValueError("Expected at least one evaluation for a page.")
    body = [f"<h1>{TITLE}</h1>"]
    body += [
        _section(number, evaluation, steps) for number, (evaluation, steps) in enumerate(found)
    ]
    return document(TITLE, "\n".join(body), made)


def _section(number: int, found: Evaluation, steps: Sequence[Step]) -> str:
    base = found.rows[0]
    parts = [
        f"<section>\n<h2>{escape(found.scenario)}</h2>",
        f"<p>{escape(headline(found))}. {escape(intervals(found))}</p>",
        _table(
            "TPR in %, with 95% intervals",
            METRICS.values(),
            [(label(row), _cells(row.measured.estimates)) for row in found.rows],
        ),
    ]
    gains = [(row.name, _cells(row.gain, gain=True)) for row in found.rows if row.gain is not None]
    if gains:
        caption = f"Gain over {label(base)}, paired; * where the interval excludes 0"
        parts.append(_table(caption, METRICS.values(), gains))
    parts += [f'<p class="note">{escape(remark)}</p>' for remark in found.remarks()]
    curves = [_roc(found.rows, axes, f"roc{number}-{axes.kind}") for axes in (Axes(-3), Axes())]
    places = {row.name: place for place, row in enumerate(found.rows)}
    band = any(row.measured.bands for row in found.rows)
    parts.append(
        _plots(curves, places, "Bands are 95% intervals, one at each FPR." if band else "")
    )
    if steps:
        rows = [
            (f"{step.attack}, {step.shadows} shadow models", _cells(step.estimates))
            for step in steps
        ]
        caption = "By the number of shadow models (random choices, averaged)"
        parts.append(_table(caption, METRICS.values(), rows))
        studied = {step.attack: places[step.attack] for step in steps}
        picture = _study(steps, studied, f"study{number}")
        parts.append(_plots([picture], studied, "Bands are 95% intervals."))
    if any(row.cost.models for row in found.rows):
        rows = [(row.name, [f"<td>{words}</td>" for words in costs(row)]) for row in found.rows]
        parts.append(_table(COST, [head.capitalize() for head in COST_HEADS], rows))
    return "\n".join([*parts, "</section>"])


def _table(caption: str, heads: Iterable[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table in HTML, with one row for each attack."""
    row_of_heads = "".join(f'<th scope="col">{head}</th>' for head in ("Attack", *heads))
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows
    ]
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">\n'
        f'<table class="scores compared">\n<caption>{escape(caption)}</caption>\n<thead><tr>'
        f"{row_of_heads}</tr></thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody>\n</table>\n</div>"
    )


def _cells(estimates: Mapping[str, Estimate], gain: bool = False) -> list[str]:
    """One cell for each metric: the number, with its star, and the interval below in small type."""
    cells = []
    for metric in METRICS:
        value, ends = starred_parts(metric, estimates[metric], gain)
        cells.append(f'<td>{value} <span class="range">{ends}</span></td>')
    return cells


def _plots(pictures: Sequence[str], places: Mapping[str, int], note: str) -> str:
    """Pictures side by side, with a common key of lines below."""
    figures = "".join(f"<figure>{picture}</figure>" for picture in pictures)
    keys = [
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path d="M1 5h28" {_stroke(place)}/>'
        f"</svg> {escape(name)}</li>"
        for name, place in places.items()
    ]
    chance = '<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="chance" d="M1 5h28"/>'
    keys += [f"{chance}</svg> guessing</li>"] if len(pictures) > 1 else []
    words = f'<p class="note">{note}</p>' if note else ""
    return f'<div class="plots">{figures}</div>\n<ul class="legend">{"".join(keys)}</ul>{words}'


def _band(line: str, place: int) -> str:
    """The area of a curve's intervals, in its colour."""
    return f'<path d="M{line}Z" fill="{COLOURS[place % len(COLOURS)]}" fill-opacity="0.13"/>'


def _stroke(place: int) -> str:
    """The style of a line; after the last colour they repeat with dashes."""
    dashes = ("", ' stroke-dasharray="7 3"', ' stroke-dasharray="2 3"')
    dash = dashes[place // len(COLOURS) % len(dashes)]
    return f'stroke="{COLOURS[place % len(COLOURS)]}" stroke-width="2" fill="none"{dash}'


def _open(identity: str, title: str, height: int = HEIGHT) -> list[str]:
    return [
        f'<svg role="img" aria-labelledby="{identity}" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}">',
        f'<title id="{identity}">{escape(title)}</title>',
    ]


def _text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def _frame(
    across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]], x: str, y: str
) -> list[str]:
    """Grid lines at pixels with their labels, and the names of the axes."""
    right, bottom = LEFT + SIDE, TOP + SIDE
    parts = []
    for place, words in across:
        parts.append(f'<path class="grid" d="M{place:.1f} {TOP}V{bottom}"/>')
        parts.append(_text(place, bottom + 18, words))
    for place, words in up:
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{right}"/>')
        parts.append(_text(LEFT - 7, place + 4, words, "end"))
    middle = TOP + SIDE / 2
    parts.append(_text(LEFT + SIDE / 2, bottom + 40, x))
    parts.append(_text(12, middle, y, more=f' transform="rotate(-90 12 {middle:.1f})"'))
    return parts


def _roc(rows: Sequence[Row], axes: Axes, identity: str) -> str:
    """ROC curves of all attacks on one kind of axes."""
    names = ", ".join(row.name for row in rows)
    parts = _open(identity, f"ROC curves on {axes.kind} axes: {names}")
    ticks = [(axes.xy(tick, tick), percent(tick)) for tick in axes.ticks]
    parts += _frame(
        [(float(x), words) for (x, _), words in ticks],
        [(float(y), words) for (_, y), words in ticks],
        f"False positive rate, {axes.kind}",
        "True positive rate",
    )
    parts.append(f'<path class="chance" d="M{axes.line([0, 1], [0, 1])}"/>')
    begin = [] if axes.decade else [0.0]
    lines = []
    for place, row in enumerate(rows):
        curve = row.measured.shown_curve()
        if curve.low:
            rates = [*curve.fpr, 1, *curve.fpr[::-1]]
            ends = [*curve.high, 1, *curve.low[::-1]]
            parts.append(_band(axes.line(rates, ends), place))
        line = axes.line([*begin, *curve.fpr, 1], [*begin, *curve.tpr, 1])
        lines.append(f'<path d="M{line}" {_stroke(place)}/>')
    return "\n".join([*parts, *reversed(lines), "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """About five round rates from below `low` to above `high`."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if high - low <= 5 * s)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(k * step, 9) for k in range(first, last + 1)]


def _study(steps: Sequence[Step], places: Mapping[str, int], identity: str) -> str:
    """TPR at 10 % FPR over the number of shadow models, with its intervals."""
    title = f"{METRICS[RANKED]} by the number of shadow models"
    counts = sorted({step.shadows for step in steps})
    span = math.log(counts[-1] / counts[0]) or 1.0
    estimates = [step.estimates[RANKED] for step in steps]
    ends = [v for e in estimates for v in (e.low, e.value, e.high) if math.isfinite(v)]
    ticks = _ticks(min(ends), max(ends))
    low, high = ticks[0], ticks[-1]

    def x(shadows: int) -> float:
        return LEFT + 14 + (SIDE - 28) * math.log(shadows / counts[0]) / span

    def y(rate: float) -> float:
        return TOP + SIDE * (1 - (rate - low) / (high - low))

    parts = _open(identity, f"{title}: {', '.join(places)}")
    up = [(y(rate), percent(rate)) for rate in ticks]
    parts += _frame([(x(n), str(n)) for n in counts], up, "Shadow models", METRICS[RANKED])
    lines = []
    for name, place in places.items():
        mine = [step for step in steps if step.attack == name]
        spans = [(x(s.shadows), s.estimates[RANKED]) for s in mine]
        if all(math.isfinite(e.low) for _, e in spans):
            above = [f"{at:.1f} {y(e.high):.1f}" for at, e in spans]
            below = [f"{at:.1f} {y(e.low):.1f}" for at, e in reversed(spans)]
            parts.append(_band("L".join(above + below), place))
        points = [f"{at:.1f} {y(e.value):.1f}" for at, e in spans]
        lines.append(f'<path d="M{"L".join(points)}" {_stroke(place)}/>')
        lines += [
            f'<circle cx="{at:.1f}" cy="{y(e.value):.1f}" r="3" '
            f'fill="{COLOURS[place % len(COLOURS)]}"/>'
            for at, e in spans
        ]
    return "\n".join([*parts, *lines, "</svg>"])
