"""`mico attack [NAME] FOLDER` and `mico evaluate FOLDER`: flags -> attacks, signals, files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.cli.train import add_data
from mico_competition.tracks import CHALLENGES, PHASES, SCENARIOS

if TYPE_CHECKING:
    from mico_competition.evaluation.evaluate import Evaluation
    from mico_competition.evaluation.predict import Open
    from mico_competition.evaluation.problem import Attack, Source
    from mico_competition.evaluation.study import Step

_DEFAULT = "threshold"
_FIRST_PRINCIPLES = ("global_variance", "logit_scaling", "stable_logit_scaling", "online_attack")
_DEFAULTS_OF_EVALUATE = ("threshold", "winner-2023", "lira-online-global", "rmia", "bavaria", "eb")
_FOLDS = "folds of the train models, for attacks that cannot leave one model out"


def add_attack(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of attacks that write predictions."""
    parser.add_argument(
        "what",
        nargs="+",
        metavar="[NAME] FOLDER",
        help=f"an attack's name (default: {_DEFAULT}; a wrong one prints them all), then the "
        f"folder with scenarios, named after its challenge ({', '.join(CHALLENGES)})",
    )
    parser.add_argument("--attack", metavar="NAME", help="the attack's name, or file.py:function")
    parser.add_argument(
        "--predictions",
        type=Path,
        help="challenge folder that predictions are in (default: the model folders themselves)",
    )
    parser.add_argument("--phase", action="append", choices=PHASES, help="default: all phases")
    parser.add_argument("--folds", type=int, default=5, help=_FOLDS)
    add_signal_flags(parser)
    parser.set_defaults(run=run_attack)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of evaluations."""
    parser.add_argument(
        "challenge_folder",
        type=Path,
        metavar="FOLDER",
        help=f"folder with scenarios, named after its challenge ({', '.join(CHALLENGES)})",
    )
    parser.add_argument(
        "--attack",
        action="append",
        metavar="NAME",
        help="an attack's name, or file.py:function; may be repeated "
        f"(default: {', '.join(_DEFAULTS_OF_EVALUATE)})",
    )
    parser.add_argument(
        "--against", metavar="NAME", help="compare with this (default: the winner's best formula)"
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="default: all in the folder"
    )
    parser.add_argument(
        "--phase",
        default="train",
        choices=PHASES,
        help="whose models to attack; dev and final need their seeds (default: train)",
    )
    parser.add_argument(
        "--records",
        default="challenge",
        choices=("challenge", "all"),
        help="points asked for; all records give a low-noise estimate",
    )
    parser.add_argument(
        "--knowledge",
        choices=("standard", "distinguisher"),
        help="what is told of targets (default: what their scenario tells of dev models)",
    )
    parser.add_argument("--folds", type=int, default=5, help=_FOLDS)
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over models")
    parser.add_argument(
        "--shadows",
        type=_counts,
        default=(),
        metavar="N,N,...",
        help="also study each attack with so many shadow models",
    )
    parser.add_argument("--seed", type=int, default=0, help="of folds, resamples and studies")
    parser.add_argument(
        "--blind_check",
        default="auto",
        choices=("auto", "always", "never"),
        help="check that no attack uses its own target's labels (auto: unless it is white-box)",
    )
    for name, what in (("csv", "a table"), ("json", "everything"), ("html", "a page with ROCs")):
        parser.add_argument(f"--{name}", type=Path, help=f"also write {what} here")
    add_signal_flags(parser)
    parser.set_defaults(run=run_evaluate)


def add_signal_flags(parser: argparse.ArgumentParser) -> None:
    """What attacks of both verbs share: options of the runner-up's, datasets, the cache."""
    for name in _FIRST_PRINCIPLES:
        parser.add_argument(
            f"--{name}", action="store_true", help="option of the attack first-principles"
        )
    parser.add_argument(
        "--cache", type=Path, help="folder to keep signals in (default: the user's cache)"
    )
    add_data(parser)


def _counts(text: str) -> tuple[int, ...]:
    """Numbers separated by commas, such as 4,8,16."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 4,8,16, got {text!r}") from None


def run_attack(args: argparse.Namespace) -> None:
    """Write the predictions of one attack for a challenge folder."""
    name, folder = _named(args)
    phases = tuple(args.phase or PHASES)
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
            options=Options(folds=args.folds),
        )
    print(f"Wrote predictions for {count} models to {args.predictions or folder}")


def _named(args: argparse.Namespace) -> tuple[str, Path]:
    """The attack's name and the folder, from one or two words and --attack."""
    *names, folder = args.what
    if args.attack is not None:
        names.append(args.attack)
    if len(names) > 1:
        raise ValueError(f"Expected one attack, got {', '.join(names)}: name it once.")
    if not names and not Path(folder).is_dir():
        from mico_competition.evaluation.named import attacks

        if folder in attacks():
            raise ValueError(f"Name the folder to attack: mico attack {folder} FOLDER.")
    return (names or [_DEFAULT])[0], Path(folder)


