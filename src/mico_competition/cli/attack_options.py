"""Shared by verbs that run attacks: flags, attacks by name, and a function that opens signals."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.attacks.registry import TABLE, check_name, get_attack
from mico_competition.cli.train import add_data
from mico_competition.competition.table import CHALLENGES, SCENARIOS
from mico_competition.support.command_line import UsageError, output_folder, usage, whole_number

if TYPE_CHECKING:
    from mico_competition.attacks.problem import Attack
    from mico_competition.evaluation.predict import Open
    from mico_competition.signals.source import Source


def add_scenario(parser: argparse.ArgumentParser) -> None:
    """`--scenario`, which may be repeated."""
    parser.add_argument(
        "--scenario",
        action="append",
        choices=SCENARIOS,
        help="may be repeated; `mico tracks` lists all (default: those in the folder)",
    )


def add_folds(parser: argparse.ArgumentParser) -> None:
    """`--folds`."""
    parser.add_argument(
        "--folds",
        type=int,
        default=5,
        help="folds of the train models, for attacks that cannot leave one model out",
    )


def add_isolate(parser: argparse.ArgumentParser) -> None:
    """`--isolate`."""
    parser.add_argument(
        "--isolate",
        action="store_true",
        help="run attacks of file.py:function in a process that can access only their arrays; use "
        "it for files that you did not write",
    )


def add_signal_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for options of attacks, datasets and the cache."""
    for row in TABLE:
        for flag in row.flags:
            parser.add_argument(
                f"--{flag}", action="store_true", help=f"option of the attack {row.name}"
            )
    parser.add_argument(
        "--base_model",
        metavar="FOLDER",
        help="the model that text models were fine-tuned from, a folder or a name on the Hugging "
        "Face Hub: the attack layers then knows how far each weight moved",
    )
    parser.add_argument(
        "--cache", type=output_folder, help="folder to keep signals in (default: the user's cache)"
    )
    add_data(parser)


def attacks_named(args: argparse.Namespace, names: Sequence[str]) -> list[Attack]:
    """The attacks with these names, once each, with their options."""
    check_attack_names(names)
    from mico_competition.evaluation.custom import find_attack

    options: dict[str, dict[str, bool]] = {}
    for row in TABLE:
        given = {flag: True for flag in row.flags if getattr(args, flag)}
        if given and row.name not in names:
            raise UsageError(f"--{next(iter(given))} is an option of the attack {row.name}.")
        options[row.name] = given
    return [
        get_attack(name, **options[name])
        if options.get(name)
        else find_attack(name, isolate=getattr(args, "isolate", False))
        for name in dict.fromkeys(names)
    ]


def check_attack_names(names: Iterable[str | None]) -> None:
    """ValueError for an unknown attack, before torch is imported or data are loaded."""
    for name in names:
        if name is not None and not _of_a_file(name):
            with usage():
                check_name(name)


def _of_a_file(name: str) -> bool:
    """Whether an attack is named as file.py:function; ValueError if there is no such file."""
    path, colon, function = name.rpartition(":")
    if not colon and not name.endswith(".py"):
        return False
    if not path.endswith(".py") or not function:
        raise UsageError(f"Expected an attack's name or path/to/file.py:function, got {name!r}.")
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path} to take the attack {function} from.")
    return True


def opener(args: argparse.Namespace, folder: Path, usual: str = "challenge") -> Open:
    """A function that opens signals of a scenario's models; it loads each dataset once.

    `usual` is the default choice of records.
    """
    from mico_competition.data.datasets import load_dataset
    from mico_competition.signals import open_signals

    loaded: dict[str, Any] = {}

    def open_scenario(scenario: str, phases: Sequence[str], records: str | None = None) -> Source:
        task = SCENARIOS[scenario].task
        if task not in loaded:
            loaded[task] = load_dataset(task, args.dataset_dir, args.download)
        return open_signals(
            folder,
            scenario,
            loaded[task],
            records=records or usual,
            phases=tuple(phases),
            cache=args.cache,
            base_model=args.base_model,
        )

    return open_scenario


def seed(text: str) -> int:
    """A whole number from 0."""
    if (value := whole_number(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {value}")
    return value


def add_challenge_folder(parser: argparse.ArgumentParser, more: str = "") -> None:
    """The folder of a challenge; `more` is the end of its help text."""
    parser.add_argument(
        "challenge_folder",
        type=Path,
        metavar="FOLDER",
        help=f"folder with scenarios, named after its challenge ({', '.join(CHALLENGES)})"
        + (f"; {more}" if more else ""),
    )
