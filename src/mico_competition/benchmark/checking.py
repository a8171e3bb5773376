"""Checks entries of the benchmark: their form, and that every number follows from their ranks.

The truth of a tier is public, so a check cannot know that an attack made the ranks: maintainers run
the attack of a pull request again. What it does know is that the numbers, intervals and gains are
those of the ranks in the file, on the targets of the tier, beside the winner's formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.benchmark.entry import (
    ENTRIES,
    Entry,
    held_ranks,
    read_values,
    stem_of,
    truth_in,
)
from mico_competition.benchmark.entry_form import faults_of_form
from mico_competition.benchmark.measuring import Result, averages, measured_ranks
from mico_competition.benchmark.ranks import ranks_sha256, unpack
from mico_competition.benchmark.tiers import TIERS
from mico_competition.evaluation.measure import Measured
from mico_competition.scoring.printable import printable, shown
from mico_competition.support.progress import tracked

_CLOSE = 2e-6  # numbers are rounded to six decimals


def is_benchmark(folder: Path) -> bool:
    """Whether a folder holds entries of the benchmark: `<tier>/<name>.json`, or is a tier's."""
    in_tier = folder.resolve().name in TIERS and any(folder.glob("*.json"))
    return in_tier or any(any(folder.glob(f"{tier}/*.json")) for tier in TIERS)


def check_folder(folder: Path | None = None) -> tuple[int, list[str]]:
    """The number of sound entries in a folder, the committed ones by default, and all faults.

    The folder may also be that of one tier. The winner's ranks may be in committed entries.
    """
    folder = (ENTRIES if folder is None else folder).resolve()
    tiers: Sequence[str] = tuple(TIERS)
    if folder.name in TIERS:
        folder, tiers = folder.parent, (folder.name,)
    sound, faults = 0, []
    for tier in tiers:
        paths = sorted(folder.glob(f"{tier}/*.json"))
        others = _readable(tier, paths)
        committed = others if folder == ENTRIES.resolve() else _committed(tier)
        for path in tracked(paths, f"Entries of {tier}", "file"):
            found = _faults_of_file(path, others, committed)
            sound += not found
            faults += [f"{tier}/{fault}" for fault in found]
    return sound, [*faults, *(_strayed(folder) if len(tiers) > 1 else ())]


def _strayed(folder: Path) -> list[str]:
    """The files in folders of other names than the tiers', where no entry is looked for."""
    paths = [path for path in sorted(folder.glob("[!.]*/*.json")) if path.parent.name not in TIERS]
    names = ", ".join(TIERS)
    return [
        f"{printable(path.parent.name)}/{printable(path.name)}: no tier has this name: move it to "
        f"the folder of one ({names})."
        for path in paths
    ]


def check_file(path: Path) -> list[str]:
    """Every fault of an entry's file, each a sentence that names the file.

    The winner's ranks may be in the file, in a committed entry, or in one beside it.
    """
    tiers = TIERS if path.parent.name not in TIERS else (path.parent.name,)
    committed = [entry for tier in tiers for entry in _committed(tier)]
    beside = [p for p in sorted(path.parent.glob("*.json")) if p.name != path.name]
    others = [entry for tier in tiers for entry in _readable(tier, beside)]
    return _faults_of_file(path, [*committed, *others], committed)


def _committed(tier: str) -> list[Entry]:
    return _readable(tier, sorted(ENTRIES.glob(f"{tier}/*.json")))


def _readable(tier: str, paths: Sequence[Path]) -> list[Entry]:
    """The entries of a tier among files, without those that are not in the form of entries."""
    found = {}
    for path in paths:
        try:
            values = read_values(path)
        except (OSError, ValueError):
            continue
        if type(values) is dict and values.get("tier") == tier and not faults_of_form(values):
            found[path.resolve()] = Entry(path, values)
    return list(found.values())


def _faults_of_file(
    path: Path, others: Sequence[Entry], committed: Sequence[Entry] = ()
) -> list[str]:
    """The faults of a file: `others` must have other names, `committed` may have its ranks."""
    where = printable(path.name)
    try:
        values = read_values(path)
    except (OSError, ValueError) as error:
        return [str(error).replace(str(path), where)]
    if type(values) is not dict or "benchmark" not in values:
        return [f"{where}: expected an entry that `mico benchmark` wrote: it has no benchmark."]
    if path.parent.name in TIERS and values.get("tier") in set(TIERS) - {path.parent.name}:
        return [f"{where}: it is of tier {values['tier']}, not {path.parent.name}: move it."]
    tier = [other for other in others if other.tier == values.get("tier")]
    known = [*tier, *(entry for entry in committed if entry.tier == values.get("tier"))]
    faults = list(check_values(values, known))
    if not faults:
        faults = list(_faults_of_name(path, stem_of(str(values["name"])), tier))
    return [f"{where}: {fault}." for fault in faults]


def _faults_of_name(path: Path, stem: str, others: Sequence[Entry]) -> Iterator[str]:
    """Where a file has another name than its entry, or the entry another file."""
    there = (other for other in others if other.path.stem == stem == stem_of(other.name))
    other = next((other for other in there if other.path.resolve() != path.resolve()), None)
    if other is not None:
        fix = "replace it, or give yours another --name"
        yield f"{other.path.name} is another entry of {shown(other.name)}: {fix}"
    elif path.stem != stem:
        yield f"expected the file's name to be {stem}.json"


def check_values(values: Mapping[str, Any], others: Sequence[Entry] = ()) -> Iterator[str]:
    """The faults of an entry's values; numbers are computed anew once the form is right."""
    yield from faults_of_form(values) or [
        *_faults_of_facts(values, others),
        *_faults_of_numbers(values, others),
    ]


_SAME_IN_A_TIER = ("epsilon", "delta", "limit")


def _faults_of_facts(values: Mapping[str, Any], others: Sequence[Entry]) -> Iterator[str]:
    """Where the privacy of a scenario is not that of the tier's other entries."""
    for name, part in values["scenarios"].items():
        for other in others:
            same = other.values["scenarios"].get(name)
            if same is None or other.name == values["name"]:
                continue
            for key in _SAME_IN_A_TIER:
                if not _nearly(part[key], same[key]):
                    yield (
                        f"scenarios.{name}.{key}: expected {same[key]}, as in the tier's other "
                        f"entries, got {shown(str(part[key]))}"
                    )
            break


def _nearly(stated: Any, found: Any) -> bool:
    """Whether two facts are equal up to a thousandth, of which machines differ by less."""
    if isinstance(found, Mapping):
        same = type(stated) is dict and set(stated) == set(found)
        return same and all(_nearly(stated[key], value) for key, value in found.items())
    if type(stated) not in (int, float) or type(found) not in (int, float):
        return bool(stated == found)
    return bool(abs(stated - found) <= 1e-3 * abs(found))


def _faults_of_numbers(values: Mapping[str, Any], others: Sequence[Entry]) -> Iterator[str]:
    """Where numbers are not those of the ranks."""
    held = held_ranks(others)
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
