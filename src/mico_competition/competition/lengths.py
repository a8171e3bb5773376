"""Checks the lengths N, n and m that a caller gives against a model's folder and scenario.

Wrong lengths give wrong splits without any error, so this module compares all sources it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import scenario_of
from mico_competition.competition.table import METADATA_FILE, TASKS, Task, get_task
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import read_limited_json

LEN_CHALLENGE = 100
METADATA_LIMIT = 1_000_000
_LONGEST = 10**9
_AGAIN = "fetch or train the model again"


def read_metadata(path: PathLike) -> dict[str, Any]:
    """Read metadata.json of model folder `path`; {} if there is none, as in folders of 2022."""
    file = Path(path) / METADATA_FILE
    if not file.is_file():
        return {}
    metadata = read_limited_json(file, METADATA_LIMIT, fix=_AGAIN)
    if not isinstance(metadata, dict):
        raise ValueError(f"{file} is not a JSON object: {_AGAIN}.")
    return metadata


def len_challenge_of(path: PathLike) -> int:
    """m of the model in folder `path`: that of its metadata, or 100 as in 2022."""
    return Lengths.of(Path(path)).check_challenge(None)


@dataclass(frozen=True)
class Lengths:
    """N, n and m of the model in folder `path`, each None if its metadata do not say it.

    `task` is the task of the scenario that is named on the path, or None.
    """

    path: Path
    task: Task | None
    len_dataset: int | None
    len_training: int | None
    len_challenge: int | None

    @classmethod
    def of(cls, path: Path) -> Lengths:
        """Read the metadata and the path; ValueError if the metadata hold invalid lengths."""
        metadata = read_metadata(path)
        scenario = scenario_of(path)
        lengths = [metadata.get(name) for name in ("len_dataset", "len_training", "len_challenge")]
        if not all(v is None or (type(v) is int and 0 < v <= _LONGEST) for v in lengths):
            raise ValueError(
                f"{path / METADATA_FILE} holds lengths that are no whole numbers from 1 to "
                f"{_LONGEST:,}: {_AGAIN}."
            )
        return cls(path, get_task(scenario.task) if scenario else None, *lengths)

    def check_challenge(self, given: int | None) -> int:
        """Return m; ValueError if `given` is not that of the metadata."""
        self._check_same("len_challenge", given, self.len_challenge)
        usual = self.task.len_challenge if self.task else LEN_CHALLENGE
        return given or self.len_challenge or usual

    def check_training(self, given: int | None) -> int:
        """Return n; ValueError if it is unknown, or if `given` cannot be that of the model."""
        self._check_same("len_training", given, self.len_training)
        if self.len_training is not None:
            return self.len_training
        if given is not None:
            return self._check_task(given)
        if self.task is None:
            raise ValueError(
                f"No scenario's name stands on the path {self.path}, so give len_training."
            )
        return self.task.len_training

    def check_dataset(self, len_training: int, len_dataset: int) -> None:
        """Raise ValueError if the splits were drawn from a dataset of another length."""
        expected = self.len_dataset
        if expected is None and self.task and len_training == self.task.len_training:
            expected = self.task.len_dataset
        if expected is not None and len_dataset != expected:
            title = f" of {self.task.title}" if self.task else ""
            raise ValueError(
                f"Expected the {expected} records{title} that {self.path} was drawn from, got "
                f"{len_dataset}: load the whole dataset."
            )

    def _check_same(self, name: str, given: int | None, stated: int | None) -> None:
        if given is not None and stated is not None and given != stated:
            raise ValueError(
                f"{name}={given} is not that of {self.path}: its metadata says {stated}."
            )

    def _check_task(self, given: int) -> int:
        """Refuse n of another task, a mistake that gives wrong splits without any error."""
        if self.task is None or given == self.task.len_training:
            return given
        for other in TASKS.values():
            if given == other.len_training:
                raise ValueError(
                    f"len_training={given} is that of {other.title}; models of {self.task.title} "
                    f"({self.path}) were trained on {self.task.len_training}: leave it out."
                )
        return given
