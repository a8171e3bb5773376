"""`verbs`: every verb of the command line, from the parser that runs it."""

import argparse
import re
from collections.abc import Iterator
from copy import copy
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mico_competition.cli import build_parser

NOT_SHOWN = ("help", "competition", "quiet")  # the same for every verb; the page describes them


def subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The verbs of a parser, and those of verbs (`mico fleet status`), by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def usage(parser: argparse.ArgumentParser, shown: list[argparse.Action]) -> str:
    """The command in short: its verbs, and the arguments that must be given."""
    words = [parser.prog]
    words += [takes(parser, one) for one in shown if not one.option_strings]
    words += [f"{one.option_strings[-1]} {takes(parser, one)}" for one in shown if required(one)]
    if any(one.option_strings and not required(one) for one in shown):
        words.append("[OPTIONS]")
    return " ".join([*words, *(["VERB"] if list(subcommands(parser)) else [])])


def required(action: argparse.Action) -> bool:
    """Whether a flag must be given."""
    return bool(action.option_strings) and action.required


def takes(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What stands for the values of an argument; its choices are listed below it."""
    name = action.dest.upper() if action.option_strings else action.dest
    named = copy(action)
    named.metavar = action.metavar or name
    return str(parser._get_formatter()._format_args(named, name))


def with_flags(text: str) -> Iterator[nodes.Node]:
    """The text, with commands in `backticks` and flags as code."""
    for i, part in enumerate(re.split(r"(`[^`]+`|(?<!\S)--\w[\w-]*)", text)):
        yield nodes.literal("", part.strip("`")) if i % 2 else nodes.Text(part)


def describe(parser: argparse.ArgumentParser, action: argparse.Action) -> nodes.Node:
    """One argument: its names and what it takes, then its help and its choices."""
    names = ", ".join(action.option_strings)
    item = nodes.definition_list_item()
    item += nodes.term("", "", nodes.literal("", f"{names} {takes(parser, action)}".strip()))
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    about = nodes.paragraph("", "", *with_flags(text))
    if action.choices and not isinstance(action.metavar, tuple):
        choices = ", ".join(str(choice) for choice in action.choices)
        about += nodes.Text(f"{'. ' if text else ''}One of: {choices}.")
    item += nodes.definition("", about)
    return item


def section_of(parser: argparse.ArgumentParser) -> nodes.section:
    """A verb: what it does, its usage, arguments and examples, and its own verbs."""
    section = nodes.section(ids=[parser.prog.replace(" ", "-")])
    section += nodes.title(parser.prog, parser.prog)
    if parser.description:
        section += nodes.paragraph("", parser.description)
    shown = [
        action
        for action in parser._actions
        if action.dest not in NOT_SHOWN
        and action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._SubParsersAction)
    ]
    line = usage(parser, shown)
    section += nodes.literal_block(line, line, language="text")
    if shown:
        section += nodes.definition_list("", *(describe(parser, one) for one in shown))
    if parser.epilog:
        section += nodes.literal_block(parser.epilog, parser.epilog, language="text")
    section += [section_of(inner) for _, inner in unique(parser)]
    return section


def unique(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The verbs of a parser, each once, under its first name."""
    seen: set[int] = set()
    for name, inner in subcommands(parser):
        if id(inner) not in seen:
            seen.add(id(inner))
            yield name, inner


class Verbs(SphinxDirective):
    """A section for each verb of `mico`."""

    def run(self) -> list[nodes.Node]:
        """One section a verb."""
        return [section_of(parser) for _, parser in unique(build_parser())]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("verbs", Verbs)
    return {"parallel_read_safe": True}
