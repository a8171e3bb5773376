"""Checks entries of the benchmark: their form, and that every number follows from their ranks.

The truth of a tier is public, so a check cannot know that an attack made the ranks: maintainers run
the attack of a pull request again. What it does know is that the numbers, intervals and gains are
those of the ranks in the file, on the targets of the tier, beside the winner's formula.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.attacks.registry import ROWS, WINNERS_FORMULAS
from mico_competition.benchmark.entry import ACCESS, ENTRIES, Entry, read_values, stem_of, truth_in
from mico_competition.benchmark.measuring import (
    FOLDS,
    RESAMPLES,
    SEED,
    Result,
    averages,
    measured_ranks,
)
from mico_competition.benchmark.ranks import ranks_sha256, unpack
from mico_competition.benchmark.tiers import TIERS, VERSION
from mico_competition.evaluation.measure import Measured
from mico_competition.hosting.leaderboard.form import is_link
from mico_competition.hosting.leaderboard.names import is_line, is_name
from mico_competition.scoring.printable import printable, shown
from mico_competition.support.progress import tracked

_CLOSE = 2e-6  # numbers are rounded to six decimals
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z")

_Rule = tuple[Callable[[Any], bool], str]


def _is_sha(value: Any) -> bool:
    return type(value) is str and _SHA256.fullmatch(value) is not None


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_file(value: Any) -> bool:
    if value is None:
        return True
    fields = {"name", "function", "sha256"}
    known = type(value) is dict and set(value) == fields and _is_sha(value["sha256"])
    return known and all(is_line(value[name], 200, 1) for name in fields)


def _is_texts(value: Any) -> bool:
    return type(value) is dict and all(
        is_line(key, 40, 1) and (type(text) in (int, type(None)) or is_line(text, 200, 1))
        for key, text in value.items()
    )


FIELDS: Mapping[str, _Rule] = {
    "benchmark": (lambda v: v == VERSION, f"{VERSION}, the version of the tiers"),
    "tier": (lambda v: type(v) is str and v in TIERS, f"one of {', '.join(TIERS)}"),
    "name": (is_name, "a line of 1 to 80 printable characters, in Unicode's form NFKC"),
    "title": (lambda v: is_line(v, 300, 1), "what the attack does, in a line"),
    "source": (lambda v: is_line(v, 300, 1), "where the attack comes from, in a line"),
    "authors": (
        lambda v: type(v) is list and len(v) <= 20 and all(map(is_name, v)),
        "a list of at most 20 names",
    ),
    "link": (lambda v: v == "" or (is_line(v, 300) and is_link(v)), 'an http(s) address, or ""'),
    "access": (lambda v: v in ACCESS, f"one of {', '.join(ACCESS)}"),
    "known_training_set": (lambda v: type(v) is bool, "true or false"),
    "file": (_is_file, "null, or name, function and sha256 of the attack's file"),
    "command": (lambda v: is_line(v, 1000, 1), "the command that made it, in a line"),
    "made": (lambda v: type(v) is str and bool(_TIME.fullmatch(v)), "a time in UTC"),
    "versions": (_is_texts, "package -> version"),
    "machine": (_is_texts, "processor, system, cpus and threads"),
    "seed": (lambda v: v == SEED, str(SEED)),
    "resamples": (lambda v: v == RESAMPLES, str(RESAMPLES)),
    "folds": (lambda v: v == FOLDS, str(FOLDS)),
    "average": (lambda v: type(v) is dict, "metrics and gain"),
    "scenarios": (lambda v: type(v) is dict, "an object with the tier's scenarios"),
}
_SCENARIO: Mapping[str, _Rule] = {
    "fleet": (_is_sha, "the fingerprint of the fleet, 64 hexadecimal digits"),
    "epsilon": (lambda v: v is None or _is_count(v), "a number or null"),
    "delta": (lambda v: v is None or _is_count(v), "a number or null"),
    "limit": (lambda v: v is None or type(v) is dict, "rates, or null"),
    "cpu_seconds": (_is_count, "a number from 0"),
    "signal_cpu_seconds": (_is_count, "a number from 0"),
    "seconds": (_is_count, "a number from 0"),
    **dict.fromkeys(("targets", "members", "nonmembers"), (_is_count, "a whole number")),
    **dict.fromkeys(("metrics", "gain"), (lambda v: type(v) is dict, "numbers of each metric")),
    "ranks": (lambda v: _are_ranks(v) and v["data"] is not None, "sha256 and data"),
    "winner": (
        lambda v: (
            type(v) is dict
            and set(v) == {"formula", "metrics", "ranks"}
            and v["formula"] in WINNERS_FORMULAS
            and _are_ranks(v["ranks"])
        ),
        "formula (one of the winner's six), metrics and ranks",
    ),
}


_TRUTH: Mapping[str, _Rule] = {
    "truth": (lambda v: type(v) is str and len(v) < 100_000, "bits in base64"),
    "targets": (lambda v: type(v) is int and v > 1, "a whole number from 2"),
    **dict.fromkeys(("members", "nonmembers"), (lambda v: type(v) is int and v > 0, "a number")),
}


def _are_ranks(value: Any) -> bool:
    fields = type(value) is dict and set(value) == {"sha256", "data"}
    return fields and _is_sha(value["sha256"]) and type(value["data"]) in (str, type(None))


def is_benchmark(folder: Path) -> bool:
    """Whether a folder holds entries of the benchmark: `<tier>/<name>.json`."""
    return any(any(folder.glob(f"{tier}/*.json")) for tier in TIERS)


def check_folder(folder: Path | None = None) -> tuple[int, list[str]]:
    """The number of sound entries in a folder, the committed ones by default, and all faults."""
    folder = ENTRIES if folder is None else folder
    sound, faults = 0, []
    for tier in TIERS:
        paths = sorted(folder.glob(f"{tier}/*.json"))
        others = _readable(tier, paths)
        for path in tracked(paths, f"Entries of {tier}", "file"):
            found = _faults_of_file(path, others)
            sound += not found
            faults += [f"{tier}/{fault}" for fault in found]
    return sound, faults


def check_file(path: Path) -> list[str]:
    """Every fault of an entry's file, each a sentence that names the file.

    The winner's ranks may be in the file, in a committed entry, or in one beside it.
    """
    tiers = {*TIERS} if path.parent.name not in TIERS else {path.parent.name}
    paths = [p for tier in sorted(tiers) for p in sorted(ENTRIES.glob(f"{tier}/*.json"))]
    beside = [p for p in sorted(path.parent.glob("*.json")) if p.name != path.name]
    return _faults_of_file(path, [e for tier in TIERS for e in _readable(tier, paths + beside)])


def _readable(tier: str, paths: Sequence[Path]) -> list[Entry]:
    """The entries of a tier among files, without those that are not in the form of entries."""
    found = {}
    for path in paths:
        try:
            values = read_values(path)
        except (OSError, ValueError):
            continue
        if type(values) is dict and values.get("tier") == tier and not [*_form(values)]:
            found[path.resolve()] = Entry(path, values)
    return list(found.values())


def _faults_of_file(path: Path, others: Sequence[Entry]) -> list[str]:
    where = printable(path.name)
    try:
        values = read_values(path)
    except (OSError, ValueError) as error:
        return [str(error)]
    if type(values) is not dict or "benchmark" not in values:
        return [f"{where}: expected an entry that `mico benchmark` wrote: it has no benchmark."]
    tier = [other for other in others if other.tier == values.get("tier")]
    faults = list(check_values(values, tier))
    if not faults:
        entry = Entry(path, values)
        if path.stem != stem_of(entry.name):
            faults.append(f"expected the file's name to be {stem_of(entry.name)}.json")
        for other in tier:
            if other.name == entry.name and other.path.resolve() != path.resolve():
                fix = "replace it, or give yours another --name"
                faults.append(f"{other.path.name} is another entry of {shown(entry.name)}: {fix}")
    return [f"{where}: {fault}." for fault in faults]


def check_values(values: Mapping[str, Any], others: Sequence[Entry] = ()) -> Iterator[str]:
    """The faults of an entry's values; numbers are computed anew once the form is right."""
    yield from [*_form(values)] or _faults_of_numbers(values, others)


