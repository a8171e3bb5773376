"""`mico <verb>`: parses its arguments, calls one function of the package, and prints.

Torch and other large packages are imported only when a verb runs, so --help is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mico_competition.cli.attack import add_attack
from mico_competition.cli.attack_options import add_challenge_folder, seed
from mico_competition.cli.attacks import add_attacks
from mico_competition.cli.audit import add_audit
from mico_competition.cli.audit_train import add_audit_train
from mico_competition.cli.bundle import add_bundle, add_rehearse
from mico_competition.cli.evaluate import add_evaluate
from mico_competition.cli.fleet import add_fleet
from mico_competition.cli.hub import add_download, add_publish
from mico_competition.cli.init import add_init
from mico_competition.cli.leaderboard import add_leaderboard, add_score_all
from mico_competition.cli.release import (
    add_leaks,
    add_reference,
    add_release,
    add_reveal,
    add_verify,
)
from mico_competition.cli.signals import add_signals
from mico_competition.cli.train import add_train
from mico_competition.competition.table import (
    CHALLENGES,
    PHASES,
    SCENARIOS,
    TASKS,
    as_read,
    current,
    labels_of,
    using,
)
from mico_competition.support.command_line import (
    Parser,
    load_torch,
    output_file,
    refused,
    run_command,
)
from mico_competition.support.counts import count_of
from mico_competition.support.progress import stage

_FLAG = "--competition"
# Verbs that work whatever MICO_COMPETITION names: `init` writes what it may name later.
_OF_NO_COMPETITION = ("init", "demo")
_DESCRIPTION = "Membership inference competitions: train, release, attack, pack, score."


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code.

    --competition, before or after the verb, is read first, since choices of other flags are its
    rows.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    file, words = split_competition(words)
    with ExitStack() as stack:
        try:
            if file == "":
                raise ValueError(f"Expected {_FLAG} FILE, got an empty name: name the file.")
            if file is not None:
                stack.enter_context(using(file))
            current()
        except (OSError, ValueError) as error:
            if file is not None or not _needs_no_competition(words):
                return refused(error)
            stack.enter_context(using(None))
        return run_command(build_parser(), words)


def split_competition(words: list[str]) -> tuple[str | None, list[str]]:
    """The FILE of --competition FILE or --competition=FILE, and the other words."""
    end = words.index("--") if "--" in words else len(words)
    for at, word in enumerate(words[:end]):
        if word.startswith(f"{_FLAG}="):
            return word.removeprefix(f"{_FLAG}="), [*words[:at], *words[at + 1 :]]
        if word == _FLAG and at + 1 < end:
            return words[at + 1], [*words[:at], *words[at + 2 :]]
    return None, words


def _needs_no_competition(words: list[str]) -> bool:
    """Whether a command works without the competition that MICO_COMPETITION names."""
    flags = words[: words.index("--")] if "--" in words else words
    verb = next((word for word in words if not word.startswith("-")), None)
    return verb in _OF_NO_COMPETITION or "--help" in flags or "-h" in flags


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="mico", description=_DESCRIPTION, allow_abbrev=False)
    _add_competition(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    add_train(_verb(verbs, "train", "train one model of a scenario"))
    add_fleet(_verb(verbs, "fleet", "train many models, continuing where a run stopped"))
    add_release(_verb(verbs, "release", "write what participants may see of trained models"))
    add_leaks(_verb(verbs, "leaks", "search a release for secrets"))
    add_reference(_verb(verbs, "reference", "write one phase's solutions for the scoring program"))
    add_bundle(_verb(verbs, "bundle", "write a competition for Codabench or CodaLab, or check one"))
    add_rehearse(_verb(verbs, "rehearse", "score a submission locally as the platform would"))
    add_leaderboard(_verb(verbs, "leaderboard", "publish scores of submissions as a static site"))
    add_score_all(_verb(verbs, "score-all", "score a folder of zips into leaderboard entries"))
    add_reveal(_verb(verbs, "reveal", "write a phase's withheld labels, for everybody"))
    add_verify(_verb(verbs, "verify", "check files or revealed labels against a release"))
    add_publish(_verb(verbs, "publish", "upload a release to the Hugging Face Hub, with a page"))
    add_download(
        _verb(verbs, "download", "download a published challenge from the Hugging Face Hub")
    )
    add_signals(_verb(verbs, "signals", "compute and cache the signals that attacks need"))
    add_attack(_verb(verbs, "attack", "write an attack's predictions for a challenge folder"))
    add_attacks(_verb(verbs, "attacks", "list or describe the built-in attacks"))
    add_evaluate(_verb(verbs, "evaluate", "measure attacks on models whose members are known"))
    add_audit(_verb(verbs, "audit", "compare lower bounds on epsilon with the claimed one"))
    add_audit_train(
        _verb(verbs, "audit-train", "test the private trainer against its claimed epsilon")
    )
    _add_check(_verb(verbs, "check", "list all faults of predictions or of a submission's zip"))
    _add_submit(_verb(verbs, "submit", "check predictions and zip them"))
    _add_score(_verb(verbs, "score", "score predictions whose solutions are available"))
    _add_demo(_verb(verbs, "demo", "run a whole small competition on scikit-learn's digits"))
    add_init(_verb(verbs, "init", "write a template for your own competition"))
    _add_tracks(_verb(verbs, "tracks", "print the table of scenarios"))
    return parser


def _verb(verbs: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    sentence = f"{help_text[:1].upper()}{help_text[1:]}."
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=help_text, description=sentence, allow_abbrev=False
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_competition(parser)
    return parser


def _add_competition(parser: argparse.ArgumentParser) -> None:
    """Add the flag for --help; `main` removes it from the command line before parsing."""
    parser.add_argument(
        _FLAG,
        metavar="FILE",
        type=_again,
        help="the competition to work on (default: MICO_COMPETITION, else those of the package); "
        "the file names code, which is run: use only files that you trust",
    )


def _add_predictions(parser: argparse.ArgumentParser) -> None:
    add_challenge_folder(parser)
    parser.add_argument(
        "--predictions",
        type=Path,
        help="folder with predictions (default: FOLDER.predictions beside the challenge "
        "folder, or its model folders if they hold predictions, as in 2022)",
    )


def _again(text: str) -> str:
    raise argparse.ArgumentTypeError("give it once")


def _set(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int | None]) -> None:
    parser.set_defaults(run=run)


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_predictions(parser)
    parser.add_argument(
        "--zip", type=Path, help="check this zip instead of the predictions' folder"
    )

    def run(args: argparse.Namespace) -> int:
        from mico_competition.competition.submission import check_folder, check_zip

        if args.zip:
            faults = check_zip(args.zip, args.challenge_folder)
        else:
            faults = check_folder(args.challenge_folder, args.predictions)
        for fault in faults:
            print(fault, file=sys.stderr)
        print(count_of(len(faults), "fault") if faults else "No faults: ready to submit")
        return 1 if faults else 0

    _set(parser, run)


def _add_submit(parser: argparse.ArgumentParser) -> None:
    _add_predictions(parser)
    parser.add_argument(
        "--zip", type=output_file, help="zip to write (default: predictions_<challenge>.zip)"
    )

    def run(args: argparse.Namespace) -> None:
        from mico_competition.competition.layout import challenge_folder_of
        from mico_competition.competition.submission import pack

        name = challenge_folder_of(args.challenge_folder).name
        path = pack(
            args.challenge_folder, args.zip or Path(f"predictions_{name}.zip"), args.predictions
        )
        print(f"Packed {path} ({path.stat().st_size:,} bytes)")

    _set(parser, run)


def _add_score(parser: argparse.ArgumentParser) -> None:
    _add_predictions(parser)
    parser.add_argument("--phase", default="train", choices=PHASES)
    parser.add_argument("--html", type=output_file, help="also write a report with ROC curves here")

    def run(args: argparse.Namespace) -> None:
        from mico_competition.competition.submission import read_phase
        from mico_competition.scoring import generate_html, generate_table, intervals_of
        from mico_competition.scoring.curve import RATES
        from mico_competition.scoring.intervals import describe_intervals
        from mico_competition.scoring.metrics import TITLES
        from mico_competition.scoring.program import score_scenarios
        from mico_competition.support.files import write_text

        values = read_phase(args.challenge_folder, args.predictions, phase=args.phase)
        with stage("Scoring"):
            scores, intervals = score_scenarios(*values), intervals_of(*values, rates=RATES)
        labels = labels_of(scores)
        scores = {name: scores[name] for name in labels}
        table = generate_table(scores, intervals, TITLES)
        table.index = [f"{name} ({label})" for name, label in labels.items()]
        print(table.to_string(float_format="{:.4f}".format))
        known = {name: intervals[name] for name in scores}
        counts = {n: one.get("effective_models", one["models"]) for n, one in known.items()}
        print(describe_intervals(counts))
        if args.html:
            with stage("Report"):
                allowed = _ceilings(args.challenge_folder, args.phase)
                write_text(args.html, generate_html(scores, intervals, allowed, labels))
            print(f"Report: {args.html}")

    _set(parser, run)


def _ceilings(challenge_folder: Path, phase: str) -> Mapping[str, Any]:
    """The largest TPR that privacy allows in each scenario; empty, with a message, if not known."""
    from mico_competition.audit import tpr_limits_of

    try:
        return tpr_limits_of(challenge_folder, phase=phase)
    except ValueError as reason:
        print(f"No limits of privacy in the report. {reason}", file=sys.stderr)
        return {}


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to work in")
    parser.add_argument("--models", type=int, default=30, help="models per scenario and phase")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--seed", type=seed, help="repeat a demonstration: the same seed gives the same scores"
    )

    def run(args: argparse.Namespace) -> None:
        load_torch()
        from mico_competition.demo import run_demo

        with using(None):  # the demonstration is of the package's own digits
            run_demo(args.out, models_per_phase=args.models, workers=args.workers, seed=args.seed)

    parser.set_defaults(run=run, tidy=True)


def _add_tracks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="every column, as JSON")

    def run(args: argparse.Namespace) -> None:
        from dataclasses import asdict

        if args.json:
            rows = [asdict(row) for row in SCENARIOS.values()]
            print(json.dumps(rows, indent=2).replace("Infinity", "null"))
            return
        form = "{:16} {:12} {:>7} {:>7} {:>5} {:>9} {:>7} {:>6} {:>6}"
        print(
            form.format(
                "scenario", "challenge", "epsilon", "n", "C", "optimizer", "lr", "L", "epochs"
            )
        )
        ordered = [SCENARIOS[name] for names in CHALLENGES.values() for name in as_read(names)]
        for row in ordered:
            norm = "-" if row.max_grad_norm is None else f"{row.max_grad_norm:g}"
            cells = (
                row.name,
                row.challenge,
                f"{row.target_epsilon:g}",
                TASKS[row.task].len_training,
                norm,
                row.optimizer,
                f"{row.learning_rate:g}",
                row.batch_size,
                row.num_epochs,
            )
            print(form.format(*cells))

    _set(parser, run)
