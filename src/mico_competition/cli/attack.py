"""`mico attack [NAME] FOLDER`: flags -> an attack, signals, prediction files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mico_competition.cli.attack_options import (
    add_folds,
    add_isolate,
    add_scenario,
    add_signal_flags,
    attacks_named,
    check_attack_names,
    opener,
)
from mico_competition.competition.layout import predictions_folder, walk_challenge
from mico_competition.competition.table import CHALLENGES, PHASE_NAMES
from mico_competition.support.command_line import (
    UsageError,
    load_torch,
    output_folder,
    path_or_name,
)
from mico_competition.support.counts import count_of

_DEFAULT = "threshold"


def add_attack(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of attacks that write predictions."""
    parser.usage = "%(prog)s [NAME] FOLDER [options]"
    parser.add_argument(
        "what",
        type=path_or_name,
        nargs="+",
        metavar="[NAME] FOLDER",
        help=f"an attack's name (default: {_DEFAULT}; `mico attacks` lists them), then the "
        f"folder with scenarios, named after its challenge ({', '.join(CHALLENGES)})",
    )
    parser.add_argument(
        "--attack",
        type=path_or_name,
        metavar="NAME",
        help="the attack's name, or file.py:function",
    )
    parser.add_argument(
        "--predictions",
        type=output_folder,
        help="folder to write predictions to (default: FOLDER.predictions, beside FOLDER)",
    )
    add_scenario(parser)
    parser.add_argument("--phase", action="append", choices=PHASE_NAMES, help="default: all phases")
    add_folds(parser)
    add_isolate(parser)
    add_signal_flags(parser)
    parser.set_defaults(run=run_attack)


def run_attack(args: argparse.Namespace) -> None:
    """Write the predictions of one attack for a challenge folder."""
    name, folder = _named(args)
    check_attack_names([name])
    load_torch()
    phases = tuple(args.phase or PHASE_NAMES)
    target = args.predictions or predictions_folder(folder)
    models = walk_challenge(folder, phases=list(phases))
    wanted = [m for m in models if args.scenario is None or m.scenario in args.scenario]
    earlier = sum(model.prediction_in(target).is_file() for model in wanted)
    if name == _DEFAULT:
        count = _threshold(args, folder, phases)
    else:
        from mico_competition.evaluation.evaluate import Options
        from mico_competition.evaluation.predict import attack_folder

        (attack,) = attacks_named(args, [name])
        count = attack_folder(
            folder,
            attack,
            opener(args, folder, "all" if attack.all_records else "challenge"),
            predictions=args.predictions,
            phases=phases,
            scenarios=args.scenario,
            options=Options(folds=args.folds),
        )
    replaced = f", in place of {earlier} earlier ones" if earlier else ""
    print(f"Wrote predictions of {name} for {count_of(count, 'model')} to {target}{replaced}")


def _named(args: argparse.Namespace) -> tuple[str, Path]:
    """The attack's name and the folder, from one or two words and --attack."""
    from mico_competition.attacks.registry import ROWS
    from mico_competition.support.spelling import nearest

    *names, folder = args.what
    if args.attack is not None:
        names.append(args.attack)
    if len(names) > 1:
        raise UsageError(f"Expected one attack, got {', '.join(names)}: name it once.")
    if not names and not Path(folder).is_dir():
        if folder in ROWS:
            raise UsageError(f"Name the folder to attack: mico attack {folder} FOLDER.")
        if Path(folder).name == folder and (near := nearest(folder, ROWS)):
            raise UsageError(
                f"There is no folder {folder}: name attack and folder, mico attack {near[0]} "
                "FOLDER."
            )
    return (names or [_DEFAULT])[0], Path(folder)


def _threshold(args: argparse.Namespace, folder: Path, phases: Sequence[str]) -> int:
    """The loss threshold, which needs no shadow models: each model on its own points alone."""
    from mico_competition.data.datasets import load_dataset
    from mico_competition.evaluation.predict import attack_challenge
    from mico_competition.models.inputs import default_device

    attacks_named(args, [_DEFAULT])
    return attack_challenge(
        folder,
        lambda task: load_dataset(task, args.dataset_dir, args.download),
        predictions=args.predictions,
        phases=phases,
        scenarios=args.scenario,
        device=default_device(),
    )
