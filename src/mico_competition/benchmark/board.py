"""What the pages of the benchmark's site show of entries: ranked tables, charts, and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup

from mico_competition.attacks.registry import BLACK_BOX, WHITE_BOX
from mico_competition.benchmark.entry import (
    ENTRIES,
    Entry,
    held_ranks,
    read_tier,
    stem_of,
    truth_in,
)
from mico_competition.benchmark.pictures import Line, epsilon_chart, gain_bar
from mico_competition.benchmark.ranking import ranked
from mico_competition.benchmark.ranks import unpack
from mico_competition.benchmark.tiers import Tier
from mico_competition.evaluation.measure import METRICS, RANKED
from mico_competition.evaluation.page import COLOURS
from mico_competition.evaluation.table import number
from mico_competition.hosting.leaderboard.charts import Span
from mico_competition.hosting.leaderboard.entries import Measure
from mico_competition.scoring.metrics import percent

NO_PRIVACY = "none"
_STANDING = ("threshold", "lira-online")  # drawn in every chart, where they are measured

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Board:
    """The entries of a tier; `mine` are names of entries to mark."""

    tier: Tier
    entries: Sequence[Entry]
    mine: frozenset[str] = frozenset()

    @cached_property
    def scenarios(self) -> Mapping[str, Mapping[str, Any]]:
        """Each scenario's fields in the first entry, which all entries of one tier share."""
        found: Mapping[str, Mapping[str, Any]] = self.entries[0].values["scenarios"]
        return found

    @cached_property
    def usual_fleet(self) -> tuple[str, ...]:
        """The fleet that most entries were measured on."""
        fleets = [entry.fleet for entry in self.entries]
        return max(fleets, key=fleets.count)

    @cached_property
    def held_ranks(self) -> Mapping[str, str]:
        """Checksum -> packed ranks, to which entries point: of committed entries, and of these."""
        return held_ranks([*read_tier(ENTRIES, self.tier.name), *self.entries])

    def privacy(self, scenario: str) -> str:
        """The scenario's epsilon as a word for filters."""
        epsilon = self.scenarios[scenario]["epsilon"]
        return NO_PRIVACY if epsilon is None else f"{epsilon:g}"

    def label(self, scenario: str) -> str:
        """The scenario's privacy for readers."""
        word = self.privacy(scenario)
        return "no privacy" if word == NO_PRIVACY else f"ε = {word}"

    def ranks(self, scenario: str | None = None) -> dict[str, str]:
        """Name -> rank in a scenario, or by the mean."""
        return {one.entry.name: one.rank for one in ranked(self.entries, scenario)}

    def table(self, scenario: str | None = None) -> list[dict[str, Any]]:
        """The rows of a ranked table, of a scenario or of the mean."""
        placed = ranked(self.entries, scenario)
        gains = [_measure(one.entry.gain(RANKED, scenario)) for one in placed]
        span = Span.of([*gains, Measure(0.0, 0.0, 0.0)])
        return [
            {
                "rank": one.rank,
                "name": one.entry.name,
                "stem": stem_of(one.entry.name),
                "access": one.entry.access,
                "mine": one.entry.name in self.mine,
                "other": one.entry.fleet != self.usual_fleet,
                "bar": Markup(gain_bar(gain, span)),
                **row_of(one.entry, scenario),
            }
            for one, gain in zip(placed, gains)
        ]

    def on_all_records(self) -> list[dict[str, Any]]:
        """What was measured on all records of fleets of the same recipes, the best gain first."""
        text = (files(__package__) / "all_records.json").read_text(encoding="utf-8")
        known = json.loads(text)
        return [
            {
                "scenario": name,
                **row,
                "gain": cell(row["gain"], gain=True),
                "tpr": cell(row["tpr"]),
            }
            for name in self.scenarios
            if name in known
            for row in sorted(known[name]["attacks"], key=lambda row: -row["gain"][0])
        ]

    @cached_property
    def tracks(self) -> dict[str, list[str]]:
        """Challenge -> its scenarios, the most private first."""
        found: dict[str, list[str]] = {}
        for name in self.scenarios:
            found.setdefault(name.rsplit("_", 1)[0], []).append(name)
        return {track: sorted(names, key=self._epsilon) for track, names in found.items()}

    def _epsilon(self, scenario: str) -> float:
        epsilon = self.scenarios[scenario]["epsilon"]
        return np.inf if epsilon is None else float(epsilon)

    def charts(self) -> list[dict[str, Any]]:
        """Attack against epsilon, a chart for each challenge of the tier."""
        return [self._chart(track, names) for track, names in self.tracks.items()]

    def _chart(self, track: str, names: Sequence[str]) -> dict[str, Any]:
        lines = self._lines(names)
        drawn = {line.name for line in lines}
        others = [Line(e.name, _points(e, names)) for e in self.entries if e.name not in drawn]
        limits = [self.scenarios[name]["limit"] for name in names]
        ceilings = [None if limit is None else limit[RANKED] for limit in limits]
        said = "; ".join(
            f"{line.name} " + ", ".join(number(RANKED, p[0]) for p in line.points if p)
            for line in lines
        )
        labels = [self.label(name) for name in names]
        title = f"TPR in percent at 10% FPR on {track} at {', '.join(labels)}: {said}"
        return {
            "picture": Markup(epsilon_chart(title, labels, ceilings, others, lines)),
            "caption": f"{track}: TPR at 10% FPR. Dots: the other attacks; dashed: guessing; "
            "shaded: what the mechanism permits no attack on one record.",
            "key": [{"swatch": swatch(line.colour), "name": line.name} for line in lines],
        }

    def _lines(self, names: Sequence[str]) -> list[Line]:
        """The winner's formula, standing attacks, and the best of each access on them."""
        first = self.entries[0].values["scenarios"]
        winner = Line(
            "the winner’s formula",
            [first[name]["winner"]["metrics"][RANKED] for name in names],
            COLOURS[0],
        )
        chosen = [entry for entry in self.entries if entry.name in (*_STANDING, *self.mine)]
        for access in (BLACK_BOX, WHITE_BOX):
            of = [entry for entry in self.entries if entry.access == access]
            if of:
                best = max(of, key=lambda e: float(np.mean([e.metric(n)[0] for n in names])))
                chosen += [best] if best not in chosen else []
        colours = COLOURS[1:]
        return [winner] + [
            Line(entry.name, _points(entry, names), colour)
            for entry, colour in zip(chosen, colours)
        ]


