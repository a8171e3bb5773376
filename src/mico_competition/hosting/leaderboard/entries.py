"""Reads, writes and ranks the entries of the leaderboard, one small JSON file for each result.

`mico leaderboard add` writes `<folder>/<challenge>/<entry>.json` and computes every number.  People
contribute entries by pull requests, so every file that is read is checked by `form`, and all faults
of all files are reported at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from mico_competition.competition.table import get_phase
from mico_competition.hosting.leaderboard.form import RANKED, Values, check_values
from mico_competition.hosting.leaderboard.names import Taken, name_key
from mico_competition.scoring.coarse import to_step
from mico_competition.scoring.printable import printable, shown
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike, write_text
from mico_competition.support.untrusted import read_limited_json

T = TypeVar("T")

FAULTS_FOLDER = "faults"
MAX_BYTES = 64_000
MAX_FAULTS = 50
_STEM = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_NUMBERS = re.compile(r"\[\n\s*([^\[\]{}\"]+?)\s*\]")  # no text in JSON has a bare line end


@dataclass(frozen=True)
class Measure:
    """A score with its 95 % interval (the score twice if it is unknown), used for ranking."""

    value: float
    low: float
    high: float
    known: bool = True

    @classmethod
    def of(cls, value: float, interval: Sequence[float] | None) -> Measure:
        """Make a measure from the two fields of an entry."""
        if interval is None:
            return cls(value, value, value, known=False)
        return cls(value, interval[0], interval[1])


@dataclass(frozen=True)
class Entry:
    """A valid entry; `stem` is its file's name without .json."""

    stem: str
    values: Values

    @property
    def challenge(self) -> str:
        """The name of the challenge."""
        challenge: str = self.values["challenge"]
        return challenge

    @property
    def phase(self) -> str:
        """The name of the phase."""
        phase: str = self.values["phase"]
        return phase

    @cached_property
    def key(self) -> str:
        """The name in the form for comparison; all submissions with one key share a table row."""
        return name_key(self.values["name"])

    @property
    def submitted(self) -> str:
        """The time of submission in UTC, as a text that sorts by time."""
        submitted: str = self.values["submitted"]
        return submitted

    @cached_property
    def step(self) -> float:
        """The step of its scores if they are coarse (`scoring.coarse`), else 0."""
        step = get_phase(self.challenge, self.phase).step
        if self.measure().known:  # coarse scores have no intervals
            return 0.0
        scores = [
            self.values["average"]["score"],
            *(v for r in self.values["scenarios"].values() for v in r["scores"].values()),
        ]
        return step if step and all(to_step(v, step) == v for v in scores) else 0.0

    def measure(self, scenario: str | None = None, metric: str = RANKED) -> Measure:
        """A metric of one scenario; by default the average that determines the ranking."""
        if scenario is None:
            return Measure.of(self.values["average"]["score"], self.values["average"]["interval"])
        result = self.values["scenarios"][scenario]
        return Measure.of(result["scores"][metric], result["intervals"][metric])


@dataclass(frozen=True)
class Rank:
    """A rank in the table, shared with other entries if `tied`."""

    number: int
    tied: bool

    def __str__(self) -> str:
        return f"{self.number}{'=' * self.tied}"


def latest(entries: Iterable[Entry]) -> list[Entry]:
    """The latest entry of each challenge, phase and name."""
    found: dict[tuple[str, str, str], Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.submitted, entry.stem)):
        found[entry.challenge, entry.phase, entry.key] = entry
    return list(found.values())


def ranked(entries: Iterable[Entry], scenario: str | None = None) -> list[tuple[Rank, Entry]]:
    """Rank entries from the best down; of equal ones the earlier comes first.

    The best score leads a group.  Following entries whose intervals overlap the leader's share its
    rank; the first one whose interval does not leads the next group, and its rank is 1 + the
    number of entries above it, as in 1=, 1=, 1=, 4.
    """
    order = sorted(entries, key=lambda e: (-e.measure(scenario).value, e.submitted, e.stem))
    return with_ranks(
        order, lambda entry, leader: entry.measure(scenario).high >= leader.measure(scenario).low
    )


