"""`mico evaluate FOLDER`: flags -> attacks measured, tables and files, a scenario at a time."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.cli.arrays import OF_MODELS, evaluate_arrays, is_arrays
from mico_competition.cli.attack_options import (
    add_challenge_folder,
    add_folds,
    add_isolate,
    add_scenario,
    add_signal_flags,
    attacks_named,
    check_attack_names,
    opener,
    seed,
)
from mico_competition.competition.table import DISTINGUISHER, PHASE_NAMES, SCENARIOS, as_read
from mico_competition.support.command_line import (
    UsageError,
    load_torch,
    output_file,
    path_or_name,
    whole_number,
)
from mico_competition.support.reports import add_json, report, report_text

if TYPE_CHECKING:
    from mico_competition.attacks.problem import Attack
    from mico_competition.evaluation.rows import Evaluation, Step
    from mico_competition.signals.source import Source

_DEFAULTS_OF_EVALUATE = ("threshold", "winner-2023", "lira-online-global", "rmia", "bavaria", "eb")
_FILES = {"csv": "a table", "html": "a page with ROCs"}

Found = list[tuple["Evaluation", "list[Step]"]]


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of evaluations."""
    add_challenge_folder(
        parser, f"or FILE.npz, arrays of your own: {OF_MODELS}, as ModelPool takes them"
    )
    parser.add_argument(
        "--attack",
        type=path_or_name,
        action="append",
        metavar="NAME",
        help="an attack's name, or file.py:function; may be repeated "
        f"(default: {', '.join(_DEFAULTS_OF_EVALUATE)})",
    )
    parser.add_argument(
        "--against",
        type=path_or_name,
        metavar="NAME",
        help="compare with this (default: the winner's best formula)",
    )
    add_scenario(parser)
    parser.add_argument(
        "--phase",
        default="train",
        choices=PHASE_NAMES,
        help="phase of the target models; dev and final need their seeds (default: train)",
    )
    parser.add_argument(
        "--records",
        default="challenge",
        choices=("challenge", "all"),
        help="points to score; all records give a low-noise estimate",
    )
    parser.add_argument(
        "--knowledge",
        choices=("standard", "distinguisher"),
        help="knowledge of the targets' members (default: as disclosed for dev models)",
    )
    add_folds(parser)
    parser.add_argument(
        "--resamples", type=int, default=1000, help="resamples of the bootstrap over models"
    )
    parser.add_argument(
        "--shadows",
        type=_counts,
        default=(),
        metavar="N,N,...",
        help="also evaluate with these numbers of shadow models (from 2; some attacks need 3 or 4)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of folds, resamples and studies")
    parser.add_argument(
        "--blind_check",
        default="auto",
        choices=("auto", "always", "never"),
        help="check that no attack uses its own target's labels (auto: unless it is white-box)",
    )
    add_json(parser, file=True)
    for name, what in _FILES.items():
        parser.add_argument(f"--{name}", type=output_file, help=f"also write {what} here")
    add_isolate(parser)
    add_signal_flags(parser)
    parser.set_defaults(run=run_evaluate)


