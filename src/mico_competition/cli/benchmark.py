"""`mico benchmark`: flags -> reference fleets, attacks measured on them, and their entries."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.attacks.registry import BLACK_BOX, QUERIES, WHITE_BOX
from mico_competition.cli.attack_options import check_attack_names
from mico_competition.support.command_line import (
    UsageError,
    load_torch,
    output_folder,
    path_or_name,
)
from mico_competition.support.progress import stage, tracked
from mico_competition.support.reports import add_json, report

if TYPE_CHECKING:
    from mico_competition.attacks.problem import Attack
    from mico_competition.benchmark.about import About
    from mico_competition.benchmark.entry import Entry
    from mico_competition.benchmark.measuring import OpenFleet
    from mico_competition.benchmark.tiers import Tier

TIER_NAMES = ("small", "medium", "full", "mico2022")
BASELINES = ("threshold", "winner-2023", "lira-online", "rmia", "eb")
"""Attacks that every run measures on the same fleets, beside those that are asked for."""


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of the benchmark."""
    parser.add_argument(
        "--tier",
        default="small",
        choices=TIER_NAMES,
        help="small: digits, minutes; medium: 20,000 baskets, half an hour; full: the size of "
        "Purchase-100, hours; mico2022: train models that `mico download` wrote (default: small)",
    )
    parser.add_argument(
        "--attack",
        type=path_or_name,
        action="append",
        default=[],
        metavar="NAME",
        help="an attack's name, or file.py:function; may be repeated (default: the baselines only)",
    )
    parser.add_argument(
        "--work",
        type=output_folder,
        default=Path("benchmark"),
        help="folder for fleets and entries, which are used again (default: benchmark)",
    )
    parser.add_argument(
        "--downloads",
        type=Path,
        default=Path("."),
        help="for mico2022: folder with cifar10, purchase100 or sst2, and datasets (default: .)",
    )
    parser.add_argument("--out", type=output_folder, help="folder for entries (default: in --work)")
    parser.add_argument("--name", help="name of the attack in the table (default: as --attack)")
    parser.add_argument(
        "--author", action="append", default=[], dest="authors", help="may be repeated"
    )
    parser.add_argument("--link", default="", help="address of a paper or repository")
    parser.add_argument(
        "--access",
        choices=(BLACK_BOX, QUERIES, WHITE_BOX),
        help="what an attack from a file sees (default: black box)",
    )
    parser.add_argument(
        "--isolate",
        action="store_true",
        help="run attacks from files in a process that can access only their arrays",
    )
    parser.add_argument("--workers", type=int, help="training processes (default: one a CPU)")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of each training process (default: 1)"
    )
    parser.add_argument(
        "--cache", type=output_folder, help="folder for signals (default: in --work)"
    )
    add_json(parser)
    parser.set_defaults(run=run_benchmark, stack=None, retries=2)


