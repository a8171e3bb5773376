"""The table: every task, scenario, phase and challenge, and what is disclosed of each.

The table comes from files in TOML.  Without a choice it holds the package's own: 2022's
(`competition/mico2022.toml`), the demonstration's digits and the synthetic baskets.  `use(path)`,
`mico --competition FILE` or the environment variable MICO_COMPETITION puts the competition in a
file of yours in their place.  Such a file names code that runs, so none is ever picked up unasked.

Flags, folders, notebooks, release lists and scoreboard columns are derived from the table, and
nothing else knows a competition's constants.  Standard library only; it never looks at data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import TypeVar

from mico_competition.competition.code import look_beside
from mico_competition.competition.reader import parse_competition, read_competition
from mico_competition.competition.rows import (
    COMPETITION_FILE,
    DISTINGUISHER,
    METADATA_FILE,
    OPTIMIZERS,
    PHASE_NAMES,
    PRECISIONS,
    PREDICTION_FILE,
    SEED_FILES,
    SOLUTION_FILE,
    STANDARD,
    Competition,
    Disclosure,
    Hosting,
    Phase,
    Scenario,
    Task,
    check_lengths,
    steps_per_epoch,
)
from mico_competition.support.spelling import nearest

__all__ = [
    "CHALLENGES",
    "COMPETITION_FILE",
    "Competition",
    "DISTINGUISHER",
    "Disclosure",
    "Hosting",
    "METADATA_FILE",
    "OPTIMIZERS",
    "PHASE_NAMES",
    "PRECISIONS",
    "PREDICTION_FILE",
    "PUBLISHED",
    "Phase",
    "SCENARIOS",
    "SCORED_PHASES",
    "SEED_FILES",
    "SOLUTION_FILE",
    "STANDARD",
    "Scenario",
    "TASKS",
    "Task",
    "VARIABLE",
    "as_read",
    "check_lengths",
    "current",
    "disclosed_files",
    "fetch_command",
    "get_challenge",
    "get_phase",
    "get_scenario",
    "get_task",
    "hosting_of",
    "labels_of",
    "phase_of",
    "phases_of",
    "steps_per_epoch",
    "use",
    "using",
]

VARIABLE = "MICO_COMPETITION"
BUILT_IN = ("mico2022", "digits", "baskets")

Row = TypeVar("Row")
_in_use: Competition | None = None


def current() -> Competition:
    """The competition in use: that of `use`, else that of MICO_COMPETITION, else the package's.

    Raises:
        ValueError: if MICO_COMPETITION names no file, or one that has faults, with all of them.
    """
    if _in_use is not None:
        return _in_use
    try:
        return use(os.environ.get(VARIABLE) or None)
    except (OSError, ValueError) as error:
        raise ValueError(f"{VARIABLE} names no competition that can be used: {error}") from None


def use(path: str | os.PathLike[str] | None) -> Competition:
    """Make the competition in a file the one that everything here works on.

    Args:
        path: the file, in the form of docs/reference/competition-file.md; None for the package's
            own competitions.  Its `loader` and `model` columns name functions in modules beside it,
            which run when data or models are loaded: use no file whose code you would not run.

    Returns:
        The competition.  Processes that this one starts use it too.

    Raises:
        ValueError: if there is no such file, or listing all its faults; what was used stays.
    """
    found = _built_in() if path is None else read_competition(os.fspath(path))
    _put(found, None if found.path is None else str(found.path))
    return found


@contextmanager
def using(path: str | os.PathLike[str] | None) -> Iterator[Competition]:
    """`use(path)` within a block, and what was used before after it."""
    before = _in_use, os.environ.get(VARIABLE)
    try:
        yield use(path)
    finally:
        _put(*before)


def _put(competition: Competition | None, named: str | None) -> None:
    """Use `competition` here, and the file `named` in processes that this one starts."""
    global _in_use
    _in_use = competition
    os.environ.pop(VARIABLE, None)
    if named:
        os.environ[VARIABLE] = named
    look_beside(Path(named).absolute() if named else None)


def _built_in() -> Competition:
    """The package's own files as one table."""
    folder = files(__package__)
    parts = [
        parse_competition((folder / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")
        for name in BUILT_IN
    ]
    scenarios = _merged(part.scenarios for part in parts)
    return Competition(
        _merged(part.tasks for part in parts),
        _merged(part.phases for part in parts),
        {name: scenarios[name] for name in sorted(scenarios)},
        _merged(part.challenges for part in parts),
        _merged(part.published for part in parts),
        _merged(part.hosting for part in parts),
    )


def _merged(parts: Iterable[Mapping[str, Row]]) -> dict[str, Row]:
    return {name: row for part in parts for name, row in part.items()}


class _Rows(Mapping[str, Row]):
    """One kind of row of whichever competition is in use; read only."""

    def __init__(self, rows: Callable[[Competition], Mapping[str, Row]]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> Row:
        return self._rows(current())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows(current()))

    def __len__(self) -> int:
        return len(self._rows(current()))

    def __repr__(self) -> str:
        return repr(dict(self))


TASKS: Mapping[str, Task] = _Rows(lambda table: table.tasks)
SCENARIOS: Mapping[str, Scenario] = _Rows(lambda table: table.scenarios)
CHALLENGES: Mapping[str, tuple[str, ...]] = _Rows(lambda table: table.challenges)
PUBLISHED: Mapping[str, str] = _Rows(lambda table: table.published)

# Every challenge has the phases train, dev and final; which models they have, the file says.
SCORED_PHASES: tuple[str, ...] = PHASE_NAMES[1:]


def fetch_command(challenge: str, folder: str) -> str | None:
    """The shell command that puts the published data of `challenge` into `folder`, or None.

    `folder` is that of the challenge itself (`.../cifar10`).
    """
    if challenge not in PUBLISHED:
        return None
    return f"mico download {quote(challenge)} --to {quote(folder.rpartition('/')[0] or '.')}"


def _lookup(kind: str, table: Mapping[str, Row], name: str) -> Row:
    try:
        return table[name]
    except KeyError:
        known = ", ".join(table)
        if path := current().path:
            known += f" of {path}"
        elif kind in ("scenario", "challenge", "task"):
            known += ", or name the competition that has it (--competition FILE)"
        near = nearest(name, table)
        end = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"Unknown {kind} {name!r}: choose one of {known}{end}") from None


def get_task(name: str) -> Task:
    """The row of task `name`; ValueError naming the choices if there is none."""
    return _lookup("task", TASKS, name)


def get_scenario(name: str) -> Scenario:
    """The row of scenario `name`; ValueError naming the choices if there is none."""
    return _lookup("scenario", SCENARIOS, name)


def phases_of(challenge: str) -> Mapping[str, Phase]:
    """The phases of a challenge by name, in order; ValueError if there is no such challenge."""
    return _lookup("challenge", current().phases, challenge)


def get_phase(challenge: str, name: str) -> Phase:
    """The row of phase `name` of `challenge`; ValueError naming the choices if there is none."""
    return _lookup("phase", phases_of(challenge), name)


def get_challenge(name: str) -> tuple[str, ...]:
    """Scenario names of challenge `name`, sorted (the scoreboard's scenario1, 2, 3)."""
    return _lookup("challenge", CHALLENGES, name)


def hosting_of(challenge: str) -> Hosting:
    """What a platform shows of a challenge, as far as the competition's file says it."""
    get_challenge(challenge)
    return current().hosting.get(challenge, Hosting())


def as_read(names: Iterable[str]) -> list[str]:
    """Names of scenarios in the order for people: no privacy first, then by falling epsilon."""
    return sorted(names, key=lambda name: (-get_scenario(name).target_epsilon, name))


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Scenario -> its label, in the order for people; labels that two share get their names."""
    labels = {name: get_scenario(name).label for name in as_read(names)}
    counts = Counter(labels.values())
    return {n: label if counts[label] == 1 else f"{label} ({n})" for n, label in labels.items()}


def phase_of(model_id: int, challenge: str) -> Phase:
    """The phase of `challenge` that has model `model_id`; ValueError if none has it."""
    phases = phases_of(challenge).values()
    for phase in phases:
        if model_id in phase.model_ids:
            return phase
    ranges = ", ".join(f"{p.name} {p.first} to {p.model_ids[-1]}" for p in phases)
    raise ValueError(f"Unknown model id {model_id}: ids of {challenge} are {ranges}.")


def disclosed_files(scenario: Scenario, phase: str) -> tuple[str, ...]:
    """Files, beside weights and public metadata, that a release of `phase` holds."""
    names: dict[str, tuple[str, ...]] = vars(scenario.disclosure)
    return names[get_phase(scenario.challenge, phase).name]


# A process that another one started with a competition unpickles its code before it looks at rows.
if named := os.environ.get(VARIABLE):
    look_beside(Path(named).absolute())