def _counts(text: str) -> tuple[int, ...]:
    """Numbers separated by commas, such as 4,8,16."""
    return tuple(whole_number(part.strip()) for part in text.split(","))


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure attacks, print a table for each scenario, and write files.

    Files are written after each scenario, and before its study, so that no result is lost.
    """
    check_attack_names([*(args.attack or ()), args.against])
    load_torch()
    if is_arrays(args.challenge_folder):
        evaluate_arrays(args)
        return
    from mico_competition.evaluation.evaluate import check_names

    attacks, against = _attacks(args)
    check_names(attacks, against)
    write = _writer(args)
    scenarios = _scenarios(args)
    open_scenario = opener(args, args.challenge_folder)
    phases = ("train",) if args.phase == "train" else ("train", args.phase)
    kinds = _kinds(args, attacks, against)
    found: Found = []
    for scenario in scenarios:
        sources = {kind: open_scenario(scenario, phases, kind) for kind in kinds}
        for evaluation, steps in _evaluated(args, sources, attacks, against, first=not found):
            found = [pair for pair in found if pair[0] is not evaluation]
            found.append((evaluation, steps))
            write(found, False)
    write(found, True)
    for path in _paths(args).values():
        print(f"Wrote {path}")
    report("evaluate", scenarios=_scenarios_of(found))


def _kinds(
    args: argparse.Namespace, attacks: Sequence[Attack], against: Attack | None
) -> list[str]:
    """The signals that the attacks need: of all records, of the challenge points, or both.

    Each attack receives what it needs, so its numbers do not depend on the others.
    """
    if args.records == "all":
        return ["all"]
    wants = {attack.all_records for attack in attacks if attack is not against}
    wants.add(against is not None and against.all_records)
    return [kind for kind, wide in (("challenge", False), ("all", True)) if wide in wants]


def _evaluated(
    args: argparse.Namespace,
    sources: Mapping[str, Source],
    attacks: Sequence[Attack],
    against: Attack | None,
    *,
    first: bool,
) -> Iterator[tuple[Evaluation, list[Step]]]:
    """Yield one scenario's numbers; then, with --shadows, again with the study. Print both."""
    from mico_competition.evaluation import table
    from mico_competition.evaluation.cross_fitting import make_task
    from mico_competition.evaluation.evaluate import Options, evaluate
    from mico_competition.evaluation.study import parts_of_study, study

    scenario = next(iter(sources.values())).fleet.scenario
    default = SCENARIOS[scenario].disclosure == DISTINGUISHER
    known = args.knowledge == "distinguisher" if args.knowledge else default
    by_kind = {
        kind: make_task(source, args.phase, records=args.records, known=known, seed=args.seed)
        for kind, source in sources.items()
    }
    task = next(iter(by_kind.values()))
    wide = by_kind.get("all", task)
    studied = attacks if args.shadows else ()
    for attack in studied:  # before any attack has run
        parts_of_study(
            wide if attack.all_records else task,
            attack,
            args.shadows,
            folds=args.folds,
            seed=args.seed,
        )
    bands = args.html is not None
    options = Options(args.folds, args.resamples, args.seed, args.blind_check, bands)
    found = evaluate(
        task, attacks, against=against, wide=wide, records=args.records, options=options
    )
    print(("" if first else "\n") + table.text(found), flush=True)
    yield found, []
    steps = []
    for attack in studied:
        steps += study(
            wide if attack.all_records else task,
            attack,
            args.shadows,
            folds=args.folds,
            resamples=args.resamples,
            seed=args.seed,
        )
    if steps:
        print("\n" + table.study_text(steps), flush=True)
        yield found, steps


def _attacks(args: argparse.Namespace) -> tuple[list[Attack], Attack | None]:
    """The attacks to measure and the one to compare with; an option may belong to either."""
    names = list(dict.fromkeys(args.attack or _DEFAULTS_OF_EVALUATE))
    others = [] if args.against is None else [args.against]
    found = dict(zip(dict.fromkeys([*names, *others]), attacks_named(args, [*names, *others])))
    return [found[name] for name in names], found.get(args.against)


def _paths(args: argparse.Namespace) -> dict[str, Path]:
    """The paths of the requested files, by kind."""
    given = {name: getattr(args, name) for name in ("json", *_FILES)}
    return {name: path for name, path in given.items() if isinstance(path, Path)}


def _writer(args: argparse.Namespace) -> Callable[[Found, bool], None]:
    """A function that writes the requested files; it writes to streams only at the end.

    Raises:
        ValueError: if they cannot be written, before anything is computed.
    """
    from mico_competition.evaluation import page, table
    from mico_competition.support.files import is_stream, write_text
    from mico_competition.support.made import made_line

    paths = _paths(args)
    if len({os.path.abspath(path) for path in paths.values()}) < len(paths):
        raise UsageError("Expected different files for --csv, --json and --html.")
    make: dict[str, Callable[[Found], str]] = {
        "csv": lambda found: table.to_csv([row for p in found for row in table.records(*p)]),
        "json": lambda found: report_text("evaluate", scenarios=_scenarios_of(found)),
        "html": partial(page.to_html, made=made_line(what=args.challenge_folder.resolve().name)),
    }

    def write(found: Found, whole: bool) -> None:
        for name, path in paths.items():
            if is_stream(path) == whole:
                write_text(path, make[name](found))

    return write


def _scenarios_of(found: Found) -> list[dict[str, Any]]:
    """Evaluations as values for JSON."""
    from mico_competition.evaluation import table

    values: list[dict[str, Any]] = json.loads(table.to_json(found))
    return values


def _scenarios(args: argparse.Namespace) -> list[str]:
    """The named scenarios, or all in the folder that have models of the phase."""
    from mico_competition.competition.layout import walk_challenge

    phases = [args.phase] if args.phase == "train" else ["train", args.phase]
    models = walk_challenge(args.challenge_folder, phases=phases)
    there = as_read({m.scenario for m in models if m.phase == args.phase})
    chosen = list(dict.fromkeys(args.scenario or there))
    for name in chosen:
        if name not in there:
            raise ValueError(
                f"There are no {args.phase} models of {name} in {args.challenge_folder}."
            )
    if not chosen:
        raise ValueError(f"There are no {args.phase} models in {args.challenge_folder}.")
    return chosen
