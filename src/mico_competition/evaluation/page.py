"""The page of an evaluation: one HTML file with tables, ROC curves and the study's chart.

It is made as the scoring report is (`scoring/page.py`): nothing is fetched, and of a curve only
what `scoring.curve` lets out is shown, so that no label can be read off a page that an organiser
publishes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from mico_competition.evaluation.evaluate import RANKED, Evaluation, Row
from mico_competition.evaluation.measure import METRICS
from mico_competition.evaluation.study import Step
from mico_competition.evaluation.table import cell, headline, label
from mico_competition.scoring.curve import shown_curve
from mico_competition.scoring.page import document
from mico_competition.scoring.svg import HEIGHT, LEFT, SIDE, TOP, WIDTH, Axes, percent

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
"""Of curves: readable on the page's light and dark paper; the first is the attack compared with."""

_ROW = 22  # pixels of a line of a legend

Pair = tuple[Evaluation, Sequence[Step]]


def to_html(found: Sequence[Pair]) -> str:
    """The whole page as text; ValueError if there is nothing to show."""
    if not found:
        raise ValueError("Expected at least one evaluation to make a page of.")
    body = [f"<h1>{TITLE}</h1>"]
    body += [
        _section(number, evaluation, steps) for number, (evaluation, steps) in enumerate(found)
    ]
    return document(TITLE, "\n".join(body))


def _section(number: int, found: Evaluation, steps: Sequence[Step]) -> str:
    base = found.rows[0]
    parts = [
        f"<section>\n<h2>{escape(found.scenario)}</h2>",
        f"<p>{escape(headline(found))}.</p>",
        _table(
            "TPR in %, with 95% intervals from a bootstrap over models",
            [(label(row), [cell(m, row.measured[m]) for m in METRICS]) for row in found.rows],
        ),
    ]
    gains = [(row.name, row.gain) for row in found.rows if row.gain is not None]
    if gains:
        caption = f"Gain over {label(base)}, paired; * where the interval excludes 0"
        rows = [(name, [cell(m, gain[m], True) for m in METRICS]) for name, gain in gains]
        parts.append(_table(caption, rows))
    curves = [_roc(found.rows, axes, f"roc{number}-{axes.kind}") for axes in (Axes(-3), Axes())]
    places = {row.name: place for place, row in enumerate(found.rows)}
    parts.append(_plots(curves, places, f"lines{number}"))
    if steps:
        rows = [
            (f"{s.attack}, {s.shadows} shadow models", [cell(m, s.estimates[m]) for m in METRICS])
            for s in steps
        ]
        parts.append(_table("By the number of shadow models (random choices, averaged)", rows))
        studied = {step.attack: places[step.attack] for step in steps}
        parts.append(_plots([_study(steps, studied, f"study{number}")], studied, f"who{number}"))
    return "\n".join([*parts, "</section>"])


def _table(caption: str, rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Attack", *METRICS.values()))
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_cell, cells))}</tr>'
        for name, cells in rows
    ]
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">\n'
        f'<table class="scores">\n<caption>{escape(caption)}</caption>\n<thead><tr>{heads}</tr>'
        f"</thead>\n<tbody>\n{chr(10).join(lines)}\n</tbody>\n</table>\n</div>"
    )


def _cell(words: str) -> str:
    """A table's cell, the interval in small below the number."""
    small = words.replace("[", '<span class="range">[').replace("]", "]</span>")
    return f"<td>{small}</td>"


def _plots(pictures: Sequence[str], places: Mapping[str, int], identity: str) -> str:
    """Pictures side by side, and a picture of which line is whose."""
    height = _ROW * len(places)
    parts = _open(identity, f"Lines: {', '.join(places)}", height)
    for i, (name, place) in enumerate(places.items()):
        y = _ROW * (i + 0.5)
        parts.append(f'<path d="M{LEFT} {y:.1f}h28" {_stroke(place)}/>')
        parts.append(_text(LEFT + 36, y + 4, name, "start"))
    legend = "\n".join([*parts, "</svg>"])
    figures = "".join(f"<figure>{picture}</figure>" for picture in (*pictures, legend))
    return f'<div class="plots">{figures}</div>'


def _stroke(place: int) -> str:
    """The look of a line: colours come round again with dashes."""
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
    """Grid lines at pixels with their words, and the names of the axes."""
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
    ticks = [(*map(float, axes.xy(tick, tick)), percent(tick)) for tick in axes.ticks]
    parts += _frame(
        [(x, words) for x, _, words in ticks],
        [(y, words) for _, y, words in ticks],
        f"False positive rate, {axes.kind}",
        "True positive rate",
    )
    parts.append(f'<path class="chance" d="M{axes.line([0, 1], [0, 1])}"/>')
    begin = [] if axes.decade else [0.0]
    for place, row in enumerate(rows):
        found = row.measured
        counts = {"members": found.members, "nonmembers": found.nonmembers}
        curve = shown_curve({"fpr": found.fpr, "tpr": found.tpr}, counts)
        line = axes.line([*begin, *curve.fpr, 1], [*begin, *curve.tpr, 1])
        parts.append(f'<path d="M{line}" {_stroke(place)}/>')
    return "\n".join([*parts, "</svg>"])


def _study(steps: Sequence[Step], places: Mapping[str, int], identity: str) -> str:
    """TPR at 10 % FPR over the number of shadow models, with its intervals."""
    title = f"{METRICS[RANKED]} by the number of shadow models"
    counts = sorted({step.shadows for step in steps})
    span = math.log(counts[-1] / counts[0]) or 1.0
    estimates = [step.estimates[RANKED] for step in steps]
    ends = [v for e in estimates for v in (e.low, e.value, e.high) if math.isfinite(v)]
    low, high = math.floor(20 * min(ends)) / 20, math.ceil(20 * max(ends)) / 20
    high = high if high > low else low + 0.05

    def x(shadows: int) -> float:
        return LEFT + 14 + (SIDE - 28) * math.log(shadows / counts[0]) / span

    def y(rate: float) -> float:
        return TOP + SIDE * (1 - (rate - low) / (high - low))

    parts = _open(identity, f"{title}: {', '.join(places)}")
    up = [(y(rate), percent(rate)) for rate in np.linspace(low, high, 6)]
    parts += _frame([(x(n), str(n)) for n in counts], up, "Shadow models", METRICS[RANKED])
    for name, place in places.items():
        mine = [step for step in steps if step.attack == name]
        points = "L".join(f"{x(s.shadows):.1f} {y(s.estimates[RANKED].value):.1f}" for s in mine)
        parts.append(f'<path d="M{points}" {_stroke(place)}/>')
        for step in mine:
            estimate = step.estimates[RANKED]
            if math.isfinite(estimate.low):
                ends_at = f"M{x(step.shadows):.1f} {y(estimate.low):.1f}V{y(estimate.high):.1f}"
                parts.append(f'<path d="{ends_at}" {_stroke(place)} stroke-opacity="0.5"/>')
    return "\n".join([*parts, "</svg>"])
