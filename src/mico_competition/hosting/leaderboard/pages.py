"""Renders the pages of the leaderboard's site by templates.

The templates escape all content of entries.  Only charts, which are drawn from numbers, and the
site's style and script are marked as safe.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mico_competition.competition.table import (
    CHALLENGES,
    SCORED_PHASES,
    TASKS,
    get_phase,
    labels_of,
)
from mico_competition.hosting.leaderboard.charts import Span, draw_range
from mico_competition.hosting.leaderboard.entries import Entry, Rank, latest, ranked
from mico_competition.hosting.leaderboard.form import RANKED, time_text
from mico_competition.hosting.leaderboard.history import History
from mico_competition.scoring.coarse import digits
from mico_competition.scoring.curve import Curve
from mico_competition.scoring.intervals import describe_intervals
from mico_competition.scoring.metrics import TITLES
from mico_competition.scoring.svg import SHOWN_DECADE, Axes, draw_roc

HIDDEN_PHASE = SCORED_PHASES[-1]


@dataclass(frozen=True)
class Board:
    """The entries of one challenge and phase, which are a table of the site."""

    challenge: str
    phase: str
    entries: Sequence[Entry]

    @property
    def id(self) -> str:
        """The id of its section in the page."""
        return f"{self.challenge}-{self.phase}"

    @property
    def title(self) -> str:
        """The challenge's title."""
        task = TASKS.get(self.challenge)
        return task.title if task else self.challenge.upper()

    @property
    def phase_title(self) -> str:
        """The phase's title."""
        return self.phase.capitalize()

    @property
    def labels(self) -> dict[str, str]:
        """The label of each scenario, in the order of display."""
        return labels_of(CHALLENGES[self.challenge])

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The names of the scenarios, in the order of display."""
        return tuple(self.labels)


class Pages:
    """Renders the pages of a site; `opens` is the time when the final phase is shown, or None."""

    def __init__(self, title: str, opens: datetime | None) -> None:
        environment = Environment(
            loader=PackageLoader("mico_competition.hosting.leaderboard", "site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
        )
        style, script = (
            (files("mico_competition.hosting.leaderboard") / "site" / name).read_text(
                encoding="utf-8"
            )
            for name in ("style.css", "table.js")
        )
        environment.globals.update(
            title=title,
            style=Markup(style),
            style_hash=policy_hash(style),
            script=Markup(script),
            script_hash=policy_hash(script),
            opens=_opening(opens),
        )
        self._index = environment.get_template("index.html")
        self._entry = environment.get_template("entry.html")
        self._history = environment.get_template("history.html")

    def render(self, entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
        """Yield (path, text) of all files of the site."""
        found = [
            Board(challenge, phase, mine)
            for challenge in CHALLENGES
            for phase in reversed(SCORED_PHASES)
            if (mine := [e for e in entries if (e.challenge, e.phase) == (challenge, phase)])
        ]
        tables = []
        for board in found:
            placed = ranked(latest(board.entries))
            tables.append(_table(board, placed))
            yield from self._pages_of(board, {entry.stem: rank for rank, entry in placed})
        yield (
            "index.html",
            self._index.render(
                boards=tables,
                challenges=list(dict.fromkeys((b.challenge, b.title) for b in found)),
                phases=list(dict.fromkeys((b.phase, b.phase_title) for b in found)),
            ),
        )

    def _pages_of(self, board: Board, ranks: Mapping[str, Rank]) -> Iterator[tuple[str, str]]:
        """Yield the pages of a board's entries, and of names with many of them."""
        submissions: dict[str, list[Entry]] = {}
        for entry in sorted(board.entries, key=lambda e: (e.submitted, e.stem)):
            submissions.setdefault(entry.key, []).append(entry)
        for history in map(History, submissions.values()):
            for entry in history.entries:
                values = _page(board, entry, ranks, history)
                yield f"{entry.challenge}/{entry.stem}.html", self._entry.render(values)
                data = json.dumps(entry.values, ensure_ascii=False)
                yield f"{entry.challenge}/{entry.stem}.json", f"{data}\n"
            if history.page:
                values = {"board": board, "entry": history.latest.values}
                text = self._history.render(values, history=history.shown(_number))
                yield f"{board.challenge}/{history.page}", text


