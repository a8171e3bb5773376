"""Names the archives of a release, and says which models each holds.

A scenario and phase have one archive, `<scenario>_<phase>.zip`.  Where it would pass the size that
the Hub recommends for a file, they have several, each of a range of models:
`<scenario>_<phase>_<first id>-<last id>.zip`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.table import PHASE_NAMES, SEED_FILES, SOLUTION_FILE

# https://huggingface.co/docs/hub/repositories-recommendations: below 20 GB a file.
MOST_BYTES = 20_000_000_000
_NAME = re.compile(rf"(.+)_({'|'.join(PHASE_NAMES)})(?:_(0|[1-9]\d*)-(0|[1-9]\d*))?\.zip", re.ASCII)
_ADDED_LATER = {*SEED_FILES, SOLUTION_FILE}


class _Model(Protocol):
    @property
    def scenario(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def model_id(self) -> int: ...


@dataclass(frozen=True)
class ArchiveName:
    """The name of an archive, as its parts; without `ids`, it holds all models of the phase.

    `ids` are the first and the last model id of its range.
    """

    scenario: str
    phase: str
    ids: tuple[int, int] | None = None

    def __str__(self) -> str:
        part = "" if self.ids is None else f"_{self.ids[0]}-{self.ids[1]}"
        return f"{self.scenario}_{self.phase}{part}.zip"

    def holds(self, model: _Model) -> bool:
        """Whether the archive holds this model."""
        inside = self.ids is None or self.ids[0] <= model.model_id <= self.ids[1]
        return inside and (model.scenario, model.phase) == (self.scenario, self.phase)


def archive_name(name: str) -> ArchiveName | None:
    """The parts of a file name, or None if it is not that of an archive."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    scenario, phase, first, last = match.groups()
    return ArchiveName(scenario, phase, None if first is None else (int(first), int(last)))


def archives_of(models: Sequence[ModelFolder]) -> dict[str, list[ModelFolder]]:
    """The archives of a release: name -> its models, in the order of ids.

    Labels and seeds do not count for the size, so that the names stay when a phase is revealed.
    """
    phases: dict[tuple[str, str], list[ModelFolder]] = {}
    for model in sorted(models, key=lambda model: model.model_id):
        phases.setdefault((model.scenario, model.phase), []).append(model)
    result = {}
    for (scenario, phase), mine in sorted(phases.items()):
        parts = list(_parts(mine))
        for part in parts:
            ids = (part[0].model_id, part[-1].model_id) if parts[1:] else None
            result[str(ArchiveName(scenario, phase, ids))] = part
    return result


def _parts(models: Sequence[ModelFolder]) -> Iterator[list[ModelFolder]]:
    """The models in lists of at most MOST_BYTES, or of one model."""
    part: list[ModelFolder] = []
    total = 0
    for model in models:
        files = (p for p in model.path.iterdir() if p.name not in _ADDED_LATER and p.is_file())
        size = sum(path.stat().st_size for path in files)
        if part and total + size > MOST_BYTES:
            yield part
            part, total = [], 0
        part.append(model)
        total += size
    if part:
        yield part