def run_benchmark(args: argparse.Namespace) -> int:
    """Make the fleets, measure attacks and baselines, write entries, print the table."""
    _check(args)
    load_torch()
    from mico_competition.benchmark.tiers import found_tier, get_tier
    from mico_competition.evaluation.custom import find_attack

    named = list(dict.fromkeys(args.attack))
    attacks = {name: find_attack(name, isolate=args.isolate) for name in named}
    tier = get_tier(args.tier)
    abouts = [_about(attack, tier, args) for attack in attacks.values()]
    _check_entries(abouts, tier, args.out or args.work / "entries")
    with tier.in_use():
        if tier.downloaded:
            tier = found_tier(tier, args.downloads)
        fleets = _downloaded(tier, args) if tier.downloaded else _trained(tier, args)
        if fleets is None:
            return 1
        attacks = {**attacks, **{n: find_attack(n) for n in BASELINES if n not in attacks}}
        found = {
            name: _entry_of(attack, tier, fleets, args)
            for name, attack in tracked(list(attacks.items()), tier.name, "attack")
        }
    _show(tier, [found[name] for name in named], list(found.values()))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that do not fit, before anything is imported."""
    check_attack_names(args.attack)
    files = [name for name in args.attack if _from_file(name)]
    if args.access and not files:
        raise UsageError("--access is for an attack of file.py:function: others state theirs.")
    if args.name and not files:
        raise UsageError("--name is for an attack of file.py:function: others have theirs.")
    for flag, given in (("--name", args.name), ("--link", args.link), ("--author", args.authors)):
        if given and len(args.attack) != 1:
            raise UsageError(f"{flag} describes one attack: give --attack once.")
    for name in ("workers", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"Expected --{name} of at least 1, got {value}.")


def _check_entries(abouts: Sequence[About], tier: Tier, out: Path) -> None:
    """ValueError if an entry could not say this of its attack, or would overwrite another."""
    from mico_competition.benchmark.entry import entry_path, read_values, stem_of
    from mico_competition.benchmark.entry_form import check_about

    names: dict[str, str] = {}
    for about in abouts:
        check_about(about, tier.name)
        stem = stem_of(about.name)
        if stem in names:
            raise ValueError(
                f"{names[stem]} and {about.name} would be one entry: measure each by itself, with "
                "--name."
            )
        names[stem] = about.name
        path = entry_path(out, tier.name, about.name)
        there = read_values(path) if path.is_file() else {"name": about.name}
        if type(there) is not dict or there.get("name") != about.name:
            raise ValueError(
                f"{path} is no entry of {about.name}: move it away, or give yours another --name."
            )


def _from_file(name: str) -> bool:
    return ".py:" in name


def _trained(tier: Tier, args: argparse.Namespace) -> list[OpenFleet] | None:
    """The open fleets of a tier, trained where models lack; None if training failed."""
    from mico_competition.benchmark.reference_fleets import load_data, open_fleet

    fleets = []
    for scenario in tier.scenarios:
        data = load_data(tier, scenario, args.work)
        if not _train(tier, scenario, data, args):
            return None
        with stage(f"Opening {scenario}"):
            fleets.append(open_fleet(tier, scenario, args.work, data, args.cache))
    return fleets


def _downloaded(tier: Tier, args: argparse.Namespace) -> list[OpenFleet]:
    """The open fleets of a tier that was downloaded."""
    from mico_competition.benchmark.reference_fleets import open_downloaded
    from mico_competition.competition.table import get_scenario
    from mico_competition.data.datasets import load_dataset

    cache = args.cache or args.work / "signals"
    tasks = {name: get_scenario(name).task for name in tier.scenarios}
    data = {task: load_dataset(task, args.downloads) for task in dict.fromkeys(tasks.values())}
    return [
        open_downloaded(tier, name, args.downloads, data[tasks[name]], cache)
        for name in tier.scenarios
    ]


def _train(tier: Tier, scenario: str, data: Any, args: argparse.Namespace) -> bool:
    """Train the models of a scenario that are not there; whether all are, in the end."""
    from mico_competition.benchmark.reference_fleets import reference_ledger
    from mico_competition.cli.fleet_run import train
    from mico_competition.fleets.ledger import fleet_folder
    from mico_competition.fleets.lock import only_fleet
    from mico_competition.fleets.workers import LocalWorkers

    with only_fleet(fleet_folder(args.work / tier.name, scenario)):
        ledger = reference_ledger(tier, scenario, args.work, data)
        if len(ledger.done()) == len(ledger.entries):
            return True
        backend = LocalWorkers(ledger, data, workers=args.workers, threads=args.threads)
        return train(args, ledger, backend) == 0


def _entry_of(
    attack: Attack, tier: Tier, fleets: Sequence[OpenFleet], args: argparse.Namespace
) -> Entry:
    """The entry of an attack on these fleets; that of a named attack is used again."""
    from mico_competition.benchmark.entry import ENTRIES, known_ranks, reusable, write_attack

    asked = attack.name in args.attack
    about = _about(attack, tier, args if asked else None)
    out = args.out if args.out and asked else args.work / "entries"
    kept = None if _from_file(attack.name) else reusable(out, tier.name, about, fleets)
    return kept or write_attack(out, tier.name, about, attack, fleets, known_ranks(ENTRIES, tier))


def _about(attack: Attack, tier: Tier, args: argparse.Namespace | None) -> About:
    """What the entry says of an attack; `args` are the flags if it is one that was asked for."""
    from mico_competition.benchmark.about import About, about_named

    if args is None:
        return about_named(attack, tier.name)
    if _from_file(attack.name):
        path, _, function = attack.name.rpartition(":")
        file = Path(path)
        about = About(
            f"{file.stem}:{function}",
            attack.title,
            args.link or file.name,
            WHITE_BOX if attack.white_box else args.access or BLACK_BOX,
            file={
                "name": file.name,
                "function": function,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            },
            command=f"mico benchmark --tier {tier.name} --attack {file.name}:{function}",
        )
    else:
        about = about_named(attack, tier.name)
    return replace(about, name=args.name or about.name, authors=tuple(args.authors), link=args.link)


def _show(tier: Tier, mine: Sequence[Entry], found: Sequence[Entry]) -> None:
    """Print the table of these entries and the committed ones, and what to do next."""
    from mico_competition.benchmark.entry import ENTRIES, read_tier
    from mico_competition.benchmark.ranking import board_lines

    names = {entry.name for entry in found}
    others = [entry for entry in read_tier(ENTRIES, tier.name) if entry.name not in names]
    print("\n" + "\n".join(board_lines([*found, *others], mine or found, tier.scenarios)))
    if mine:
        print()
    for entry in mine:
        print(f"Entry: {entry.path}")
    if any(entry.values["file"] for entry in mine):
        shown = " ".join(f"--with {entry.path}" for entry in mine)
        print(
            f"A page with {'it' if len(mine) == 1 else 'them'}: `mico leaderboard build {shown}`.\n"
            "To submit it, copy the file to src/mico_competition/benchmark/entries/"
            f"{tier.name} of your\nclone, run `mico leaderboard check` on it, and open a pull "
            "request with this one file\n(docs/LEADERBOARD.md)."
        )
    report(
        "benchmark",
        tier=tier.name,
        entries=[
            {"name": e.name, "file": e.path, "average": e.values["average"]} for e in mine or found
        ],
    )
