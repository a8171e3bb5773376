"""Reads, from either form of competition.yaml, the program and reference data of each phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mico_competition.hosting.codabench.rules.fault import whole


@dataclass(frozen=True)
class Scored:
    """A phase: its path and keys, the names of its program and reference data, and its texts.

    A name is None if it is missing or not a text.
    """

    where: str
    spec: Mapping[str, Any]
    program: str | None
    reference: str | None
    texts: str


def scored_phases(spec: Mapping[str, Any]) -> list[Scored]:
    """All phases that are mappings, in order."""
    phases = spec.get("phases")
    if isinstance(phases, dict):
        entries = [(f"phases.{number}", phase) for number, phase in _mappings(phases.items())]
        order = "phasenumber"
    else:
        listed = enumerate(phases) if isinstance(phases, list) else ()
        entries = [(f"phases[{i}]", phase) for i, phase in _mappings(listed)]
        order = "index"
    entries.sort(key=lambda entry: whole(entry[1].get(order)) or 0)
    return [_scored(where, phase, spec.get("tasks")) for where, phase in entries]


def _mappings(pairs: Any) -> list[tuple[Any, Mapping[str, Any]]]:
    return [(key, value) for key, value in pairs if isinstance(value, dict)]


def _scored(where: str, phase: Mapping[str, Any], tasks: Any) -> Scored:
    """A phase, with its first task if the form has tasks."""
    numbers = phase.get("tasks")
    first = numbers[0] if isinstance(numbers, list) and numbers else None
    listed = tasks if isinstance(tasks, list) and first is not None else ()
    mine = (task for task in listed if isinstance(task, dict) and task.get("index") == first)
    source = phase if "scoring_program" in phase else next(mine, {})
    names = [source.get(key) for key in ("scoring_program", "reference_data")]
    program, reference = (name if isinstance(name, str) and name else None for name in names)
    texts = (part.get("description") for part in (phase, source))
    return Scored(where, phase, program, reference, "\n".join(map(str, texts)))
