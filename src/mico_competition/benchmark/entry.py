"""An entry of the benchmark: one JSON file with an attack's numbers on all fleets of a tier.

It holds the ranks of the attack's scores, so that anybody can compute its numbers anew: the truth
follows from the tier's public seeds (`tiers.truth_of`), without data or models. Entries come by
pull requests, so what is read is not trusted: `check_entry` lists every fault in a sentence.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition import __version__
from mico_competition.attacks.problem import Attack
from mico_competition.benchmark.about import About, with_access
from mico_competition.benchmark.measuring import (
    FOLDS,
    RESAMPLES,
    SEED,
    OpenFleet,
    Result,
    averages,
    result_of,
)
from mico_competition.benchmark.ranks import pack_bits, unpack_bits
from mico_competition.benchmark.tiers import VERSION, Tier, get_tier, truth_of
from mico_competition.evaluation.measure import RANKED
from mico_competition.hosting.leaderboard import entries
from mico_competition.support.files import PathLike, write_text
from mico_competition.support.made import facts
from mico_competition.support.untrusted import read_limited_json

MAX_BYTES = 4_000_000
ENTRIES = Path(str(files(__package__) / "entries"))
"""The committed entries, `<tier>/<name>.json`."""

Values = dict[str, Any]


def make_entry(
    tier: str,
    about: About,
    results: Mapping[str, Result],
    facts_of: Mapping[str, Mapping[str, Any]],
) -> Values:
    """The values of an entry.

    Args:
        tier: its name.
        about: what to say of the attack.
        results: scenario -> its numbers.
        facts_of: scenario -> its other fields: fleet, epsilon, limit, cpu_seconds and so on.
    """
    made = facts()
    return {
        "benchmark": VERSION,
        "tier": tier,
        **about.fields(),
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": made["versions"],
        "machine": machine(),
        "seed": SEED,
        "resamples": RESAMPLES,
        "folds": FOLDS,
        "average": averages(list(results.values())),
        "scenarios": {
            name: {**facts_of[name], **result.fields()} for name, result in results.items()
        },
    }


def machine() -> dict[str, Any]:
    """The processor, system and threads of this process."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = (re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE) or [name])[0]
    except OSError:
        pass
    return {
        "processor": name.strip(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class Entry:
    """An entry that was read; `path` is its file."""

    path: Path
    values: Values

    @property
    def name(self) -> str:
        """The attack's name, a row of the table."""
        return str(self.values["name"])

    @property
    def tier(self) -> str:
        """The name of its tier."""
        return str(self.values["tier"])

    @property
    def access(self) -> str:
        """What the attack sees: one of ACCESS."""
        return str(self.values["access"])

    @cached_property
    def fleet(self) -> tuple[str, ...]:
        """The fingerprints of its fleets, in the order of the scenarios."""
        return tuple(s["fleet"] for s in self.values["scenarios"].values())

    def average(self, metric: str = RANKED) -> list[float]:
        """[value, low, high] of the mean over scenarios."""
        found: list[float] = self.values["average"]["metrics"][metric]
        return found

    def gain(self, metric: str = RANKED, scenario: str | None = None) -> list[float]:
        """[value, low, high] of the paired gain over the winner's formula, by default the mean."""
        of = self.values["average"] if scenario is None else self.values["scenarios"][scenario]
        found: list[float] = of["gain"][metric]
        return found

    def metric(self, scenario: str, metric: str = RANKED) -> list[float]:
        """[value, low, high] in one scenario."""
        found: list[float] = self.values["scenarios"][scenario]["metrics"][metric]
        return found


def entry_text(values: Values) -> str:
    """The text of an entry's file."""
    return entries.entry_text(values, indent=1)


def stem_of(name: str) -> str:
    """The name of an entry's file, without .json.

    It has a checksum of the name where letters of other alphabets are left out.

    >>> stem_of("My attack: v2")
    'my-attack-v2'
    >>> stem_of("攻撃")
    'entry-c62991e8'
    """
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "entry"
    whole = all(letter.isascii() or not letter.isalnum() for letter in name)
    return stem if whole else f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def entry_path(folder: PathLike, tier: str, name: str) -> Path:
    """The file of an entry below `folder`."""
    return Path(folder) / tier / f"{stem_of(name)}.json"


def write_entry(folder: PathLike, values: Values) -> Path:
    """Write an entry to `<folder>/<tier>/<name>.json`, in place of an earlier one of that name."""
    path = entry_path(folder, values["tier"], values["name"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, entry_text(values))
    return path


def read_values(path: PathLike) -> Any:
    """What an entry's file holds; ValueError if it is no JSON, or too large."""
    return read_limited_json(path, MAX_BYTES, "an entry in JSON")


def reusable(
    folder: PathLike, tier: str, about: About, fleets: Sequence[OpenFleet]
) -> Entry | None:
    """The entry of a named attack that this version of the package measured on these fleets."""
    path = entry_path(folder, tier, about.name)
    if not path.is_file():
        return None
    entry = Entry(path, read_values(path))
    same = entry.fleet == tuple(fleet.fingerprint for fleet in fleets)
    version = entry.values["versions"].get("mico_competition")
    return entry if same and version == __version__ and entry.name == about.name else None


def write_attack(
    folder: PathLike,
    tier: str,
    about: About,
    attack: Attack,
    fleets: Sequence[OpenFleet],
    known: Iterable[str],
) -> Entry:
    """Measure an attack on fleets and write its entry; `known` as in `without_copies`."""
    results, others, read = {}, {}, frozenset[str]()
    for fleet in fleets:
        results[fleet.scenario], run = result_of(fleet, attack)
        others[fleet.scenario] = {"fleet": fleet.fingerprint, **fleet.facts, **run.used}
        read |= run.read
        if get_tier(tier).downloaded:  # the truth of the others follows from the tier's seeds
            others[fleet.scenario]["truth"] = pack_bits(fleet.task.truth)
    about = with_access(about, read)
    values = without_copies(make_entry(tier, about, results, others), known)
    return Entry(write_entry(folder, values), values)


def held_ranks(others: Iterable[Entry]) -> dict[str, str]:
    """Checksum -> the packed ranks of the attacks' own scores, of all these entries."""
    return {
        part["ranks"]["sha256"]: part["ranks"]["data"]
        for entry in others
        for part in entry.values["scenarios"].values()
    }


def known_ranks(folder: PathLike, tier: Tier) -> set[str]:
    """The checksums of all ranks that the entries of a tier hold."""
    return set(held_ranks(read_tier(folder, tier.name)))


def read_tier(folder: PathLike, tier: str) -> list[Entry]:
    """The entries of a tier in `folder`, by file name; they are not checked."""
    found = [Entry(path, read_values(path)) for path in sorted(Path(folder).glob(f"{tier}/*.json"))]
    for entry in found:
        if type(entry.values) is not dict or entry.values.get("tier") != tier:
            raise ValueError(f"{entry.path} is no entry of tier {tier}: `mico leaderboard check`.")
    return found


def truth_in(values: Mapping[str, Any], scenario: str) -> np.ndarray:
    """bool[targets, 2m], the truth of an entry's scenario: by the tier's seeds, or as it states.

    Raises:
        ValueError: if a stated truth has another form.
    """
    if not get_tier(values["tier"]).downloaded:
        return truth_of(values["tier"], scenario)
    part = values["scenarios"][scenario]
    points = (part["members"] + part["nonmembers"]) // part["targets"]
    return unpack_bits(part["truth"], (part["targets"], points))


def without_copies(values: Values, known: Iterable[str]) -> Values:
    """The entry without the winner's ranks that are in another entry, whose checksums `known` has.

    >>> part = {"winner": {"ranks": {"sha256": "ab", "data": "x"}}}
    >>> without_copies({"scenarios": {"a": part}}, ["ab"])["scenarios"]["a"]["winner"]["ranks"]
    {'sha256': 'ab', 'data': None}
    """
    there = set(known)

    def short(part: Mapping[str, Any]) -> Values:
        ranks = part["winner"]["ranks"]
        if ranks["sha256"] not in there:
            return dict(part)
        return {**part, "winner": {**part["winner"], "ranks": {**ranks, "data": None}}}

    return {**values, "scenarios": {n: short(part) for n, part in values["scenarios"].items()}}