def policy_hash(text: str) -> str:
    """The name of a style or script in a content security policy: its hash."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _opening(opens: datetime | None) -> dict[str, str] | None:
    if opens is None:
        return None
    text = f"{opens.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return {"phase": HIDDEN_PHASE.capitalize(), "iso": time_text(opens), "text": text}


def _number(entry: Entry, scenario: str | None = None, metric: str = RANKED) -> dict[str, Any]:
    """A score for a cell, with four decimals or those of its step."""
    score = entry.measure(scenario, metric)
    interval = f"[{score.low:.3f}, {score.high:.3f}]" if score.known else ""
    places = digits(entry.step) if entry.step else 4
    return {"value": score.value, "text": f"{score.value:.{places}f}", "interval": interval}


def _table(board: Board, placed: Sequence[tuple[Rank, Entry]]) -> dict[str, Any]:
    """The values of a board for the index."""
    span = Span.of([entry.measure() for _, entry in placed])
    by_scenario = [
        {entry.stem: rank for rank, entry in ranked([entry for _, entry in placed], scenario)}
        for scenario in board.scenarios
    ]
    rows = []
    for rank, entry in placed:
        cells = []
        for scenario in board.scenarios:
            cells.append(_number(entry, scenario))
            cells.append({**_number(entry, scenario, "AUC"), "interval": ""})
        drawn = Markup(draw_range(entry.measure(), span))
        rows.append(
            {
                "ranks": [str(rank), *(str(ranks[entry.stem]) for ranks in by_scenario)],
                "page": f"{entry.challenge}/{entry.stem}.html",
                "name": entry.values["name"],
                "authors": ", ".join(entry.values["authors"]),
                "average": {**_number(entry), "range": drawn},
                "cells": cells,
                "submitted": entry.submitted,
                "link": entry.values["link"],
                "host": urlsplit(entry.values["link"]).hostname,
            }
        )
    return {
        **{name: getattr(board, name) for name in ("id", "title", "phase_title")},
        "challenge": board.challenge,
        "phase": board.phase,
        "scenarios": [{"label": label} for label in board.labels.values()],
        "rows": rows,
        "step": max(entry.step for _, entry in placed),
    }


def _page(
    board: Board, entry: Entry, ranks: Mapping[str, Rank], history: History
) -> dict[str, Any]:
    """The values of an entry's page; `history` is that of its name."""
    return {
        "entry": entry.values,
        "stem": entry.stem,
        "step": entry.step,
        "board": board,
        "average": _number(entry),
        "rank": ranks.get(entry.stem),
        "of": len(ranks),
        "newer": None if history.latest is entry else history.latest,
        "metrics": [
            {
                "title": text,
                "ranked": metric == RANKED,
                "cells": [_number(entry, name, metric) for name in board.scenarios],
            }
            for metric, text in TITLES.items()
        ],
        "scenarios": [_curves(entry, name, label) for name, label in board.labels.items()],
        "intervals": _intervals(board, entry),
        "points": len(entry.values["scenarios"][board.scenarios[0]]["roc"]["fpr"]),
        "history": history.shown(_number, entry),
        "reproduce": _command(entry),
    }


def _intervals(board: Board, entry: Entry) -> str:
    """How the intervals of each scenario were computed; empty if there are none."""
    if entry.step:
        return ""
    results = entry.values["scenarios"]
    counts = {label: results[name]["models"] for name, label in board.labels.items()}
    return describe_intervals(counts)


def _curves(entry: Entry, scenario: str, label: str) -> dict[str, Any]:
    """The two drawings of a scenario's curve."""
    result = entry.values["scenarios"][scenario]
    score = result["scores"][RANKED]
    curve = Curve(result["roc"]["fpr"], result["roc"]["tpr"], [], [])
    tpr, auc = (_number(entry, scenario, metric)["text"] for metric in (RANKED, "AUC"))
    text = f"TPR {tpr} at 10% FPR; AUC {auc}."
    drawings = {
        axes.kind: Markup(
            draw_roc(
                curve,
                score,
                axes,
                f"ROC curve of {label}, {axes.kind} axes",
                text,
                f"{scenario}-{axes.kind}",
            )
        )
        for axes in (Axes(), Axes(SHOWN_DECADE))
    }
    return {"name": scenario, "label": label, "models": result["models"], **drawings}


def _command(entry: Entry) -> str:
    """The command that computes the entry's numbers anew."""
    values = entry.values
    parts = ["mico leaderboard add SUBMISSION --truth DIR", f"--phase {entry.phase}"]
    parts += ["--exact"] * bool(get_phase(entry.challenge, entry.phase).step and not entry.step)
    parts += [f"--name {quote(values['name'])}", f"--submitted {entry.submitted}"]
    return " \\\n    ".join(parts)
