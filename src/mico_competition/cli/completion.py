"""`mico completion SHELL`: a script with which a shell completes verbs, flags, names and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mico_competition.support.command_line import output_file, path_or_name

SHELLS = ("bash", "zsh", "tcsh")
_BASH = """_mico_attack_or_file() {
  compgen -W "%s" -- "$1"
  compgen -f -- "$1"
}"""


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Give `parser` what `mico completion` takes."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=" or ".join(SHELLS))
    parser.set_defaults(run=_run_completion)


def _run_completion(args: argparse.Namespace) -> None:
    import shtab

    from mico_competition.attacks.registry import ROWS
    from mico_competition.cli import build_parser

    parser = build_parser()
    names = " ".join(ROWS)
    attack_or_file = {
        "bash": "_mico_attack_or_file",
        "zsh": f"_alternative 'attacks:attack:({names})' 'files:file:_files'",
        "tcsh": "f",
    }
    for action in _actions(parser):
        if action.dest in ("attack", "against", "what"):
            action.complete = attack_or_file  # type: ignore[attr-defined]
        elif action.type in (Path, output_file, path_or_name):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest == "name" and action.nargs == "*":
            action.choices = tuple(ROWS)
    preamble: Any = {"bash": _BASH % names}  # by shell, as all versions of shtab take it
    print(shtab.complete(parser, args.shell, preamble=preamble))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All flags and words of a parser and of those below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
