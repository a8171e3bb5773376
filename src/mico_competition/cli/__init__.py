"""`mico <verb>`: parses its arguments, calls one function of the package, and prints.

Torch and other large packages are imported only when a verb runs, so --help is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from mico_competition import __version__
from mico_competition.cli.attack import add_attack
from mico_competition.cli.attacks import add_attacks
from mico_competition.cli.audit import add_audit
from mico_competition.cli.audit_train import add_audit_train
from mico_competition.cli.benchmark import add_benchmark
from mico_competition.cli.bundle import add_bundle, add_rehearse
from mico_competition.cli.completion import add_completion
from mico_competition.cli.demo import add_demo
from mico_competition.cli.evaluate import add_evaluate
from mico_competition.cli.examples import examples_of
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
from mico_competition.cli.submission import add_check, add_score, add_submit
from mico_competition.cli.tracks import add_tracks
from mico_competition.cli.train import add_train
from mico_competition.competition.table import current, using
from mico_competition.support.command_line import (
    MISUSED,
    Parser,
    UsageError,
    refused,
    run_command,
)
from mico_competition.support.terminal import styled

_FLAG = "--competition"
_Add = Callable[[argparse.ArgumentParser], None]
# group -> (verb, what it does in a line, what gives it its flags)
GROUPS: dict[str, tuple[tuple[str, str, _Add], ...]] = {
    "Take part in a challenge": (
        ("demo", "run a whole small competition on this machine, in a minute", add_demo),
        ("tracks", "print the table of scenarios", add_tracks),
        ("download", "download a published challenge from the Hugging Face Hub", add_download),
        ("attack", "write an attack's predictions for a challenge folder", add_attack),
        ("check", "list all faults of predictions or of a submission's zip", add_check),
        ("submit", "check predictions and zip them", add_submit),
        ("score", "score predictions whose solutions are available", add_score),
        ("verify", "check files or revealed labels against a release", add_verify),
    ),
    "Attack and audit models": (
        ("attacks", "list or describe the built-in attacks", add_attacks),
        ("signals", "compute and cache the signals that attacks need", add_signals),
        ("evaluate", "measure attacks on models whose members are known", add_evaluate),
        (
            "benchmark",
            "measure an attack on reference fleets, for the leaderboard",
            add_benchmark,
        ),
        ("audit", "compare lower bounds on epsilon with the claimed one", add_audit),
        ("audit-train", "test the private trainer against its claimed epsilon", add_audit_train),
    ),
    "Train models": (
        ("train", "train one model of a scenario", add_train),
        ("fleet", "train many models, continuing where a run stopped", add_fleet),
    ),
    "Organise a competition": (
        ("init", "write a template for your own competition", add_init),
        ("release", "write what participants may see of trained models", add_release),
        ("leaks", "search a release for secrets", add_leaks),
        ("publish", "upload a release to the Hugging Face Hub, with a page", add_publish),
        ("reference", "write one phase's solutions for the scoring program", add_reference),
        ("bundle", "write a bundle for Codabench or CodaLab, or check one", add_bundle),
        ("rehearse", "score a submission locally as the platform would", add_rehearse),
        ("score-all", "score a folder of zips into leaderboard entries", add_score_all),
        ("leaderboard", "publish scores of submissions as a static site", add_leaderboard),
        ("reveal", "write a phase's withheld labels, for everybody", add_reveal),
        ("completion", "print a script that completes words in your shell", add_completion),
    ),
}
# Verbs that work whatever MICO_COMPETITION names: `init` writes what it may name later.
_OF_NO_COMPETITION = ("init", "demo", "completion")
_DESCRIPTION = "Membership inference attacks and DP-SGD, measured against each other."
_WHERE_TO_GO_ON = """\
Where to go on: `mico VERB --help` has examples; `mico demo` tries the verbs.
With models of your own, use Python: `import mico_competition`, README.md."""


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
                raise UsageError(f"Expected {_FLAG} FILE, got an empty name: name the file.")
            if file is not None:
                stack.enter_context(using(file))
            current()
        except (OSError, ValueError) as error:
            if file is not None or not _needs_no_competition(words):
                return refused(error)
            stack.enter_context(using(None))
        verb = next((word for word in words if not word.startswith("-")), "")
        parser = build_parser(verb)
        if not words:
            parser.print_help()
            return MISUSED
        return run_command(parser, words)


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


class _Root(Parser):
    """The parser of `mico` itself, whose help lists the verbs in groups."""

    def format_help(self) -> str:
        size = max(len(name) for verbs in GROUPS.values() for name, *_ in verbs) + 2
        lines = [self.format_usage(), _DESCRIPTION]
        for title, verbs in GROUPS.items():
            lines += ["", styled(f"{title}:", "bold")]
            lines += [f"  {name.ljust(size)}{what}" for name, what, _ in verbs]
        formatter = self._get_formatter()
        formatter.start_section(styled("Options", "bold"))
        formatter.add_arguments(action for action in self._actions if action.dest != "verb")
        formatter.end_section()
        return "\n".join([*lines, "", formatter.format_help(), _WHERE_TO_GO_ON, ""])


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; or with the flags of verb `only` alone, which is quicker."""
    parser = _Root(prog="mico", usage="mico VERB ... [options]", allow_abbrev=False)
    version = f"mico_competition {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    _add_competition(parser)
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="VERB", prog="mico", parser_class=Parser
    )
    for group in GROUPS.values():
        for name, help_text, add in group:
            added = _verb(verbs, name, help_text)
            if only in (None, name):
                add(added)
    return parser


def _verb(verbs: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    sentence = f"{help_text[:1].upper()}{help_text[1:]}."
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=help_text, description=sentence, epilog=examples_of(name), allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
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


def _again(text: str) -> str:
    raise argparse.ArgumentTypeError("give it once")