def with_ranks(order: Iterable[T], reaches: Callable[[T, T], bool]) -> list[tuple[Rank, T]]:
    """Each of `order`, the best first, with its rank; those that reach a leader share its rank.

    The first that does not reach the leader, by `reaches(one, leader)`, leads the next group.
    """
    groups: list[list[T]] = []
    for one in order:
        if groups and reaches(one, groups[-1][0]):
            groups[-1].append(one)
        else:
            groups.append([one])
    placed: list[tuple[Rank, T]] = []
    for group in groups:
        rank = Rank(len(placed) + 1, len(group) > 1)
        placed += [(rank, one) for one in group]
    return placed


def entry_stem(values: Values) -> str:
    """The name of an entry's file without .json, which depends on the entry alone."""
    plain = unicodedata.normalize("NFKD", values["name"]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:40] or "entry"
    what = (name_key(values["name"]), values["submitted"], values["predictions_sha256"])
    digest = hashlib.sha256("\n".join(what).encode()).hexdigest()[:8]
    return f"{slug}-{values['phase']}-{values['submitted'][:10]}-{digest}"


def write_entry(folder: PathLike, values: Values, *, replace: bool = False) -> Path:
    """Write an entry below `folder`, and return its path.

    Raises:
        ValueError: with the entry's faults; or if the file exists and `replace` is False.
    """
    faults = check_values(values)
    if faults:
        raise ValueError(listing("This entry is not sound:", faults))
    path: Path = Path(folder) / values["challenge"] / f"{entry_stem(values)}.json"
    text = entry_text(values)
    if not replace and path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{path} exists already with other content: remove it first.")
    write_text(path, text)
    return path


def entry_text(values: Values, indent: int = 2) -> str:
    """The text of an entry's file, with a list of numbers in one line."""
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def read_entries(folder: PathLike) -> list[Entry]:
    """Read all entries below `folder`; ValueError listing all faults if there are any."""
    entries, faults = check_entries(folder)
    if faults:
        raise ValueError(
            listing(f"The entries in {folder} have {count_of(len(faults), 'fault')}:", faults)
        )
    return entries


def listing(head: str, faults: Sequence[str]) -> str:
    """Faults below a heading, each in a line, up to a maximal number."""
    more = [f"and {len(faults) - MAX_FAULTS} more"] * (len(faults) > MAX_FAULTS)
    return "\n  ".join([head, *faults[:MAX_FAULTS], *more])


def check_entries(folder: PathLike) -> tuple[list[Entry], list[str]]:
    """The valid entries below `folder`, and a line for each fault of the others."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: `mico leaderboard add --out` makes it.")
    entries, faults = [], []
    for path in sorted(folder.glob("*/*.json")):
        if path.parent.name == FAULTS_FOLDER or path.name.startswith("."):
            continue
        values, wrong = _read(path)
        faults += [f"{printable(path.relative_to(folder))}: {fault}" for fault in wrong]
        if not wrong:
            entries.append(Entry(path.stem, values))
    return entries, [*faults, *_joint_faults(entries)]


def _joint_faults(entries: Sequence[Entry]) -> Iterator[str]:
    """Faults of valid entries that contradict each other."""
    seen: dict[tuple[str, ...], Entry] = {}
    taken = Taken()
    for entry in entries:
        what = (entry.challenge, entry.phase, entry.key, entry.submitted)
        first = seen.setdefault(what, entry)
        if first is not entry:
            yield (
                f"{entry.challenge}/{entry.stem}.json: has the name and time of {first.stem}.json; "
                "remove one, for the latest counts."
            )
    for entry in sorted(entries, key=lambda entry: (entry.submitted, entry.stem)):
        name = entry.values["name"]
        if other := taken.add(name):
            yield (
                f"{entry.challenge}/{entry.stem}.json: its name {shown(name)} looks like "
                f"{shown(other)} of an earlier entry; give it another."
            )


def _read(path: Path) -> tuple[Values, list[str]]:
    """The values of one file, and its faults."""
    faults = [] if _STEM.fullmatch(path.stem) else ["expected a name of a-z, 0-9, '-', '_' and '.'"]
    try:
        values = read_limited_json(path, MAX_BYTES, "an entry in JSON")
    except (OSError, ValueError) as error:
        return {}, [*faults, str(error)]
    faults += check_values(values)
    if not faults and values["challenge"] != path.parent.name:
        faults.append(f"expected in folder {values['challenge']}")
    return values, faults
