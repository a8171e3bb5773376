"""Holds the settings that a scenario's row states against those that its models were trained with.

Participants read the row in the file of the competition, in tables and on pages.  A row that was
changed after training, or flags that overrode it, must not make a false claim of privacy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.table import Scenario, current, get_scenario
from mico_competition.training.settings import stated_by

_OF_PRIVACY = ("target_epsilon", "target_delta", "max_grad_norm")


def check_privacy_claims(models: Iterable[ModelFolder]) -> None:
    """Check that the models are as private as their scenario's row says.

    The package's own scenarios may be trained with more privacy than their rows state.  In a
    competition of one's own, the target epsilon, delta and clipping norm must be those of the file.
    Models without metadata, as those of 2022, state nothing to compare.

    Raises:
        ValueError: naming the first model whose metadata contradict the row.
    """
    for model in models:
        metadata = read_metadata(model.path)
        row = get_scenario(model.scenario)
        fault = next(_faults(row, metadata), None) if metadata else None
        if fault is not None:
            raise ValueError(
                f"{model.path} was trained {fault}, which would be a false claim of privacy: train "
                f"the models again, or correct the row in {current().path or 'the table'}."
            )


def other_settings(models: Sequence[ModelFolder]) -> list[str]:
    """A sentence for each scenario of one's own competition that was trained with other settings.

    Flags may override those settings, and metadata do not record whether they did.
    """
    if current().path is None:
        return []
    found: dict[str, dict[str, str]] = {}
    for model in models:
        row = get_scenario(model.scenario)
        trained = _settings(read_metadata(model.path))
        for name, value in stated_by(row).items():
            if name not in _OF_PRIVACY and name in trained and trained[name] != value:
                found.setdefault(row.name, {})[name] = f"{name} = {trained[name]} (there {value})"
    return [
        f"Scenario {name} was trained with other settings than {current().path} states: "
        f"{', '.join(different.values())}."
        for name, different in found.items()
    ]


def _settings(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = metadata.get("settings")
    return settings if isinstance(settings, dict) else {}


def _faults(row: Scenario, metadata: Mapping[str, Any]) -> Iterator[str]:
    """How a model was trained by its metadata, and what its scenario's row says instead."""
    privacy = metadata.get("privacy")
    scenario = f"scenario {row.name} states"
    if not isinstance(privacy, dict):
        if row.private:
            yield f"without privacy, and {scenario} target_epsilon = {row.target_epsilon:g}"
        return
    if not row.private:
        yield f"with privacy, and {scenario} that it is trained without"
        return
    for name, limit in (("epsilon", row.target_epsilon), ("delta", row.target_delta)):
        spent = privacy.get(name)
        if not (isinstance(spent, (int, float)) and spent <= limit):
            yield f"with {name} = {spent}, and {scenario} target_{name} = {limit:g}"
    if current().path is not None:
        trained = {**_settings(metadata), "max_grad_norm": privacy.get("max_grad_norm")}
        for name in _OF_PRIVACY:
            value, expected = trained.get(name), getattr(row, name)
            if value != expected:
                yield f"with {name} = {value}, and {scenario} {name} = {expected}"
