"""The models of one scenario and what is told of them: the rows and columns of every attack.

Rows are models (train, then dev, then final), columns are records of the dataset.  Who trained on
what is told exactly as far as the scenario discloses it, whatever lies in the folders: an
organiser's own models are attacked as participants would attack them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mico_competition.competition.challenge import ChallengeDataset
from mico_competition.competition.layout import ModelFolder, walk_phase
from mico_competition.competition.table import (
    DISTINGUISHER,
    PHASE_NAMES,
    PHASES,
    SEED_FILES,
    STANDARD,
    Disclosure,
    get_scenario,
)
from mico_competition.data.fingerprint import hashed_once
from mico_competition.support.files import PathLike
from mico_competition.support.progress import tracked

HIDDEN, NONMEMBER, MEMBER = -1, 0, 1
KNOWLEDGE = {"standard": STANDARD, "distinguisher": DISTINGUISHER}


@dataclass(frozen=True)
class Fleet:
    """One scenario's models and the records that their signals are of.

    Attributes:
        scenario: the scenario's name.
        folders: one a row.
        records: int64[points], places in the dataset, ascending.
        labels: int64[points], their classes.
        challenge: int64[models, 2m], the columns of each model's challenge points, in their
            order; -1 where a challenge point is not among `records`.
        known_membership: int8[models, points], MEMBER or NONMEMBER where it is disclosed, and
            HIDDEN elsewhere.
    """

    scenario: str
    folders: tuple[ModelFolder, ...]
    records: np.ndarray
    labels: np.ndarray
    challenge: np.ndarray
    known_membership: np.ndarray

    @property
    def told(self) -> np.ndarray:
        """`known_membership`, under the name that attack files of earlier versions use."""
        return self.known_membership

    def __len__(self) -> int:
        return len(self.folders)

    def rows(self, *phases: str) -> np.ndarray:
        """int64[k], the rows of these phases' models."""
        return np.array([i for i, f in enumerate(self.folders) if f.phase in phases], np.int64)


def read_fleet(
    challenge_folder: PathLike,
    scenario: str,
    data: Any,
    *,
    records: np.ndarray | str = "challenge",
    phases: Sequence[str] = PHASE_NAMES,
    models: Sequence[int] | None = None,
    knowledge: str | None = None,
) -> Fleet:
    """The models of `scenario` below a challenge folder.

    Args:
        challenge_folder: `.../purchase100`, as downloaded, released or trained.
        scenario: its name.
        data: the whole dataset of its task, with `labels`.
        records: "challenge", the union of all models' challenge points, those of other phases and
            ids too, so that signals kept for some models serve for more; "all"; or places in the
            dataset.
        phases: phases to take models of.
        models: ids to take; all by default.
        knowledge: "standard" or "distinguisher" (what is told of dev and final models); by
            default what the scenario discloses.

    Raises:
        ValueError: if there are no such models, if they have not equally many challenge points,
            or a seed that must be disclosed is not there.
    """
    row = get_scenario(scenario)
    if knowledge is not None and knowledge not in KNOWLEDGE:
        raise ValueError(f"Expected knowledge {knowledge!r} to be one of {', '.join(KNOWLEDGE)}.")
    disclosure = KNOWLEDGE[knowledge] if knowledge else row.disclosure
    folders = tuple(
        folder
        for phase in phases
        for folder in walk_phase(challenge_folder, scenario, phase)
        if models is None or folder.model_id in models
    )
    if not folders:
        raise ValueError(
            f"There are no models of {scenario} in {challenge_folder}: expected "
            f"{scenario}/train/model_0 and the like below it."
        )
    found = tracked(folders, "Splits", "model")
    with hashed_once(data):
        splits = [ChallengeDataset.from_path(folder.path, data) for folder in found]
    points = [split.challenge_indices.numpy() for split in splits]
    for folder, own in zip(folders, points):
        if len(own) != len(points[0]):
            raise ValueError(
                f"{folder.place} has {len(own)} challenge points and {folders[0].place} "
                f"{len(points[0])}: the models of a fleet have equally many, so take one of them "
                "out, or train it again."
            )
    labels = data.labels.cpu().numpy()
    if isinstance(records, str) and records == "challenge":
        points += _others(challenge_folder, scenario, folders, data)
    places = _places(records, points, len(labels))
    return Fleet(
        scenario,
        folders,
        places,
        labels[places],
        np.stack([_columns(places, own) for own in points[: len(folders)]]),
        np.stack(
            [
                _disclosed(split, folder, disclosure, places)
                for split, folder in zip(splits, folders)
            ]
        ),
    )