def _threshold(args: argparse.Namespace, folder: Path, phases: Sequence[str]) -> int:
    """The loss threshold, which needs no shadow models: each model on its own points alone."""
    from mico_competition.baseline import attack_challenge
    from mico_competition.challenge_datasets import load_dataset
    from mico_competition.inputs import default_device

    attacks_named(args, [_DEFAULT])
    return attack_challenge(
        folder,
        lambda task: load_dataset(task, args.dataset_dir, args.download),
        predictions=args.predictions,
        phases=phases,
        device=default_device(),
    )


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure attacks, print a table a scenario, write files."""
    from mico_competition.evaluation import page, table
    from mico_competition.layout import write_text

    attacks = attacks_named(args, args.attack or _DEFAULTS_OF_EVALUATE)
    others = [] if args.against is None else attacks_named(args, [args.against])
    against = others[0] if others else None
    found: list[tuple[Evaluation, list[Step]]] = []
    scenarios = _scenarios(args)
    every = args.records == "all" or any(attack.all_records for attack in (*attacks, *others))
    open_scenario = opener(args, args.challenge_folder, "all" if every else "challenge")
    phases = ("train",) if args.phase == "train" else ("train", args.phase)
    for scenario in scenarios:
        pair = _evaluate(args, open_scenario(scenario, phases), attacks, against)
        print(("\n" if found else "") + table.text(*pair), flush=True)
        found.append(pair)
    rows = [row for pair in found for row in table.records(*pair)]
    written = (
        (args.csv, lambda: table.to_csv(rows)),
        (args.json, lambda: table.to_json(found)),
        (args.html, lambda: page.to_html(found)),
    )
    for path, make in written:
        if path is not None:
            write_text(path, make())
            print(f"Wrote {path}")


def _scenarios(args: argparse.Namespace) -> list[str]:
    """The scenarios asked for, or all in the folder that have models of the phase."""
    from mico_competition.layout import walk_challenge

    phases = [args.phase] if args.phase == "train" else ["train", args.phase]
    models = walk_challenge(
        args.challenge_folder, phases=phases, mend="name the folder of a challenge."
    )
    there = dict.fromkeys(m.scenario for m in models if m.phase == args.phase)
    chosen = args.scenario or list(there)
    for name in chosen:
        if name not in there:
            raise ValueError(
                f"There are no {args.phase} models of {name} in {args.challenge_folder}."
            )
    if not chosen:
        raise ValueError(f"There are no {args.phase} models in {args.challenge_folder}.")
    return chosen


def _evaluate(
    args: argparse.Namespace, source: Source, attacks: Sequence[Attack], against: Attack | None
) -> tuple[Evaluation, list[Step]]:
    """One scenario's numbers, and the study if it is asked for."""
    from mico_competition.evaluation.evaluate import Options, evaluate
    from mico_competition.evaluation.folds import ask
    from mico_competition.evaluation.study import study
    from mico_competition.tracks import DISTINGUISHER

    default = SCENARIOS[source.fleet.scenario].disclosure == DISTINGUISHER
    known = args.knowledge == "distinguisher" if args.knowledge else default
    asked = ask(source, args.phase, records=args.records, known=known, seed=args.seed)
    options = Options(args.folds, args.resamples, args.seed, args.blind_check)
    found = evaluate(asked, attacks, against=against, records=args.records, options=options)
    steps = []
    for attack in attacks if args.shadows else ():
        steps += study(
            asked,
            attack,
            args.shadows,
            folds=args.folds,
            resamples=args.resamples,
            seed=args.seed,
        )
    return found, steps


def attacks_named(args: argparse.Namespace, names: Sequence[str]) -> list[Attack]:
    """The attacks of these names, once each; the runner-up's with the options given."""
    from mico_competition.evaluation.custom import find_attack
    from mico_competition.evaluation.named import first_principles_with

    options = {name: True for name in _FIRST_PRINCIPLES if getattr(args, name)}
    if options and "first-principles" not in names:
        raise ValueError(f"--{next(iter(options))} is an option of the attack first-principles.")
    return [
        first_principles_with(**options)
        if name == "first-principles" and options
        else find_attack(name)
        for name in dict.fromkeys(names)
    ]


def opener(args: argparse.Namespace, folder: Path, records: str = "challenge") -> Open:
    """What opens signals of a scenario's models of some phases; each dataset is loaded once."""
    from mico_competition.challenge_datasets import load_dataset
    from mico_competition.signals import open_signals

    loaded: dict[str, Any] = {}

    def open_scenario(scenario: str, phases: Sequence[str]) -> Source:
        task = SCENARIOS[scenario].task
        if task not in loaded:
            loaded[task] = load_dataset(task, args.dataset_dir, args.download)
        return open_signals(
            folder,
            scenario,
            loaded[task],
            records=records,
            phases=tuple(phases),
            cache=args.cache,
        )

    return open_scenario
