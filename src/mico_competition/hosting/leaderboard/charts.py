"""Draws the leaderboard's small charts as inline SVG: intervals, and scores over time.

The page's style gives the colours.  The charts contain only numbers, and no text of an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil, floor, log10

from mico_competition.hosting.leaderboard.entries import Measure
from mico_competition.hosting.leaderboard.form import parse_time

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 240, 56, 12, 16, 30


@dataclass(frozen=True)
class Span:
    """The range of values of the axis that all charts of a table share."""

    low: float
    high: float

    @classmethod
    def of(cls, measures: Sequence[Measure]) -> Span:
        """The range from the lowest end of an interval to the highest; it is never empty."""
        low, high = min(m.low for m in measures), max(m.high for m in measures)
        room = (high - low) * 0.02 or 0.01
        return cls(low - room, high + room)

    def at(self, value: float, start: float, end: float) -> float:
        """The position of `value` on an axis from `start` to `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)

    def ticks(self) -> list[float]:
        """Three to six round numbers inside the range."""
        rough = (self.high - self.low) / 4
        unit = 10.0 ** floor(log10(rough))
        step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
        first = ceil(self.low / step)
        return [step * i for i in range(first, floor(self.high / step) + 1)]


def draw_range(measure: Measure, span: Span) -> str:
    """Draw an interval as a line with a dot for the score."""
    low, value, high = (span.at(v, 3, 97) for v in (measure.low, measure.value, measure.high))
    return (
        '<svg class="range" viewBox="0 0 100 10" aria-hidden="true">'
        '<line class="track" x1="0" y1="5" x2="100" y2="5"/>'
        f'<line x1="{low:.1f}" y1="5" x2="{high:.1f}" y2="5"/>'
        f'<circle cx="{value:.1f}" cy="5" r="3.2"/></svg>'
    )


def draw_history(points: Sequence[tuple[str, Measure]], here: int) -> str:
    """Draw scores over time, each with its interval; empty if there are fewer than two.

    Args:
        points: (time of submission, score), the earliest first.
        here: the index of the point that the page is about.
    """
    if len(points) < 2:
        return ""
    span = Span.of([measure for _, measure in points])
    times = [parse_time(when) for when, _ in points]
    best = max(measure.value for _, measure in points)
    label = (
        f"Average TPR at 10% FPR of {len(points)} submissions over time: first "
        f"{points[0][1].value:.4f}, latest {points[-1][1].value:.4f}, best {best:.4f}"
    )
    parts = [
        f'<svg class="history" role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        *_axes(span, times),
    ]
    spots = [
        (_x(when, times), _y(measure.value, span), measure)
        for when, (_, measure) in zip(times, points)
    ]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in spots)
    parts.append(f'<path class="curve" d="M{line}"/>')
    for i, (x, y, measure) in enumerate(spots):
        ends = f'y1="{_y(measure.low, span):.1f}" y2="{_y(measure.high, span):.1f}"'
        parts.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{6 if i == here else 3.5}"/>'
        )
    return "\n".join([*parts, "</svg>"])


def _axes(span: Span, times: Sequence[datetime]) -> list[str]:
    parts = []
    for tick in span.ticks():
        y = _y(tick, span)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for when, anchor in ((times[0], "start"), (times[-1], "end")):
        parts.append(
            f'<text x="{_x(when, times):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">'
            f"{when:%Y-%m-%d}</text>"
        )
    return parts


def _x(when: datetime, times: Sequence[datetime]) -> float:
    seconds = (times[-1] - times[0]).total_seconds()
    share = (when - times[0]).total_seconds() / seconds if seconds else 0.5
    return _LEFT + 12 + share * (_WIDTH - _RIGHT - _LEFT - 24)


def _y(value: float, span: Span) -> float:
    return span.at(value, _HEIGHT - _BOTTOM, _TOP)
