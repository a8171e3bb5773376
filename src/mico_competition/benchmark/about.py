"""What an entry of the benchmark says of its attack."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mico_competition.attacks.cost import MODELS
from mico_competition.attacks.problem import Attack
from mico_competition.attacks.registry import BLACK_BOX, QUERIES, ROWS, WHITE_BOX

_log = logging.getLogger(__name__)

ACCESS = (BLACK_BOX, QUERIES, WHITE_BOX)


@dataclass(frozen=True)
class About:
    """What an entry says of its attack; `file` is empty for an attack of the package."""

    name: str
    title: str
    source: str
    access: str
    known_training_set: bool = False
    authors: tuple[str, ...] = ()
    link: str = ""
    file: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields of an entry that say this."""
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "authors": list(self.authors),
            "link": self.link,
            "access": self.access,
            "known_training_set": self.known_training_set,
            "file": dict(self.file) or None,
            "command": self.command,
        }


def about_named(attack: Attack, tier: str) -> About:
    """What an entry says of a named attack of the package."""
    row = ROWS[attack.name]
    return About(
        attack.name,
        attack.title,
        attack.source,
        row.access,
        command=f"mico benchmark --tier {tier} --attack {attack.name}",
    )


def with_access(about: About, read: Collection[str]) -> About:
    """What an entry says of an attack that has run: it states the access that the attack used.

    Args:
        about: what its author says.
        read: what it read of the models, as `attacks.cost.Meter.read`. An attack that loads models
            may only query them, and then `about` must say so; otherwise it is a white box.
    """
    if "gradient_norm" in read:
        least, what = WHITE_BOX, "it reads the signal gradient_norm"
    elif MODELS in read:
        least = QUERIES
        what = (
            "it loads models, or sends problem.source to other processes (if it only queries "
            f"models, measure it with --access {QUERIES}; if it needs signals only, send those)"
        )
    else:
        return about
    if ACCESS.index(about.access) >= ACCESS.index(least):
        return about
    _log.warning(f"The entry of {about.name} says {WHITE_BOX}, not {about.access}: {what}.")
    return replace(about, access=WHITE_BOX)


def once_more(values: Mapping[str, Any]) -> str:
    """The command that makes an entry of these values again, from the attack's file if it has one.

    >>> values = {"tier": "small", "name": "A 1", "access": "queries", "authors": ["--x"],
    ...     "link": "", "file": {"name": "a.py", "function": "f"}}
    >>> once_more(values)
    "mico benchmark --tier small --attack a.py:f --access queries --name 'A 1' --author=--x"
    """
    file, name = values["file"], values["name"]
    attack = name if file is None else f"{file['name']}:{file['function']}"
    flags = [("tier", values["tier"]), ("attack", attack)]
    if file is not None:
        flags += [("access", values["access"]), ("name", name)]
    flags += [("author", author) for author in values["authors"]]
    flags += [("link", values["link"])] if values["link"] else []
    words = [
        f"--{flag}{'=' if text.startswith('-') else ' '}{shlex.quote(text)}" for flag, text in flags
    ]
    return " ".join(["mico benchmark", *words])
