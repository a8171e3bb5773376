"""`mico signals`: flags -> signals of a challenge folder's models, computed and cached."""

from __future__ import annotations

import argparse
import time
from typing import Any

from mico_competition.cli.attack_options import add_challenge_folder
from mico_competition.cli.train import add_data
from mico_competition.competition.table import PHASE_NAMES, get_scenario
from mico_competition.support.command_line import UsageError, load_torch, output_folder, usage
from mico_competition.support.counts import count_of
from mico_competition.support.reports import add_json, report


def add_signals(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of signals."""
    add_challenge_folder(parser)
    parser.add_argument(
        "--scenario", action="append", metavar="NAME", help="default: all that have models"
    )
    parser.add_argument("--phase", action="append", choices=PHASE_NAMES, help="default: all phases")
    parser.add_argument(
        "--records",
        choices=("challenge", "all"),
        default="challenge",
        help="records to compute: all models' challenge points (default), or the whole dataset",
    )
    parser.add_argument(
        "--signals",
        metavar="NAME[,NAME]",
        default="logits",
        help="signals to compute besides logits, loss, confidence and logit, which are always "
        "computed: entropy, modified_entropy, gradient_norm",
    )
    parser.add_argument(
        "--cache", type=output_folder, help="folder for the signals (default: $MICO_CACHE/signals)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="compute on the Ray cluster at HOST:PORT, or `auto`"
    )
    add_json(parser)
    add_data(parser)
    parser.set_defaults(run=run_signals)


def run_signals(args: argparse.Namespace) -> None:
    """Compute missing signals, scenario by scenario, and print a summary of each."""
    scenarios = _scenarios(args)
    load_torch()
    from mico_competition.data.datasets import load_dataset
    from mico_competition.signals import open_signals
    from mico_competition.signals.signals import kinds_of

    names = ["logits", "logit", *args.signals.split(",")]
    with usage():
        kinds_of(names)  # invalid arguments fail before anything is loaded
    runner = None
    if args.ray is not None:
        from mico_competition.fleets.ray.signals import on_ray

        runner = on_ray(args.ray)
    loaded: dict[str, Any] = {}
    found = []
    for name in scenarios:
        started = time.monotonic()
        task = get_scenario(name).task
        if task not in loaded:
            loaded = {task: load_dataset(task, args.dataset_dir, args.download)}
        signals = open_signals(
            args.challenge_folder,
            name,
            loaded[task],
            records=args.records,
            phases=tuple(args.phase or PHASE_NAMES),
            cache=args.cache,
            runner=runner,
        )
        done = signals.compute(names)
        seconds, points = time.monotonic() - started, len(signals.fleet.records)
        print(
            f"{name}: {count_of(done.models, 'model')} ({done.models - done.made} cached), "
            f"{points} points, {seconds:.1f} s, in {signals.cache.folder}",
            flush=True,
        )
        found.append(
            {
                "scenario": name,
                "models": done.models,
                "cached": done.models - done.made,
                "points": points,
                "seconds": round(seconds, 1),
                "folder": signals.cache.folder,
            }
        )
    report("signals", scenarios=found)


def _scenarios(args: argparse.Namespace) -> list[str]:
    """The named scenarios, or all of the folder that have models."""
    from mico_competition.competition.layout import challenge_folder_of, walk_challenge

    folder = challenge_folder_of(args.challenge_folder)
    if args.scenario:
        with usage():
            asked = [get_scenario(name) for name in args.scenario]
        for scenario in asked:
            if scenario.challenge != folder.name:
                raise UsageError(
                    f"Scenario {scenario.name} belongs to challenge {scenario.challenge}, not "
                    f"{folder.name}: give that challenge's folder."
                )
        return list(dict.fromkeys(args.scenario))
    models = walk_challenge(folder, phases=args.phase)
    return list(dict.fromkeys(model.scenario for model in models))
