"""The files of a checkpoint: checkpoint.json, and the states that it names with their SHA-256.

Each is written aside and gets its name when it is whole, so a kill leaves the last whole ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mico_competition.support.files import PRIVATE, written_aside
from mico_competition.support.untrusted import read_limited_json

ABOUT = "checkpoint.json"
_STATE = re.compile(r"state_[0-9]+\.pt")


@dataclass(frozen=True)
class Kept:
    """A state of a run after `steps` steps; without a file, the run's beginning."""

    steps: int
    state: str | None = None
    sha256: str = ""


BEGINNING = Kept(0)


@dataclass(frozen=True)
class About:
    """What checkpoint.json says.

    Attributes:
        number: of the newest state.
        newest: the newest state.
        earlier: one before it, while other models of a stack may have no newer one.
        seconds: the time that was spent until the newest.
        resumed: how often the run was resumed until then.
        facts: what must be the same for a run to go on.
    """

    number: int
    newest: Kept
    earlier: Kept | None
    seconds: float
    resumed: int
    facts: Mapping[str, Any]

    @property
    def kept(self) -> list[Kept]:
        """The states that there are, the newest first."""
        return [self.newest, *([self.earlier] if self.earlier else [])]


def read_about(folder: Path) -> About:
    """Read checkpoint.json; ValueError if it is damaged."""
    try:
        values = read_limited_json(folder / ABOUT)
        earlier = values.get("earlier")
        about = About(
            number=_whole(values["number"]),
            newest=_kept(values),
            earlier=None if earlier is None else _kept(earlier),
            seconds=float(values["seconds"]),
            resumed=_whole(values["resumed"]),
            facts=dict(values["facts"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{ABOUT} is damaged") from error
    if not 0 <= about.seconds < math.inf or about.newest == BEGINNING:
        raise ValueError(f"{ABOUT} is damaged")
    return about


def _kept(values: Mapping[str, Any]) -> Kept:
    kept = Kept(_whole(values["steps"]), values["state"], str(values["sha256"]))
    if kept != BEGINNING and not _STATE.fullmatch(str(kept.state)):
        raise ValueError(f"{ABOUT} is damaged")
    return kept


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{ABOUT} is damaged")
    return value


def write_about(folder: Path, about: About) -> None:
    """Write checkpoint.json, and then remove the states that it does not name."""
    values = {
        "number": about.number,
        **vars(about.newest),
        **({"earlier": vars(about.earlier)} if about.earlier else {}),
        "seconds": about.seconds,
        "resumed": about.resumed,
        "facts": about.facts,
    }
    with written_aside(folder / ABOUT, durable=True, access=PRIVATE) as aside:
        aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    named = {kept.state for kept in about.kept}
    for path in folder.iterdir():
        if _STATE.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)


def read_state(folder: Path, kept: Kept) -> dict[str, Any]:
    """The state of a file; ValueError, or an error of torch's, if it is damaged."""
    path = folder / str(kept.state)
    if _sha256(path) != kept.sha256:
        raise ValueError("other bytes than were written")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("steps", kept.steps) != kept.steps:  # earlier code wrote none into the state
        raise ValueError("a state of another step")
    return state


def write_state(folder: Path, number: int, state: Mapping[str, Any], steps: int) -> Kept:
    """Write a state into a new file."""
    name = f"state_{number}.pt"
    with written_aside(folder / name, durable=True, access=PRIVATE) as aside:
        torch.save({**state, "steps": steps}, aside)
        digest = _sha256(aside)
    return Kept(steps, name, digest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
