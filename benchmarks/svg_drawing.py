"""Drawings as SVG text, for pages and README: legible on white and on dark paper, and on a phone.

Widths are some 560 units, and text has 13 units or more, so that a phone shows letters of 9 pixels.
The colours follow the reader's wish (prefers-color-scheme), and each drawing has its own paper, so
that it can be read where a page chooses otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

STYLE = """
svg{--paper:#fff;--ink:#1c2024;--soft:#59626e;--line:#d9dee4;--blue:#1558b0;--rust:#a8480f;
--green:#2f6d22;--wall:#8b2f8f}
@media (prefers-color-scheme:dark){svg{--paper:#16181b;--ink:#eceef0;--soft:#a9b2bd;--line:#3a4048;
--blue:#7fb4ff;--rust:#ff9c66;--green:#86cf74;--wall:#e39be6}}
text{fill:var(--ink);font:15px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.small{font-size:13px}.halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px}.large{font-size:18px}.soft{fill:var(--soft)}.strong{font-weight:650}.grid{stroke:var(--line)}
.blue{fill:var(--blue)}.rust{fill:var(--rust)}.green{fill:var(--green)}.wall{fill:var(--wall)}
.ink{fill:var(--ink)}.none{fill:var(--paper)}
.s-blue{stroke:var(--blue)}.s-rust{stroke:var(--rust)}.s-green{stroke:var(--green)}
.s-wall{stroke:var(--wall)}.s-soft{stroke:var(--soft)}.s-ink{stroke:var(--ink)}
"""
RADIUS = 5.0


@dataclass
class Drawing:
    """A picture that is being drawn.

    Attributes:
        width, height: in units; the picture scales with the page.
        title: one sentence that says what is shown, for readers who do not see it.
    """

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        """Words whose base line is at y."""
        place = f'x="{x:.1f}" y="{y:.1f}"'
        place += f' text-anchor="{anchor}"' if anchor != "start" else ""
        place += f' class="{style}"' if style else ""
        self.parts.append(f"<text {place}>{escape(words, quote=False)}</text>")

    def line(
        self, x: float, y: float, to_x: float, to_y: float, style: str, more: str = ""
    ) -> None:
        """A straight line; `more` holds further attributes."""
        path = f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"
        self.parts.append(f'<path class="{style}" d="{path}"{" " + more if more else ""}/>')

    def mark(
        self, x: float, y: float, colour: str, shape: str = "circle", full: bool = True
    ) -> None:
        """A circle, square, diamond or triangle; an empty one has paper inside."""
        r, d = RADIUS, RADIUS + 1
        path = {
            "circle": f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
            "square": f"M{x - r + 0.5:.1f} {y - r + 0.5:.1f}h{2 * r - 1}v{2 * r - 1}h{1 - 2 * r}z",
            "diamond": f"M{x - d:.1f} {y:.1f}l{d} {-d}l{d} {d}l{-d} {d}z",
            "triangle": f"M{x - r:.1f} {y + r - 1:.1f}h{2 * r}l{-r} {1 - 2 * r}z",
        }[shape]
        inside = colour if full else "none"
        self.parts.append(f'<path class="{inside} s-{colour}" stroke-width="2" d="{path}"/>')

    def whisker(self, low: float, high: float, y: float, colour: str) -> None:
        """A horizontal interval."""
        self.line(low, y, high, y, f"s-{colour}", 'stroke-width="2.5"')

    def svg(self) -> str:
        """The whole picture."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img">'
        )
        lines = [head, f"<title>{escape(self.title, quote=False)}</title>"]
        lines.append(f"<style>{STYLE.strip()}</style>")
        paper = f'<rect class="none" width="{self.width}" height="{self.height}"/>'
        return "\n".join([*lines, paper, *self.parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from `low` to `high`, drawn from `left` to `right`; perhaps logarithmic."""

    low: float
    high: float
    left: float
    right: float
    logarithmic: bool = False

    def at(self, number: float) -> float:
        """Where a number lies; beyond an end, at that end."""
        ends = (self.low, self.high)
        number = min(max(number, self.low), self.high)
        one, low, high = (
            (math.log(n) for n in (number, *ends)) if self.logarithmic else (number, *ends)
        )
        return self.left + (one - low) / (high - low) * (self.right - self.left)

    def draw(
        self, on: Drawing, ticks: Sequence[float], top: float, bottom: float, unit: str = ""
    ) -> None:
        """Grid lines with their numbers below."""
        for tick in ticks:
            x = self.at(tick)
            on.line(x, top, x, bottom, "grid")
            on.text(x, bottom + 18, f"{tick:,g}{unit}", "small soft", "middle")
