"""How --help is laid out: a short usage line, wrapped sentences, and examples as they are."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from mico_competition.support.terminal import width

_MOST_COLUMNS = 80
_MOST_CHOICES = 40  # characters of choices that are listed where a value stands
_INDENT = "\n" + " " * len("usage: ")
_VALUES = {
    "int": "N",
    "float": "X",
    "Path": "PATH",
    "output_file": "FILE",
    "output_folder": "FOLDER",
}
"""The name of a type, or of its parser -> what stands for a value of it."""


class HelpFormatter(argparse.HelpFormatter):
    """Names only what a command needs in its usage line, and leaves blocks of lines as they are."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": min(width(), _MOST_COLUMNS), **options})

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None,
    ) -> str:
        """The words that a command needs; [options] stands for all others."""
        every = list(actions)
        kept = [action for action in every if action.required or not action.option_strings]
        text = super()._format_usage(usage, kept, [], prefix)
        if usage is not None or len(kept) == len(every):
            return text
        text = text.rstrip()
        fits = len(text.splitlines()[-1]) + len(" [options]") <= self._width
        return f"{text}{' ' if fits else _INDENT}[options]\n\n"

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return _VALUES.get(getattr(action.type, "__name__", ""), action.dest.upper())

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        """The value's name; its choices instead, if they are few."""
        choices = action.choices
        if choices is None or action.metavar or len(",".join(map(str, choices))) <= _MOST_CHOICES:
            return super()._metavar_formatter(action, default_metavar)
        return lambda count: (default_metavar,) * count

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap a sentence; leave a text of several lines, such as examples, unchanged."""
        return text if "\n" in text else super()._fill_text(text, width, indent)
