"""Reads a competition's file: TOML tables become the rows of its table, or all faults are listed.

Each fault names its line and the fix. No default of a column depends on another row, so each row
can be checked separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mico_competition.competition.columns import KINDS
from mico_competition.competition.names import twins
from mico_competition.competition.row_checks import (
    TEXT_COMPANIONS,
    TEXT_WEIGHTS,
    WEIGHTS,
    disclosure_faults,
    hosting_faults,
    overlapping,
    scenario_faults,
    task_faults,
)
from mico_competition.competition.rows import (
    DISCLOSURES,
    PHASE_NAMES,
    STANDARD,
    USUAL_STEP,
    Competition,
    Disclosure,
    Hosting,
    Phase,
    Scenario,
    Task,
)
from mico_competition.competition.table_reader import TWINS, Fault, TableReader
from mico_competition.competition.toml_lines import Lines, NotToml, parse_toml
from mico_competition.scoring.printable import printable
from mico_competition.scoring.settings import MAX_SCENARIOS
from mico_competition.support.untrusted import TEXT_LIMIT, read_limited_text

_PHASES = (
    "attacks learn from train, and a submission, the scoring program and a bundle have the phases "
    "dev and final"
)


def read_competition(path: str | Path) -> Competition:
    """Read the competition in the file `path`, without running code that it names.

    Raises:
        ValueError: listing all faults of the file, each with its line and the fix.
        OSError: if there is no such file.
    """
    file = Path(path).absolute()
    if file.is_dir():
        raise ValueError(f"{path} is a folder: name the competition's file in it.")
    if not file.exists():
        raise ValueError(
            f"There is no competition file {path}: name one, or `mico init FOLDER` writes one to "
            "start from."
        )
    fix = "name a competition's file, as `mico init` writes one"
    text = read_limited_text(file, TEXT_LIMIT, fix=fix)
    return parse_competition(text, str(path), file)


def parse_competition(text: str, name: str, path: Path | None = None) -> Competition:
    """Parse the competition in a text; messages call it `name`."""
    try:
        values = parse_toml(text)
    except NotToml as error:
        raise _refusal(name, [(error.line, str(error))]) from None
    reader = _Reader(values, Lines(text))
    found = reader.read()
    if reader.faults:
        raise _refusal(name, sorted(set(reader.faults)))
    return replace(found, path=path, text=text)


def _refusal(name: str, faults: list[Fault]) -> ValueError:
    name = printable(name)
    if len(faults) == 1:
        ((line, what),) = faults
        return ValueError(f"{name}, line {line}: {_sentence(what)}")
    lines = [f"  line {line}: {_sentence(what)}" for line, what in faults]
    return ValueError("\n".join([f"{name} has {len(faults)} faults:", *lines]))


def _sentence(what: str) -> str:
    return printable(what if what.endswith("?") else f"{what}.")


class _Reader(TableReader):
    """Reads the competition in one file."""

    def read(self) -> Competition:
        """The competition; valid only if there are no faults."""
        for key in self.values:
            if key not in KINDS:
                self._unknown(key, KINDS, f"table [{key}]", key)
        rows = {kind: self._rows(kind) for kind in KINDS}
        tasks = self._tasks(rows["task"])
        disclosures = self._disclosures(rows["disclosure"])
        scenarios = self._scenarios(rows["scenario"], tasks, disclosures)
        challenges = self._challenges(scenarios)
        published, hosting = self._hosting(rows["challenge"], challenges)
        ordered = {name: scenarios[name] for name in sorted(scenarios)}
        phases = self._phases_of_all(rows["phase"], challenges)
        return Competition(tasks, phases, ordered, challenges, published, hosting)

    def _tasks(self, rows: Mapping[str, dict[str, Any]]) -> dict[str, Task]:
        found = {}
        for name, fields in rows.items():
            text = "max_length" in fields
            usual: dict[str, Any] = {"weights": TEXT_WEIGHTS if text else WEIGHTS}
            if text:
                usual["companions"] = TEXT_COMPANIONS
            found[name] = Task(name=name, **{**usual, **fields})
            self._faults_of(task_faults(found[name]), "task", name)
        return found

    def _disclosures(self, rows: Mapping[str, dict[str, Any]]) -> dict[str, Disclosure]:
        found = {name: Disclosure(**fields) for name, fields in rows.items()}
        for name, row in found.items():
            self._faults_of(disclosure_faults(row), "disclosure", name)
        return {**DISCLOSURES, **found}

    def _scenarios(
        self,
        rows: Mapping[str, dict[str, Any]],
        tasks: Mapping[str, Task],
        disclosures: Mapping[str, Disclosure],
    ) -> dict[str, Scenario]:
        found = {}
        described = self._table("task")
        for name, fields in rows.items():
            where = ("scenario", name)
            if described and fields["task"] not in described:
                self._unknown(fields["task"], described, f"task {fields['task']!r}", *where, "task")
            disclosure = fields.pop("disclosure", None)
            described_too = self._table("disclosure")  # some of which may have faults of their own
            if disclosure is not None and disclosure not in {**disclosures, **described_too}:
                what = f"disclosure {disclosure!r}"
                self._unknown(disclosure, disclosures, what, *where, "disclosure")
            scenario = Scenario(
                name=name,
                disclosure=disclosures.get(disclosure or "standard", STANDARD),
                challenge=fields.pop("challenge", fields["task"]),
                max_grad_norm=fields.pop("max_grad_norm", None),
                **fields,
            )
            self._faults_of(scenario_faults(scenario, tasks.get(scenario.task)), *where)
            found[name] = scenario
        return found

    def _challenges(self, scenarios: Mapping[str, Scenario]) -> dict[str, tuple[str, ...]]:
        """The names of each challenge's scenarios, sorted."""
        found: dict[str, list[str]] = {}
        for row in scenarios.values():
            found.setdefault(row.challenge, []).append(row.name)
        lines = {
            challenge: [self.lines.of("scenario", name, "challenge") for name in names]
            for challenge, names in found.items()
        }
        for challenge, names in found.items():
            self._check_name("challenge", challenge, lines[challenge][0])
            if len(names) > MAX_SCENARIOS:
                what = f"challenge {challenge!r} has {len(names)} scenarios, and the scoring "
                what += f"program takes {MAX_SCENARIOS}: make two challenges of it"
                self.faults.append((lines[challenge][MAX_SCENARIOS], what))
        for one, other in twins(found):
            self.faults.append((lines[other][0], TWINS.format("challenge", one, other)))
        return {challenge: tuple(sorted(names)) for challenge, names in found.items()}

    def _phases_of_all(
        self, rows: Mapping[str, dict[str, Any]], challenges: Iterable[str]
    ) -> dict[str, dict[str, Phase]]:
        """The phases of each challenge: its own, or else those of the file."""
        own = {
            name: self._phases(self._rows("challenge", name, "phase"), "challenge", name, "phase")
            for name, row in self._table("challenge").items()
            if isinstance(row, Mapping) and "phase" in row
        }
        left = [name for name in challenges if name not in own]
        common = self._phases(rows, "phase") if left or "phase" in self.values else {}
        return {name: own.get(name, common) for name in challenges}

    def _phases(self, rows: Mapping[str, dict[str, Any]], *where: str) -> dict[str, Phase]:
        """The phases in the tables at a path, from the fields of these."""
        described = self._table(*where)
        for name in described:
            if name not in PHASE_NAMES:
                self._unknown(name, PHASE_NAMES, f"phase {name!r}", *where, name)
        found, head = {}, "".join(f"{part}." for part in where)
        for name in PHASE_NAMES:
            if name not in rows:
                if name not in described and isinstance(self._at(*where), Mapping):
                    what = f"no phase {name} is described: add [{head}{name}] with models = [FIRST"
                    self._fault(f"{what}, LAST]; {_PHASES}", *where)
                continue
            first, last = rows[name]["models"]
            step = rows[name].get("step", USUAL_STEP if name == "dev" else 0.0)
            if step and name == "train":
                self._fault("step: train is not scored; leave it out", *where, name, "step")
            found[name] = Phase(name, first, last - first + 1, name != "train", step)
        for one, other in overlapping(list(found.values())):
            what = f"phases {one.name} and {other.name} share models: give each its own"
            self._fault(what, *where, other.name, "models")
        return found

    def _hosting(
        self, rows: Mapping[str, dict[str, Any]], challenges: Mapping[str, Any]
    ) -> tuple[dict[str, str], dict[str, Hosting]]:
        """Where each challenge is published, and what a platform shows of it."""
        for name in rows:
            if name not in challenges:
                what = f"challenge {name!r}, which no scenario names"
                self._unknown(name, challenges, what, "challenge", name)
        published = {n: row.pop("published") for n, row in rows.items() if "published" in row}
        hosting = {name: Hosting(**row) for name, row in rows.items() if row}
        for name, row in hosting.items():
            self._faults_of(hosting_faults(row), "challenge", name)
        return published, hosting
