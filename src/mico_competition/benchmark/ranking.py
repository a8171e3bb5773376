"""Ranks the entries of a tier by their paired gains over the winner's formula, and shows ties.

Levels differ between two trainings of the same seeds on two machines, gains far less. On one fleet
the order by the mean gain is the order by the mean TPR at 10 % FPR, which ranked in 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mico_competition.benchmark.entry import Entry
from mico_competition.evaluation.measure import RANKED
from mico_competition.evaluation.table import number
from mico_competition.hosting.leaderboard.entries import with_ranks
from mico_competition.support.terminal import table


@dataclass(frozen=True)
class Placed:
    """An entry with its rank as text, which ends in = if others share it."""

    rank: str
    entry: Entry


def ranked(entries: Iterable[Entry], scenario: str | None = None) -> list[Placed]:
    """Entries from the best gain down.

    The best leads a group. Following entries whose paired intervals reach the lower end of the
    leader's share its rank; the first that does not leads the next group.

    Args:
        entries: of one tier.
        scenario: rank by this scenario, by default by the mean over all.
    """
    order = sorted(entries, key=lambda e: (-e.gain(RANKED, scenario)[0], e.name))
    placed = with_ranks(order, lambda entry, leader: _reaches(entry, leader, scenario))
    return [Placed(str(rank), entry) for rank, entry in placed]


def _reaches(entry: Entry, leader: Entry, scenario: str | None) -> bool:
    """Whether the interval of an entry's gain overlaps the leader's; a lone value is a point."""
    value, _, high = entry.gain(RANKED, scenario)
    first, low, _ = leader.gain(RANKED, scenario)
    return (value if high is None else high) >= (first if low is None else low)


def board_lines(
    entries: Sequence[Entry], mine: Sequence[Entry], scenarios: Sequence[str]
) -> list[str]:
    """The table of a tier for a terminal, with an arrow at each of `mine`."""
    heads = ("", "rank", "attack", "access", "gain over winner", "TPR@10% FPR", *scenarios)
    rows = []
    for one in ranked(entries):
        other = "" if one.entry.fleet == mine[0].fleet else "~"
        rows.append(
            (
                ">" if one.entry in mine else other,
                one.rank,
                one.entry.name,
                one.entry.access,
                _cell(one.entry.gain(), gain=True),
                _cell(one.entry.average()),
                *(number(RANKED, one.entry.metric(name)[0]) for name in scenarios),
            )
        )
    lines = table(heads, rows, wide=True)
    if any(row[0] == "~" for row in rows):
        lines += ["", "~ on fleets of another machine: compare its gain, and not its level."]
    return lines


def _cell(numbers: Sequence[float | None], gain: bool = False) -> str:
    value, low, high = numbers
    assert value is not None
    text = number(RANKED, value, gain)
    if low is None or high is None:
        return text
    return f"{text} [{number(RANKED, low)}, {number(RANKED, high)}]"
