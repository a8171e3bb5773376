"""Reads a competition's file: TOML tables become the rows of its table, or all faults are listed.

Each fault names its line and the fix.  A column has no default that another row sets, so that a
row can be checked by itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mico_competition.competition.columns import KINDS, Column
from mico_competition.competition.rows import (
    DISCLOSURES,
    SEED_FILES,
    SOLUTION_FILE,
    STANDARD,
    Competition,
    Disclosure,
    Phase,
    Scenario,
    Task,
    check_lengths,
)
from mico_competition.competition.toml_lines import Lines
from mico_competition.scoring.printable import printable
from mico_competition.support.spelling import nearest
from mico_competition.support.untrusted import TEXT_LIMIT, read_limited_text

PHASE_NAMES = ("train", "dev", "final")
# What public scores of dev are multiples of where the file does not say: exact ones tell labels.
USUAL_STEP = 0.005

_WEIGHTS = ("model.pt",)
_TEXT_WEIGHTS = ("config.json", "model.safetensors|pytorch_model.bin")
_TEXT_COMPANIONS = ("tokenizer.json", "tokenizer_config.json")
_UNSAFE = re.compile(r'[/\\:*?"<>|]|^[.\s-]|[.\s]$')
_AT_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$")
_LONGEST_NAME = 100
_RESERVED = {
    "challenge": {"fleet": "`mico fleet` keeps its books in a folder of that name"},
    "scenario": {"status": "`mico fleet status` is a command"},
}

Fault = tuple[int, str]


def read_competition(path: str | Path) -> Competition:
    """The competition in the file `path`; runs no code that it names.

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
    """The competition in a text; `name` stands for it in messages."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        what = f"is no TOML: {_AT_LINE.sub('', str(error))}"
        raise _refusal(name, [(int(at[1]) if at else text.count("\n") + 1, what)]) from None
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


class _Reader:
    """Reads the tables of one file; `faults` holds what is wrong with them."""

    def __init__(self, values: Mapping[str, Any], lines: Lines) -> None:
        self.values, self.lines = values, lines
        self.faults: list[Fault] = []

    def read(self) -> Competition:
        """The competition; worth nothing if there are faults."""
        for key in self.values:
            if key not in KINDS:
                self._unknown(key, KINDS, f"table [{key}]", key)
        rows = {kind: self._rows(kind) for kind in KINDS}
        tasks = self._tasks(rows["task"])
        disclosures = self._disclosures(rows["disclosure"])
        scenarios = self._scenarios(rows["scenario"], tasks, disclosures)
        challenges: dict[str, tuple[str, ...]] = {}
        for row in scenarios.values():
            challenges.setdefault(row.challenge, ())
        for challenge in challenges:
            self._check_name("challenge", challenge, self._line_of_challenge(scenarios, challenge))
            members = (s.name for s in scenarios.values() if s.challenge == challenge)
            challenges[challenge] = tuple(sorted(members))
        self._check_cases("scenario", scenarios)
        self._check_cases("challenge", challenges)
        published = self._published(rows["challenge"], challenges)
        ordered = {name: scenarios[name] for name in sorted(scenarios)}
        return Competition(tasks, self._phases(rows["phase"]), ordered, challenges, published)

    def _fault(self, what: str, *path: str) -> None:
        self.faults.append((self.lines.of(*path), what))

    def _unknown(self, name: str, known: Iterable[str], what: str, *path: str) -> None:
        known = list(known)
        near = nearest(name, known)
        fix = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        self._fault(f"unknown {what}: {fix}", *path)

    def _rows(self, kind: str) -> dict[str, dict[str, Any]]:
        """The fields of each row of a kind that has no fault of its own, by its name."""
        table = self.values.get(kind, {})
        if not isinstance(table, Mapping):
            self._fault(f"expected tables [{kind}.NAME], got {kind} = ...", kind)
            return {}
        if not table and kind in ("task", "scenario"):
            self._fault(f"no {kind} is described: add a table [{kind}.NAME]", kind)
        found = {}
        for name, row in table.items():
            before = len(self.faults)
            if not isinstance(row, Mapping):
                self._fault(f"expected a table [{kind}.{name}]", kind, name)
                continue
            self._check_name(kind, name, self.lines.of(kind, name))
            fields = self._fields(kind, name, row)
            if len(self.faults) == before:
                found[name] = fields
        return found

    def _fields(self, kind: str, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        columns: Mapping[str, Column] = KINDS[kind]
        fields = {}
        for key, value in row.items():
            if key not in columns:
                self._unknown(key, columns, f"column {key}", kind, name, key)
                continue
            try:
                fields[columns[key].field] = columns[key].read(value)
            except ValueError as error:
                self._fault(f"{key}: {error}", kind, name, key)
        missing = [key for key, column in columns.items() if column.required and key not in row]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            self._fault(
                f"[{kind}.{name}] lacks the column{plural} {', '.join(missing)}", kind, name
            )
        return fields

    def _check_name(self, kind: str, name: str, line: int) -> None:
        """A name becomes that of a folder, and is typed on command lines."""
        reason = _RESERVED.get(kind, {}).get(name)
        if not name or _UNSAFE.search(name) or not name.isprintable() or len(name) > _LONGEST_NAME:
            reason = "it would name a folder; use letters, digits, _ and -"
        elif kind == "challenge" and name.endswith((".release", ".predictions")):
            reason = "folders of such names lie beside a challenge's"
        if reason:
            self.faults.append((line, f"{kind} {name!r} cannot be called that: {reason}"))

    def _check_cases(self, kind: str, names: Iterable[str]) -> None:
        seen: dict[str, str] = {}
        for name in names:
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                what = f"{kind} {name!r} and {kind} {other!r} would share a folder where case does "
                self._fault(f"{what}not count: rename one", kind, name)

    def _tasks(self, rows: Mapping[str, dict[str, Any]]) -> dict[str, Task]:
        found = {}
        for name, fields in rows.items():
            text = "max_length" in fields
            if text != ("base_model" in fields):
                what = "a text task has both max_length and base_model, and no other task has one"
                self._fault(f"[task.{name}] has one of two: {what}", "task", name)
            usual: dict[str, Any] = {"weights": _TEXT_WEIGHTS if text else _WEIGHTS}
            if text:
                usual["companions"] = _TEXT_COMPANIONS
            task = Task(name=name, **{**usual, **fields})
            self._check_task(task)
            found[name] = task
        return found

    def _check_task(self, task: Task) -> None:
        n, m, where = task.len_training, task.len_challenge, ("task", task.name)
        if n < m:
            what = f"training = {n} is below challenge = {m}, whose members are trained on"
            self._fault(f"{what}: raise one or lower the other", *where, "training")
        try:
            check_lengths(task.len_dataset, max(n, m), m)
        except ValueError:
            what = f"training = {n} + challenge = {m} exceed records = {task.len_dataset}"
            self._fault(f"{what}: train on fewer records", *where, "training")
        if task.class_names and len(task.class_names) != task.num_classes:
            what = f"class_names has {len(task.class_names)} names for {task.num_classes} classes"
            self._fault(f"{what}: name each class once", *where, "class_names")
        if task.text and ":" in task.architecture:
            what = "the model of a text task is a model type of transformers, such as roberta"
            self._fault(f"{what}; got {task.architecture}", *where, "model")

    def _disclosures(self, rows: Mapping[str, dict[str, Any]]) -> dict[str, Disclosure]:
        for name, fields in rows.items():
            missing = [f for f in (*SEED_FILES, SOLUTION_FILE) if f not in fields["train"]]
            if missing:
                what = f"train lacks {', '.join(missing)}: participants learn from these models"
                self._fault(what, "disclosure", name, "train")
        return {**DISCLOSURES, **{name: Disclosure(**fields) for name, fields in rows.items()}}

    def _scenarios(
        self,
        rows: Mapping[str, dict[str, Any]],
        tasks: Mapping[str, Task],
        disclosures: Mapping[str, Disclosure],
    ) -> dict[str, Scenario]:
        found = {}
        described = self.values.get("task", {})
        for name, fields in rows.items():
            where = ("scenario", name)
            if fields["task"] not in described:
                self._unknown(fields["task"], described, f"task {fields['task']!r}", *where, "task")
            disclosure = fields.pop("disclosure", None)
            if disclosure is not None and disclosure not in disclosures:
                what = f"disclosure {disclosure!r}"
                self._unknown(disclosure, disclosures, what, *where, "disclosure")
            scenario = Scenario(
                name=name,
                disclosure=disclosures.get(disclosure or "standard", STANDARD),
                challenge=fields.pop("challenge", fields["task"]),
                max_grad_norm=fields.pop("max_grad_norm", None),
                **fields,
            )
            self._check_scenario(scenario, tasks.get(scenario.task))
            found[name] = scenario
        return found

    def _check_scenario(self, scenario: Scenario, task: Task | None) -> None:
        where = ("scenario", scenario.name)
        if scenario.private and scenario.max_grad_norm is None:
            what = f"target_epsilon = {scenario.target_epsilon:g} needs max_grad_norm"
            self._fault(f"{what}: add the norm that gradients are clipped to", *where)
        if not scenario.private and scenario.max_grad_norm is not None:
            what = "max_grad_norm clips nothing where target_epsilon = inf: leave it out"
            self._fault(what, *where, "max_grad_norm")
        if task is not None and scenario.batch_size > task.len_training:
            what = f"batch_size = {scenario.batch_size} exceeds training = {task.len_training}"
            self._fault(f"{what} of task {task.name}: lower it", *where, "batch_size")

    def _line_of_challenge(self, scenarios: Mapping[str, Scenario], challenge: str) -> int:
        first = next(s for s in scenarios.values() if s.challenge == challenge)
        return self.lines.of("scenario", first.name, "challenge")

    def _phases(self, rows: Mapping[str, dict[str, Any]]) -> dict[str, Phase]:
        found = {}
        for name in self.values.get("phase", {}):
            if name not in PHASE_NAMES:
                self._unknown(name, PHASE_NAMES, f"phase {name!r}", "phase", name)
        for name in PHASE_NAMES:
            if name not in rows:
                if name not in self.values.get("phase", {}):
                    what = f"no phase {name} is described: add [phase.{name}] with"
                    self._fault(f"{what} models = [FIRST, LAST]", "phase")
                continue
            first, last = rows[name]["models"]
            step = rows[name].get("step", USUAL_STEP if name == "dev" else 0.0)
            if step and name == "train":
                self._fault("step: train is not scored; leave it out", "phase", name, "step")
            found[name] = Phase(name, first, last - first + 1, name != "train", step)
        for one, other in _overlapping(list(found.values())):
            what = f"phases {one.name} and {other.name} share models: give each its own"
            self._fault(what, "phase", other.name, "models")
        return found

    def _published(
        self, rows: Mapping[str, dict[str, Any]], challenges: Mapping[str, Any]
    ) -> dict[str, str]:
        for name in rows:
            if name not in challenges:
                what = f"challenge {name!r}, which no scenario names"
                self._unknown(name, challenges, what, "challenge", name)
        return {name: fields["published"] for name, fields in rows.items()}


def _overlapping(phases: list[Phase]) -> Iterator[tuple[Phase, Phase]]:
    for i, one in enumerate(phases):
        for other in phases[i + 1 :]:
            if range(
                max(one.first, other.first),
                min(one.model_ids.stop, other.model_ids.stop),
            ):
                yield one, other
