"""Draws ROC curves as inline SVG, with numpy and text only.

The style rules of the surrounding page give the colours (page.py), and the pictures hold only the
part of a curve that `curve.shown_curve` allows.
"""

from html import escape
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .curve import Curve
from .metrics import percent

Ceilings = Mapping[str, Tuple[Any, Any]]

WIDTH, HEIGHT = 400, 390
LEFT, TOP, SIDE = 58, 14, 320
MARK = 0.1
"""The false positive rate that the leaderboard ranks by, marked in every picture."""

SHOWN_DECADE = -3
"""Logarithmic axes of the page begin here: the smallest rate at which there is a score."""

SMALLEST_DECADE, LARGEST_DECADE = -5, -3


class Axes:
    """The map from rates to pixels: linear, or logarithmic from 10**`decade` to 1 on both axes."""

    def __init__(self, decade: int = 0) -> None:
        self.decade = decade
        self.kind = "logarithmic" if decade else "linear"
        if decade:
            self.ticks = [10.0**k for k in range(decade, 1)]
        else:
            self.ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]

    def _scaled(self, rate: np.ndarray) -> np.ndarray:
        if not self.decade:
            return rate
        along: np.ndarray = 1 - np.log10(np.maximum(rate, 10.0**self.decade)) / self.decade
        return along

    def xy(self, fpr: Any, tpr: Any) -> Tuple[np.ndarray, np.ndarray]:
        """The pixels of points of the curve; rates below the axes' start are drawn on the axes."""
        x = LEFT + SIDE * self._scaled(np.asarray(fpr, dtype=float))
        y = TOP + SIDE * (1 - self._scaled(np.asarray(tpr, dtype=float)))
        return x, y

    def line(self, fpr: Sequence[float], tpr: Sequence[float]) -> str:
        """A path's points, to a tenth of a pixel.

        >>> Axes().line([0, 1], [0, 1])
        '58.0 334.0L378.0 14.0'
        """
        return "L".join("%.1f %.1f" % point for point in zip(*self.xy(fpr, tpr)))


def log_axes(fpr: np.ndarray) -> Axes:
    """Logarithmic axes that begin at the decade of one non-member's share.

    So curves with equally many non-members have the same axes.
    """
    steps = np.diff(np.unique(fpr))
    decade = int(np.floor(np.log10(steps.min() * (1 + 1e-9)))) if steps.size else LARGEST_DECADE
    return Axes(min(max(decade, SMALLEST_DECADE), LARGEST_DECADE))


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return '<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>' % (x, y, anchor, more, text)


def _frame(axes: Axes) -> List[str]:
    """The grid, ticks and names of the axes."""
    right, bottom, middle = LEFT + SIDE, TOP + SIDE, TOP + SIDE / 2
    parts = []
    for tick in axes.ticks:
        x, y = map(float, axes.xy(tick, tick))
        parts.append(
            '<path class="grid" d="M%.1f %dV%dM%d %.1fH%d"/>' % (x, TOP, bottom, LEFT, y, right)
        )
        parts.append(_text(x, bottom + 18, percent(tick)))
        parts.append(_text(LEFT - 7, y + 4, percent(tick), "end"))
    parts.append(_text(LEFT + SIDE / 2, bottom + 40, "False positive rate"))
    turned = ' transform="rotate(-90 12 %.1f)"' % middle
    parts.append(_text(12, middle, "True positive rate", more=turned))
    return parts


def _band(curve: Curve, axes: Axes) -> List[str]:
    """The area of the intervals, if there are any."""
    if not curve.low:
        return []
    rates, ends = [*curve.fpr, 1, *curve.fpr[::-1]], [*curve.high, 1, *curve.low[::-1]]
    outline = axes.line(rates, ends)
    return ['<path class="band" d="M%sZ"/>' % outline]


def _ceilings(ceilings: Ceilings, axes: Axes) -> List[str]:
    """A line for each limit, in the given order."""
    parts = []
    for i, (fpr, tpr) in enumerate(ceilings.values()):
        fpr, tpr = np.asarray(fpr), np.asarray(tpr)
        shown = fpr >= (10.0**axes.decade if axes.decade else 0.0)
        parts.append(
            '<path class="ceiling ceiling%d" d="M%s"/>'
            % (i % 3, axes.line(fpr[shown].tolist(), tpr[shown].tolist()))
        )
    return parts


def ceiling_key(ceilings: Ceilings) -> str:
    """The key of the lines of limits, with the TPR that each allows at the mark.

    It is an HTML list, empty if there are no limits.
    """
    lines = [
        '<li><svg viewBox="0 0 34 12" aria-hidden="true"><path class="ceiling ceiling%d" '
        'd="M1 6H33"/></svg> %s: at most %.1f%% at %s FPR</li>'
        % (i % 3, escape(name), 100 * float(np.interp(MARK, fpr, tpr)), percent(MARK))
        for i, (name, (fpr, tpr)) in enumerate(ceilings.items())
    ]
    return '<ul class="key">%s</ul>' % "".join(lines) if lines else ""


def draw_roc(
    curve: Curve,
    tpr_at_mark: float,
    axes: Axes,
    name: str,
    described: str,
    identity: str,
    ceilings: Optional[Ceilings] = None,
) -> str:
    """Draw the curve with its band, chance as a dashed line, and the mark at 10% FPR.

    Args:
        curve: what may be shown of the curve.
        tpr_at_mark: the scored TPR at the mark, shown as a dot.
        axes: linear or logarithmic.
        name: a short name of the picture, for those who cannot see it; escaped here.
        described: what it shows, in a sentence, for the same readers; escaped here.
        identity: a word that no other picture of the page has.
        ceilings: name -> (false positive rates, the largest TPR that privacy allows there).
    """
    mark_x, mark_y = map(float, axes.xy(MARK, tpr_at_mark))
    parts = [
        '<svg role="img" class="roc" aria-labelledby="%s-name %s-text" viewBox="0 0 %d %d" '
        'width="%d" height="%d" data-box="%d %d %d" data-decade="%d">'
        % (identity, identity, WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT, TOP, SIDE, axes.decade),
        '<title id="%s-name">%s</title>' % (identity, escape(name)),
        '<desc id="%s-text">%s</desc>' % (identity, escape(described)),
    ]
    parts += _frame(axes)
    parts += _band(curve, axes)
    parts.append('<path class="chance" d="M%s"/>' % axes.line([0, 1], [0, 1]))
    parts.append('<path class="mark" d="M%.1f %dV%d"/>' % (mark_x, TOP, TOP + SIDE))
    # At the bottom, right of the line: below chance, where no useful curve passes.
    parts.append(_text(mark_x + 6, TOP + SIDE - 8, percent(MARK) + " FPR", "start"))
    parts += _ceilings(ceilings or {}, axes)
    begin = [] if axes.decade else [0.0]  # logarithmic axes have no 0
    line = axes.line([*begin, *curve.fpr, 1], [*begin, *curve.tpr, 1])
    parts.append('<path class="curve" d="M%s"/>' % line)
    parts.append('<circle class="dot" cx="%.1f" cy="%.1f" r="4.5"/>' % (mark_x, mark_y))
    # The page's script moves and shows it; without the script it is invisible.
    parts.append('<g class="reading"><path d="M0 0"/><circle r="5"/></g>')
    parts.append("</svg>")
    return "\n".join(parts)