def _form(values: Mapping[str, Any]) -> list[str]:
    """The faults of an entry's form."""
    return [*_apply("", values, FIELDS)] or [*_faults_of_parts(values)]


def _apply(place: str, values: Any, rules: Mapping[str, _Rule]) -> Iterator[str]:
    if type(values) is not dict:
        yield f"{place or 'the entry'} should be an object"
        return
    for name in sorted(set(values) - set(rules)):
        yield f"{place}{shown(str(name))[1:-1]}: there is no such field"
    for name, (fits, expected) in rules.items():
        if name not in values:
            yield f"{place}{name} is missing; expected {expected}"
        elif not fits(values[name]):
            yield f"{place}{name}: expected {expected}, got {shown(str(values[name])[:200])}"


def _faults_of_parts(values: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the scenarios, and of what a named attack of the package says of itself."""
    tier, stated = TIERS[values["tier"]], tuple(values["scenarios"])
    names = tuple(n for n in tier.scenarios if n in stated) if tier.downloaded else tier.scenarios
    if not stated or stated != names:
        yield f"scenarios: expected {', '.join(names or tier.scenarios)}, in this order"
        return
    rules = {**_SCENARIO, **(_TRUTH if tier.downloaded else {})}
    for name in names:
        yield from _apply(f"scenarios.{name}.", values["scenarios"][name], rules)
    row = ROWS.get(values["name"])
    if row is not None and values["file"] is not None:
        yield f"name: {shown(values['name'])} is an attack of the package; give yours another name"
    elif values["file"] is None and row is None and "--attack " not in values["command"]:
        yield "file: expected name, function and sha256, as it is no attack of the package"
    elif row is not None and row.access != values["access"]:
        yield f"access: expected {row.access}, as `mico attacks` says"


def _faults_of_numbers(values: Mapping[str, Any], others: Sequence[Entry]) -> Iterator[str]:
    """Where numbers are not those of the ranks."""
    held = _held_ranks(others)
    results = []
    for place, (name, part) in enumerate(values["scenarios"].items()):
        try:
            truth = truth_in(values, name)
            ranks = _ranks_in(part["ranks"], truth.shape, {})
            winner = _ranks_in(part["winner"]["ranks"], truth.shape, held)
        except ValueError as error:
            yield f"scenarios.{name}: {error}"
            return
        beside = _winner_measured(truth.tobytes(), truth.shape, place, winner.tobytes())
        measured = measured_ranks(truth, ranks, place)
        result = Result(ranks, measured, part["winner"]["formula"], winner, beside)
        results.append(result)
        for key, found in result.fields().items():
            stated = part[key]
            if key == "winner":
                stated, found = stated["metrics"], found["metrics"]
            if key != "ranks":
                yield from _unequal(f"scenarios.{name}.{key}", stated, found)
    yield from _unequal("average", values["average"], averages(results))


@lru_cache(maxsize=32)  # the entries of a tier share it
def _winner_measured(truth: bytes, shape: Any, place: int, ranks: bytes) -> Measured:
    """The numbers of the winner's ranks, uint16 as bytes, with the truth, bool as bytes."""
    members, levels = np.frombuffer(truth, bool), np.frombuffer(ranks, np.uint16)
    return measured_ranks(members.reshape(shape), levels.reshape(shape), place)


def _held_ranks(others: Sequence[Entry]) -> dict[str, str]:
    """Checksum -> the packed ranks of the other entries."""
    return {
        part["ranks"]["sha256"]: part["ranks"]["data"]
        for entry in others
        for part in entry.values["scenarios"].values()
    }


def _ranks_in(kept: Mapping[str, Any], shape: Any, held: Mapping[str, str]) -> np.ndarray:
    """The ranks that an entry holds or points to; ValueError if they are not there, or others."""
    data = kept["data"] if kept["data"] is not None else held.get(kept["sha256"])
    if data is None:
        raise ValueError(
            "the winner's ranks are neither in it nor in another entry: run `mico benchmark` again"
        )
    ranks = unpack(data, shape)
    if ranks_sha256(ranks) != kept["sha256"]:
        raise ValueError("the ranks do not have their checksum")
    return ranks


def _unequal(place: str, stated: Any, found: Any) -> Iterator[str]:
    """Where stated numbers differ from those that were computed."""
    if isinstance(found, Mapping):
        if type(stated) is not dict or set(stated) != set(found):
            yield f"{place}: expected {', '.join(found)}"
            return
        for key, value in found.items():
            yield from _unequal(f"{place}.{key}", stated[key], value)
    elif isinstance(found, list):
        if type(stated) is not list or len(stated) != len(found):
            yield f"{place}: expected a value and the ends of its interval"
            return
        if not all(map(_same, stated, found)):
            yield f"{place}: expected {found}, which the ranks give, got {shown(str(stated))}"
    elif not _same(stated, found):
        yield f"{place}: expected {found}, which the ranks give, got {shown(str(stated))}"


def _same(stated: Any, found: Any) -> bool:
    if found is None or stated is None:
        return stated is found
    return type(stated) in (int, float) and abs(stated - found) <= _CLOSE
