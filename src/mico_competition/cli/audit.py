"""`mico audit FOLDER`: flags -> scores of an attack, bounds and limits, files."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mico_competition.cli.arrays import OF_SCORES, audit_arrays, is_arrays
from mico_competition.cli.attack_options import (
    add_challenge_folder,
    add_isolate,
    add_scenario,
    add_signal_flags,
    attacks_named,
    check_attack_names,
    opener,
    seed,
)
from mico_competition.competition.table import PHASE_NAMES, SEED_FILES, as_read
from mico_competition.support.command_line import (
    UsageError,
    load_torch,
    output_file,
    path_or_name,
)
from mico_competition.support.progress import stage
from mico_competition.support.reports import add_json, report, report_text

if TYPE_CHECKING:
    from mico_competition.audit.verdict import Scored

_DEFAULT = "best"


def add_audit(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of audits."""
    add_challenge_folder(
        parser, f"or FILE.npz, scores of your own: {OF_SCORES}, as epsilon_bounds takes them"
    )
    parser.add_argument(
        "--attack",
        type=path_or_name,
        metavar="NAME",
        help="run this attack: on dev models if their seeds are available, else on half of the "
        f"train models with the other half as shadows (default: {_DEFAULT})",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        help="audit the predictions in this challenge folder instead",
    )
    parser.add_argument(
        "--phase",
        choices=PHASE_NAMES,
        help="with --predictions: the phase of the models (default: train)",
    )
    add_scenario(parser)
    parser.add_argument(
        "--delta", type=float, help="delta of every epsilon (default: the claimed delta)"
    )
    parser.add_argument("--level", type=float, default=0.95, help="confidence of bounds")
    parser.add_argument(
        "--guesses",
        type=plan,
        action="append",
        metavar="IN,OUT",
        help="for one-run bounds, guess that the IN highest scores are members and the OUT lowest "
        "are not; choose before looking at results; if repeated, the best counts, with a "
        "correction for all (default: a list of plans from 16 guesses to all points)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the choice of halves")
    add_json(parser, file=True)
    parser.add_argument(
        "--html", type=output_file, help="also write a page with curves and limits here"
    )
    add_isolate(parser)
    add_signal_flags(parser)
    parser.set_defaults(run=run_audit)


def plan(text: str) -> tuple[int, int]:
    """Parse a plan of guesses."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected IN,OUT, such as 550,550, got {text!r}")
    if sum(map(int, parts)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least one guess, got {text!r}")
    return int(parts[0]), int(parts[1])


def run_audit(args: argparse.Namespace) -> int:
    """Print the audit of each scenario; return 1 if a lower bound exceeds the claim.

    If all claims hold, the probability of 1 is 1 - level at most, over all scenarios and bounds.
    """
    check_attack_names([args.attack])
    load_torch()
    if is_arrays(args.challenge_folder):
        audit_arrays(args)
        return 0
    from mico_competition.audit.checked import check_delta, check_level
    from mico_competition.audit.report import record, text, to_html
    from mico_competition.audit.verdict import judge
    from mico_competition.support.files import write_text
    from mico_competition.support.made import made_line

    if args.delta is not None:
        check_delta(args.delta, zero=False)
    check_level(args.level)
    verdicts = []
    audits, scores = _scored(args)
    options = {"delta": args.delta, "level": args.level, "guesses": args.guesses}
    for scored in scores:
        with stage("Bounds on epsilon"):
            verdicts.append(judge(scored, audits=audits, **options))
        print(("\n" if len(verdicts) > 1 else "") + text(verdicts[-1:]), flush=True)
    alarm = any(verdict.alarm for verdict in verdicts)
    found = {"alarm": alarm, "scenarios": [record(verdict) for verdict in verdicts]}
    report("audit", **found)
    written = []
    if isinstance(args.json, Path):
        written.append((args.json, report_text("audit", **found)))
    if args.html is not None:
        made = made_line(what=args.challenge_folder.resolve().name)
        written.append((args.html, to_html(verdicts, made=made)))
    for path, content in written:
        write_text(path, content)
        print(f"Wrote {path}")
    return 1 if alarm else 0


def _scored(args: argparse.Namespace) -> tuple[int, Iterator[Scored]]:
    """The number of scenarios with a claim, and an iterator over their scores."""
    from mico_competition.audit.claims import claim_of
    from mico_competition.audit.gather import scored_attack, scored_predictions
    from mico_competition.audit.guesses import plans_of
    from mico_competition.competition.layout import walk_challenge
    from mico_competition.competition.lengths import len_challenge_of

    if args.predictions is not None:
        if args.attack is not None:
            raise UsageError("Expected --attack or --predictions, got both: give one.")
        found = scored_predictions(
            args.challenge_folder, args.predictions, phase=args.phase or "train"
        )
        by_name = {scored.scenario: scored for scored in found}
        _check_there(args, by_name)
        asked = [by_name[name] for name in args.scenario or as_read(by_name)]
        return sum(s.claim is not None for s in asked), iter(asked)
    if args.phase is not None:
        raise UsageError("--phase goes with --predictions: an attack chooses its own targets.")
    (attack,) = attacks_named(args, [args.attack or _DEFAULT])
    open_scenario = opener(
        args, args.challenge_folder, "all" if attack.all_records else "challenge"
    )
    models = walk_challenge(args.challenge_folder)
    there = as_read({model.scenario for model in models})
    _check_there(args, there)
    names = args.scenario or there
    targets = {name: [m for m in models if m.scenario == name] for name in names}
    phases = {}
    for name, mine in targets.items():
        dev = [m for m in mine if m.phase == "dev"]
        known = dev and all((m.path / seed).is_file() for m in dev for seed in SEED_FILES)
        phases[name] = ("train", "dev") if known else ("train",)
    audited = [
        claim_of([m.path for m in targets[name] if m.phase == phases[name][-1]]) for name in names
    ]
    if args.guesses:  # too many guesses are found before the attack runs
        for name in names:
            lengths = [
                len_challenge_of(m.path) for m in targets[name] if m.phase == phases[name][-1]
            ]
            plans_of(args.guesses, 2 * sum(lengths))
    scores = (
        scored_attack(open_scenario(name, phases[name]), attack, seed=args.seed) for name in names
    )
    return sum(claim.claim is not None for claim in audited), scores


def _check_there(args: argparse.Namespace, there: Collection[str]) -> None:
    """ValueError for a scenario that the folder does not hold, before anything is computed."""
    for name in args.scenario or ():
        if name not in there:
            raise ValueError(f"There are no models of {name} in {args.challenge_folder}.")