def swatch(colour: str, dash: str = "") -> Markup:
    """A piece of line for a key."""
    more = f' stroke-dasharray="{dash}"' if dash else ""
    return Markup(
        f'<svg viewBox="0 0 22 12" aria-hidden="true"><path d="M1 6h20" stroke="{colour}" '
        f'stroke-width="3" fill="none"{more}/></svg>'
    )


def _points(entry: Entry, names: Sequence[str]) -> list[Any]:
    return [entry.metric(name) for name in names]


def _measure(numbers: Numbers) -> Measure:
    value, low, high = numbers
    assert value is not None
    known = low is not None and high is not None
    return Measure.of(value, [low, high] if known else None)  # type: ignore[list-item]


def cell(numbers: Numbers, metric: str = RANKED, gain: bool = False) -> dict[str, str]:
    """A value and the ends of its interval as texts."""
    value, low, high = numbers
    assert value is not None
    ends = ""
    if low is not None and high is not None:
        ends = f"[{number(metric, low)}, {number(metric, high)}]"
    return {"value": number(metric, value, gain), "ends": ends}


def row_of(entry: Entry, scenario: str | None) -> dict[str, Any]:
    """An entry's numbers in a scenario, or their means."""
    if scenario is None:
        of = entry.values["average"]
        parts = entry.values["scenarios"].values()
    else:
        of = entry.values["scenarios"][scenario]
        parts = [of]
    seconds = sum(part["cpu_seconds"] + part["signal_cpu_seconds"] for part in parts)
    return {
        "gain": cell(of["gain"][RANKED], gain=True),
        "cells": [cell(of["metrics"][metric], metric) for metric in METRICS],
        "cpu": f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}",
    }


def limit_of(part: Mapping[str, Any]) -> str:
    """The largest TPR at 10 % FPR that a scenario's mechanism permits, or nothing."""
    return "" if part["limit"] is None else percent(round(part["limit"][RANKED], 3))


def ranks_in(
    entry: Entry, scenario: str, held: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The truth of a scenario's targets, and the ranks of an entry and of the winner there."""
    truth = truth_in(entry.values, scenario)
    part = entry.values["scenarios"][scenario]
    own, winner = (
        unpack(ranks["data"] or held[ranks["sha256"]], truth.shape)
        for ranks in (part["ranks"], part["winner"]["ranks"])
    )
    return truth, own, winner
