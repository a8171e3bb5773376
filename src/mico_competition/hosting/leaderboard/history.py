"""The history of submissions under one name, for an entry's page or a page of its own.

An entry's page shows at most `NEAR` other submissions, so that the site grows linearly: if a
thousand submissions of one name were on each other's pages, they would take 300 MB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from mico_competition.hosting.leaderboard.charts import draw_history
from mico_competition.hosting.leaderboard.entries import Entry

NEAR = 20


@dataclass(frozen=True)
class History:
    """All submissions of one name, challenge and phase, the earliest first."""

    entries: Sequence[Entry]

    @property
    def latest(self) -> Entry:
        """The submission that counts."""
        return self.entries[-1]

    @property
    def page(self) -> str | None:
        """The path, below the challenge's, of the page with all of them, if there is one."""
        if len(self.entries) <= NEAR:
            return None
        digest = hashlib.sha256(self.latest.key.encode()).hexdigest()[:16]
        return f"all/{self.latest.phase}-{digest}.html"

    @cached_property
    def _places(self) -> dict[str, int]:
        return {entry.stem: place for place, entry in enumerate(self.entries)}

    def shown(
        self, number: Callable[[Entry], dict[str, Any]], own: Entry | None = None
    ) -> dict[str, Any]:
        """The rows of a page's table, the latest first, and its chart.

        Args:
            number: formats a score for a cell.
            own: the entry of the page, shown with those near it in time; None for all.
        """
        here = len(self.entries) - 1 if own is None else self._places[own.stem]
        first = 0 if own is None else max(0, min(here - NEAR // 2, len(self.entries) - NEAR))
        near = self.entries[first:] if own is None else self.entries[first : first + NEAR]
        lines = [
            {
                "stem": entry.stem,
                "when": f"{entry.submitted[:10]} {entry.submitted[11:16]} UTC",
                "this": entry is own,
                "counts": entry is self.latest,
                **number(entry),
            }
            for entry in reversed(near)
        ]
        points = [(entry.submitted, entry.measure()) for entry in near]
        return {
            "lines": lines,
            "chart": Markup(draw_history(points, here - first)),
            "total": len(self.entries),
            "page": self.page,
        }
