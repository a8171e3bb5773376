"""Draws ROC curves as inline SVG, in numpy and text only.

The pictures take their colours from style rules of the page around them (see report.py), and
never hold more than `MAX_POINTS` points of a curve, at a tenth of a pixel: what a reader sees.
"""

from html import escape
from typing import Any, List, Tuple

import numpy as np

WIDTH, HEIGHT = 400, 390
LEFT, TOP, SIDE = 58, 14, 320
MAX_POINTS = 500
MARK = 0.1
"""The false positive rate that the leaderboard ranks by, marked in every picture."""

SMALLEST_DECADE, LARGEST_DECADE = -5, -3


class Axes:
    """The map from rates to pixels: linear, or logarithmic from 10**`decade` to 1 on both axes."""

    def __init__(self, decade: int = 0) -> None:
        self.decade = decade
        if decade:
            self.ticks = [10.0**k for k in range(decade, 1)]
        else:
            self.ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]

    def _scaled(self, rate: np.ndarray) -> np.ndarray:
        if not self.decade:
            return rate
        return 1 - np.log10(np.maximum(rate, 10.0**self.decade)) / self.decade

    def xy(self, fpr: Any, tpr: Any) -> Tuple[np.ndarray, np.ndarray]:
        """Pixels of points of the curve; rates below the axes' start are drawn on the axes."""
        x = LEFT + SIDE * self._scaled(np.asarray(fpr, dtype=float))
        y = TOP + SIDE * (1 - self._scaled(np.asarray(tpr, dtype=float)))
        return x, y

    def label(self, tick: float) -> str:
        """The tick's text; percent, since that is how false positive rates are spoken of."""
        return "%g%%" % (100 * tick)


def log_axes(fpr: np.ndarray) -> Axes:
    """Logarithmic axes that begin at the decade of the smallest rate that was measured."""
    positive = np.asarray(fpr)[np.asarray(fpr) > 0]
    decade = int(np.floor(np.log10(positive.min()))) if positive.size else LARGEST_DECADE
    return Axes(min(max(decade, SMALLEST_DECADE), LARGEST_DECADE))


def thin(x: np.ndarray, y: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """At most `MAX_POINTS` of the points, ends included, none moved.

    A ROC curve only climbs, so it is at most 2 * SIDE pixels long measured along the axes.  One
    point is kept in each of `MAX_POINTS` - 1 equal pieces of that length, and the last point.
    """
    along = (x - x[0]) + (y[0] - y)
    piece = np.floor(along / (2.0 * SIDE) * (MAX_POINTS - 2))
    keep = np.append(True, piece[1:] != piece[:-1])
    keep[-1] = True
    return x[keep], y[keep]


def _frame(axes: Axes) -> List[str]:
    """Grid, ticks and names of the axes."""
    right, bottom = LEFT + SIDE, TOP + SIDE
    parts = []
    for tick in axes.ticks:
        x, y = axes.xy(tick, tick)
        parts.append(
            '<path class="grid" d="M%.1f %dV%dM%d %.1fH%d"/>' % (x, TOP, bottom, LEFT, y, right)
        )
        label = axes.label(tick)
        parts.append(
            '<text x="%.1f" y="%d" text-anchor="middle">%s</text>' % (x, bottom + 18, label)
        )
        parts.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>' % (LEFT - 7, y + 4, label))
    middle = TOP + SIDE // 2
    parts.append(
        '<text x="%d" y="%d" text-anchor="middle">False positive rate</text>'
        % (LEFT + SIDE // 2, bottom + 40)
    )
    parts.append(
        '<text x="12" y="%d" text-anchor="middle" transform="rotate(-90 12 %d)">'
        "True positive rate</text>" % (middle, middle)
    )
    return parts


def draw_roc(fpr: np.ndarray, tpr: np.ndarray, tpr_at_mark: float, axes: Axes, name: str) -> str:
    """One picture: the curve, chance as a dashed line, and the mark at 10% FPR.

    Args:
        fpr, tpr: the curve, as `roc_curve` gives it.
        tpr_at_mark: the scored TPR at the mark, shown as a dot.
        axes: linear or logarithmic.
        name: what the picture is called by those who cannot see it; escaped here.
    """
    x, y = thin(*axes.xy(fpr, tpr))
    curve = "L".join("%.1f %.1f" % point for point in zip(x, y))
    (start, end), (low, high) = axes.xy(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    mark_x, mark_y = axes.xy(MARK, tpr_at_mark)
    parts = [
        '<svg role="img" aria-label="%s" viewBox="0 0 %d %d" width="%d" height="%d">'
        % (escape(name, quote=True), WIDTH, HEIGHT, WIDTH, HEIGHT)
    ]
    parts += _frame(axes)
    parts.append('<path class="chance" d="M%.1f %.1fL%.1f %.1f"/>' % (start, low, end, high))
    parts.append('<path class="mark" d="M%.1f %dV%d"/>' % (mark_x, TOP, TOP + SIDE))
    # At the bottom, right of the line: below chance, where no curve worth a look passes.
    parts.append('<text x="%.1f" y="%d">10%% FPR</text>' % (mark_x + 6, TOP + SIDE - 8))
    parts.append('<path class="curve" d="M%s"/>' % curve)
    parts.append('<circle class="dot" cx="%.1f" cy="%.1f" r="4.5"/>' % (mark_x, mark_y))
    parts.append("</svg>")
    return "\n".join(parts)
