"""Draws the charts of the benchmark's site as inline SVG: attack against epsilon, and ROC curves.

The page's style gives the colours of text, grid and limits. The charts hold numbers and names of
scenarios only, no text of an entry but names of attacks, which are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mico_competition.evaluation.page import COLOURS
from mico_competition.hosting.leaderboard.charts import Span
from mico_competition.hosting.leaderboard.entries import Measure
from mico_competition.scoring.curve import Curve, shown_curve
from mico_competition.scoring.metrics import percent
from mico_competition.scoring.svg import HEIGHT, LEFT, SIDE, TOP, WIDTH, Axes

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 340, 56, 10, 12, 50
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Line:
    """An attack in a chart: [value, low, high] at each epsilon, None where it was not measured."""

    name: str
    points: Sequence[Sequence[float] | None]
    colour: str = ""


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    """A text of a picture, escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def gain_bar(measure: Measure, span: Span) -> str:
    """A gain's interval as a bar, with a line at its value, and a thin one at 0."""
    low, value, high = (span.at(v, 2, 198) for v in (measure.low, measure.value, measure.high))
    zero = span.at(0.0, 2, 198)
    return (
        '<svg class="bar" viewBox="0 0 200 16" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="zero" d="M{zero:.1f} 0v16"/><path class="track" d="M0 8h200"/>'
        f'<rect x="{low:.1f}" y="4" width="{max(high - low, 2):.1f}" height="8" rx="2"/>'
        f'<path class="value" d="M{value:.1f} 1v14"/></svg>'
    )


def epsilon_chart(
    title: str,
    labels: Sequence[str],
    limits: Sequence[float | None],
    others: Sequence[Line],
    lines: Sequence[Line],
) -> str:
    """Attacks against epsilon, with what the mechanism forbids as a band.

    Args:
        title: for those who cannot see it.
        labels: of the epsilons, the most private first.
        limits: the largest TPR that the mechanism permits at each epsilon, None without privacy.
        others: attacks that are shown as faint dots.
        lines: attacks that are shown as lines with intervals.
    """
    name = "chart-" + "".join(c if c.isalnum() else "-" for c in title.lower())[:60]
    parts = [
        f'<svg class="epsilon" role="img" aria-labelledby="{name}" viewBox="0 0 {_WIDTH} '
        f'{_HEIGHT}"><title id="{name}">{escape(title)}</title>'
    ]
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    places = [_LEFT + (right - _LEFT) * (i + 0.5) / len(labels) for i in range(len(labels))]
    parts += _forbidden(places, limits)
    for tick in _TICKS:
        parts.append(f'<path class="grid" d="M{_LEFT} {_y(tick):.1f}H{right}"/>')
        parts.append(text(_LEFT - 7, _y(tick) + 4, percent(tick), "end"))
    parts += [text(x, bottom + 18, label) for x, label in zip(places, labels)]
    parts.append(text((_LEFT + right) / 2, _HEIGHT - 6, "Privacy of training"))
    middle = (_TOP + bottom) / 2
    turned = f' transform="rotate(-90 12 {middle:.1f})"'
    parts.append(text(12, middle, "TPR at 10% FPR", more=turned))
    parts.append(f'<path class="chance" d="M{_LEFT} {_y(0.1):.1f}H{right}"/>')
    for line in others:
        parts += [
            f'<circle class="other" cx="{x:.1f}" cy="{_y(point[0]):.1f}" r="2.5"/>'
            for x, point in zip(places, line.points)
            if point is not None
        ]
    for number, line in enumerate(lines):
        parts += _attack(line, places, 7 * (number - (len(lines) - 1) / 2))
    return "\n".join([*parts, "</svg>"])


def _y(rate: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - rate)