def _others(
    challenge_folder: PathLike, scenario: str, taken: Sequence[ModelFolder], data: Any
) -> list[np.ndarray]:
    """Challenge points of the models of the scenario that were not taken."""
    there = [f for phase in PHASES for f in walk_phase(challenge_folder, scenario, phase)]
    with hashed_once(data):
        return [
            ChallengeDataset.from_path(folder.path, data).challenge_indices.numpy()
            for folder in there
            if folder not in taken
        ]


def truth(fleet: Fleet, rows: np.ndarray, data: Any) -> np.ndarray:
    """bool[rows, points], who trained on what: for scoring only, from seeds that may be secret.

    Raises:
        ValueError: if a model's folder lacks the seeds, as a participant's dev models do.
    """
    with hashed_once(data):
        splits = [_splits(fleet.folders[row], data) for row in rows]
    return np.stack([_membership(split, fleet.records) for split in splits])


def _splits(folder: ModelFolder, data: Any) -> ChallengeDataset:
    splits = ChallengeDataset.from_path(folder.path, data)
    for name in SEED_FILES:
        if getattr(splits.seeds, name.removeprefix("seed_")) is None:
            raise ValueError(
                f"{folder.place} has no {name}, so who is a member is not known: evaluate on the "
                "train phase, or on models of your own."
            )
    return splits


def _membership(splits: ChallengeDataset, places: np.ndarray) -> np.ndarray:
    trained = np.zeros(_length(splits), bool)
    trained[splits.train_indices.numpy()] = True
    return trained[places]


def _disclosed(
    splits: ChallengeDataset, folder: ModelFolder, disclosure: Disclosure, places: np.ndarray
) -> np.ndarray:
    """int8[points], the disclosed membership of one model."""
    files = getattr(disclosure, folder.phase)
    known_membership = np.full(len(places), HIDDEN, np.int8)
    if "seed_training" not in files:
        return known_membership
    if "seed_membership" in files:
        return _membership(_splits(folder, splits.dataset), places).astype(np.int8)
    if splits.seeds.training is None:
        raise ValueError(
            f"{folder.place} has no seed_training, which the DP distinguisher tells: download it "
            "again, or ask with standard knowledge."
        )
    known = np.full(_length(splits), MEMBER, np.int8)
    known[splits.evaluation_indices.numpy()] = NONMEMBER
    known[splits.challenge_indices.numpy()] = HIDDEN
    return known[places]


def _length(splits: ChallengeDataset) -> int:
    return len(splits.dataset)  # type: ignore[arg-type]


def _places(records: np.ndarray | str, points: list[np.ndarray], length: int) -> np.ndarray:
    if isinstance(records, str):
        if records not in ("challenge", "all"):
            raise ValueError(f"Expected records {records!r} to be 'challenge' or 'all'.")
        return np.arange(length) if records == "all" else np.unique(np.concatenate(points))
    places = np.unique(np.asarray(records, np.int64))
    if places.size == 0 or places[0] < 0 or places[-1] >= length:
        raise ValueError(f"Expected records to be places in the dataset, 0..{length - 1}.")
    return places


def _columns(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The columns of `wanted` places, -1 where they are not among `places`."""
    columns = np.searchsorted(places, wanted).clip(max=len(places) - 1)
    return np.where(places[columns] == wanted, columns, -1)
