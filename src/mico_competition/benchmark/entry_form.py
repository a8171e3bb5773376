"""The form of the benchmark's entries: which fields there are, and what fits them.

Entries come by pull requests, so the values are not trusted. `checking` computes the numbers anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mico_competition.attacks.registry import ROWS, WINNERS_FORMULAS
from mico_competition.benchmark.about import ACCESS, About
from mico_competition.benchmark.entry import stem_of
from mico_competition.benchmark.measuring import FOLDS, RESAMPLES, SEED
from mico_competition.benchmark.tiers import TIERS, VERSION
from mico_competition.hosting.leaderboard.form import (
    Rule,
    faults_by,
    is_link_or_none,
    is_names,
    is_sha256,
    is_time,
    time_text,
)
from mico_competition.hosting.leaderboard.names import is_line, is_name, skeleton
from mico_competition.scoring.printable import shown

# What a page shows to be repeated must run the benchmark, and nothing else.
_COMMAND = re.compile(r"mico benchmark --tier \w+ --attack [\w./: ~-]+")


def _tomorrow() -> str:
    """For clocks that are ahead."""
    return time_text(datetime.now(UTC) + timedelta(days=1))


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_file(value: Any) -> bool:
    if value is None:
        return True
    fields = {"name", "function", "sha256"}
    known = type(value) is dict and set(value) == fields and is_sha256(value["sha256"])
    return known and all(is_line(value[name], 200, 1) for name in fields)


def _are_versions(value: Any) -> bool:
    return (
        type(value) is dict
        and {"python", "mico_competition", "numpy", "torch"} <= set(value)
        and all(is_line(key, 40, 1) and is_line(text, 40, 1) for key, text in value.items())
    )


def _is_machine(value: Any) -> bool:
    return (
        type(value) is dict
        and set(value) == {"processor", "system", "cpus", "threads"}
        and all(is_line(value[name], 200, 1) for name in ("processor", "system"))
        and all(type(value[name]) is int and value[name] >= 1 for name in ("cpus", "threads"))
    )


FIELDS: Mapping[str, Rule] = {
    "benchmark": (lambda v: v == VERSION, f"{VERSION}, the version of the tiers"),
    "tier": (lambda v: type(v) is str and v in TIERS, f"one of {', '.join(TIERS)}"),
    "name": (is_name, "a line of 1 to 80 printable characters, in Unicode's form NFKC"),
    "title": (lambda v: is_line(v, 300, 1), "what the attack does, in a line"),
    "source": (lambda v: is_line(v, 300, 1), "where the attack comes from, in a line"),
    "authors": (is_names, "a list of at most 20 names"),
    "link": (is_link_or_none, 'an http(s) address, or ""'),
    "access": (lambda v: v in ACCESS, f"one of {', '.join(ACCESS)}"),
    "known_training_set": (lambda v: type(v) is bool, "true or false"),
    "file": (_is_file, "null, or name, function and sha256 of the attack's file"),
    "command": (
        lambda v: is_line(v, 1000, 1) and bool(_COMMAND.fullmatch(v)),
        "mico benchmark --tier TIER --attack NAME or FILE:FUNCTION",
    ),
    "made": (lambda v: is_time(v) and v <= _tomorrow(), "a time in UTC, not to come"),
    "versions": (
        _are_versions,
        "the versions of python, mico_competition, numpy, torch and others",
    ),
    "machine": (_is_machine, "processor, system, cpus and threads"),
    "seed": (lambda v: v == SEED, str(SEED)),
    "resamples": (lambda v: v == RESAMPLES, str(RESAMPLES)),
    "folds": (lambda v: v == FOLDS, str(FOLDS)),
    "average": (lambda v: type(v) is dict, "metrics and gain"),
    "scenarios": (lambda v: type(v) is dict, "an object with the tier's scenarios"),
}
_SCENARIO: Mapping[str, Rule] = {
    "fleet": (is_sha256, "the fingerprint of the fleet, 64 hexadecimal digits"),
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


_TRUTH: Mapping[str, Rule] = {
    "truth": (lambda v: type(v) is str and len(v) < 100_000, "bits in base64"),
    "targets": (lambda v: type(v) is int and v > 1, "a whole number from 2"),
    **dict.fromkeys(("members", "nonmembers"), (lambda v: type(v) is int and v > 0, "a number")),
}


def _are_ranks(value: Any) -> bool:
    fields = type(value) is dict and set(value) == {"sha256", "data"}
    return fields and is_sha256(value["sha256"]) and type(value["data"]) in (str, type(None))


def faults_of_form(values: Mapping[str, Any]) -> list[str]:
    """The faults of an entry's form."""
    return [*faults_by("", values, FIELDS)] or [*_faults_of_parts(values)]


def _faults_of_parts(values: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the scenarios, and of what an entry says of its attack."""
    tier, stated = TIERS[values["tier"]], tuple(values["scenarios"])
    names = tuple(n for n in tier.scenarios if n in stated) if tier.downloaded else tier.scenarios
    if not stated or stated != names:
        yield f"scenarios: expected {', '.join(names or tier.scenarios)}, in this order"
        return
    rules = {**_SCENARIO, **(_TRUTH if tier.downloaded else {})}
    for name in names:
        if type(values["scenarios"][name]) is not dict:
            yield f"scenarios.{name}: expected an object"
        yield from faults_by(f"scenarios.{name}.", values["scenarios"][name], rules)
    yield from _faults_of_attack(values)


def check_about(about: About, tier: str) -> None:
    """ValueError with the first fault of what the entries of a tier would say of an attack."""
    fields = about.fields()
    faults = [*faults_by("", fields, {name: FIELDS[name] for name in fields})]
    faults = faults or [*_faults_of_attack({**fields, "tier": tier})]
    if faults:
        raise ValueError(f"This cannot stand in an entry: {faults[0]}.")


def _faults_of_attack(values: Mapping[str, Any]) -> Iterator[str]:
    """Where name, file, access and command do not speak of the same attack, in the same tier."""
    begin = f"mico benchmark --tier {values['tier']} --attack "
    attack = values["command"].removeprefix(begin)
    if attack == values["command"]:
        yield f"command: expected one that begins with {begin.strip()}"
        return
    name, file, row = values["name"], values["file"], ROWS.get(attack)
    if file is not None and attack != f"{file['name']}:{file['function']}":
        yield f"command: expected --attack {shown(file['name'] + ':' + file['function'])[1:-1]}"
    elif file is None and row is None:
        yield f"file: expected name, function and sha256: {shown(attack)} is none of the package"
    elif file is None and row is not None and row.access != values["access"]:
        yield f"access: expected {row.access}, as `mico attacks` says"
    alike = (
        one for one in ROWS if stem_of(one) == stem_of(name) or skeleton(one) == skeleton(name)
    )
    theirs = next(alike, None)
    if theirs is not None and (file is not None or name != attack):
        yield f"name: {theirs} is an attack of the package; give yours another --name"
    elif theirs is None and row is not None and file is None:
        yield f"name: expected {attack}, the attack that the command names"