def _forbidden(places: Sequence[float], limits: Sequence[float | None]) -> list[str]:
    """A band above the limit of each private scenario, and the limit as a line."""
    parts = []
    half = (places[1] - places[0]) / 2 - 4 if len(places) > 1 else 100.0
    for x, limit in zip(places, limits):
        if limit is not None:
            left, top = x - half, _y(1)
            height = max(0.0, _y(limit) - top)
            parts.append(
                f'<rect class="forbidden" x="{left:.1f}" y="{top:.1f}" width="{2 * half:.1f}" '
                f'height="{height:.1f}"/>'
                f'<path class="ceiling" d="M{left:.1f} {_y(limit):.1f}h{2 * half:.1f}"/>'
            )
    return parts


def _attack(line: Line, places: Sequence[float], aside: float) -> list[str]:
    """One attack: its points with their intervals, joined by a line; moved `aside` to be seen."""
    known = [(x + aside, point) for x, point in zip(places, line.points) if point is not None]
    path = "L".join(f"{x:.1f} {_y(point[0]):.1f}" for x, point in known)
    stroke = f'stroke="{line.colour}"'
    parts = [f'<path d="M{path}" {stroke} stroke-width="1.5" fill="none" stroke-opacity=".55"/>']
    for x, (value, low, high) in known:
        if low is not None and high is not None:
            parts.append(
                f'<path d="M{x:.1f} {_y(low):.1f}V{_y(high):.1f}" {stroke} stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{x:.1f}" cy="{_y(value):.1f}" r="4" fill="{line.colour}"/>')
    return parts


def curve_of(truth: np.ndarray, ranks: np.ndarray) -> Curve:
    """The curve of ranks at the rates that pages show."""
    order = np.argsort(-ranks.ravel().astype(np.int64), kind="stable")
    member, level = truth.ravel()[order], ranks.ravel()[order]
    ends = np.flatnonzero(np.append(level[1:] != level[:-1], True))
    tpr = np.append(0, np.cumsum(member)[ends] / member.sum())
    fpr = np.append(0, np.cumsum(~member)[ends] / (~member).sum())
    counts = {"members": int(member.sum()), "nonmembers": int((~member).sum())}
    return shown_curve({"fpr": fpr, "tpr": tpr}, counts)


def roc_chart(title: str, identity: str, curves: Mapping[str, tuple[Curve, Curve]]) -> str:
    """ROC curves on logarithmic axes, with the winner's formula of each scenario dashed.

    Args:
        title: for those who cannot see it.
        identity: a word that no other picture of the page has.
        curves: scenario -> curves of the attack and of the winner's formula.
    """
    axes = Axes(-3)
    right, bottom = LEFT + SIDE, TOP + SIDE
    parts = [
        f'<svg class="roc" role="img" aria-labelledby="{identity}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<title id="{identity}">{escape(title)}</title>'
    ]
    for tick in axes.ticks:
        x, y = (float(v) for v in axes.xy(tick, tick))
        grid = f"M{x:.1f} {TOP}V{bottom}M{LEFT} {y:.1f}H{right}"
        parts.append(f'<path class="grid" d="{grid}"/>')
        parts.append(text(x, bottom + 18, percent(tick)))
        parts.append(text(LEFT - 7, y + 4, percent(tick), "end"))
    middle = TOP + SIDE / 2
    parts.append(text(LEFT + SIDE / 2, bottom + 40, "False positive rate"))
    turned = f' transform="rotate(-90 12 {middle:.1f})"'
    parts.append(text(12, middle, "True positive rate", more=turned))
    parts.append(f'<path class="chance" d="M{axes.line([0, 1], [0, 1])}"/>')
    for (attack, winner), colour in zip(curves.values(), scenario_colours()):
        for curve, dash in ((winner, ' stroke-dasharray="4 3"'), (attack, "")):
            line = axes.line([*curve.fpr, 1], [*curve.tpr, 1])
            width = 1.4 if dash else 2.2
            parts.append(
                f'<path d="M{line}" stroke="{colour}" stroke-width="{width}" fill="none"{dash}/>'
            )
    return "\n".join([*parts, "</svg>"])


def scenario_colours() -> Sequence[str]:
    """Colours of scenarios, in their order; readable on light and dark pages."""
    return COLOURS[1:]
