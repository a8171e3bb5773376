"""The models of one scenario, and the part of their membership masks that an attack may use.

A `Fleet` gives signals their rows (models: train, then dev, then final) and columns (records of the
dataset).  It discloses membership exactly as far as the scenario does, even if the folders hold
more: an organiser attacks the trained models just as a participant would.
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
    SEED_FILES,
    STANDARD,
    Disclosure,
    get_scenario,
)
from mico_competition.data.fingerprint import hashed_once
from mico_competition.support.files import PathLike
from mico_competition.support.progress import tracked

HIDDEN, NONMEMBER, MEMBER = -1, 0, 1
OWN = "your models"
"""The `scenario` of a fleet that belongs to no competition."""
KNOWLEDGE = {"standard": STANDARD, "distinguisher": DISTINGUISHER}


@dataclass(frozen=True)
class Fleet:
    """The models of one scenario or of a researcher, and the records of their signals.

    Attributes:
        scenario: the scenario's name, or `OWN` for models of no competition.
        folders: the folder of each row's model; empty for models that have no folders.
        records: int64[points], indices into the dataset, ascending: the columns.
        labels: int64[points], the class of each column's record.
        challenge: int64[models, 2m], the columns of each model's challenge points, in the order
            of the challenge; -1 where a challenge point is not among `records`.
        known_membership: int8[models, points], MEMBER or NONMEMBER where the scenario discloses
            it, HIDDEN elsewhere.
        targets_from: the first row of the models that were passed as targets of an attack, if any.
    """

    scenario: str
    folders: tuple[ModelFolder, ...]
    records: np.ndarray
    labels: np.ndarray
    challenge: np.ndarray
    known_membership: np.ndarray
    targets_from: int | None = None

    def __len__(self) -> int:
        return len(self.known_membership)

    @property
    def told(self) -> np.ndarray:
        """The earlier name of `known_membership`, for code that was written with it."""
        return self.known_membership

    def name(self, row: int) -> str:
        """The name of one row's model in messages."""
        if self.targets_from is not None and row >= self.targets_from:
            several = len(self) - self.targets_from > 1
            return f"target[{row - self.targets_from}]" if several else "the target"
        return self.folders[row].relative_path if row < len(self.folders) else f"model {row}"

    def rows(self, *phases: str) -> np.ndarray:
        """int64[k], the rows of the models of these phases.

        Without folders, a model is a train model, which may be a shadow model, if its membership is
        known at all records; a dev model if it is known at some; else a final model.
        """
        if not self.folders:
            known = self.known_membership != HIDDEN
            whole, some = known.all(axis=1), known.any(axis=1)
            kinds = {"train": whole, "dev": some & ~whole, "final": ~some}
            return np.flatnonzero(np.any([kinds[phase] for phase in phases], axis=0))
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
    """Read which models a challenge folder holds for `scenario`, and who is known to be a member.

    Args:
        challenge_folder: `.../purchase100`, as downloaded, released or trained.
        scenario: the scenario's name.
        data: the whole dataset of the scenario's task, with `labels`.
        records: "challenge" takes the union of the challenge points of all models in the folder,
            whether they were selected or not, so that cached signals stay valid when more models
            are selected; "all" takes every record; an integer array gives indices into the dataset.
        phases: the phases to take models from.
        models: the model ids to take; all by default.
        knowledge: "standard" or "distinguisher", what is disclosed of dev and final models; by
            default what the scenario discloses.

    Raises:
        ValueError: if no model matches, if models have different numbers of challenge points, or
            if a seed that the scenario discloses is missing.
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
    with hashed_once(data):
        splits = [
            ChallengeDataset.from_path(folder.path, data)
            for folder in tracked(folders, "Splits", "model")
        ]
    points = [split.challenge_indices.numpy() for split in splits]
    for folder, indices in zip(folders, points):
        if len(indices) != len(points[0]):
            raise ValueError(
                f"{folder.relative_path} has {len(indices)} challenge points, but "
                f"{folders[0].relative_path} has {len(points[0])}: all models of a fleet must have "
                "the same number, so remove one of the two, or train it again."
            )
    labels = data.labels.cpu().numpy()
    if isinstance(records, str) and records == "challenge":
        points += _others(challenge_folder, scenario, folders, data)
    chosen = _chosen(records, points, len(labels))
    known = [_known(split, folder, disclosure, chosen) for split, folder in zip(splits, folders)]
    return Fleet(
        scenario,
        folders,
        chosen,
        labels[chosen],
        np.stack([_columns(chosen, indices) for indices in points[: len(folders)]]),
        np.stack(known),
    )


def _others(
    challenge_folder: PathLike, scenario: str, taken: Sequence[ModelFolder], data: Any
) -> list[np.ndarray]:
    """The challenge points of the scenario's other models, each an array of dataset indices."""
    there = [f for phase in PHASE_NAMES for f in walk_phase(challenge_folder, scenario, phase)]
    with hashed_once(data):
        return [
            ChallengeDataset.from_path(folder.path, data).challenge_indices.numpy()
            for folder in there
            if folder not in taken
        ]


def truth(fleet: Fleet, rows: np.ndarray, data: Any) -> np.ndarray:
    """The full membership mask of some models, for scoring only: it comes from withheld seeds.

    Args:
        fleet: from `read_fleet`.
        rows: int[rows], the models.
        data: the whole dataset.

    Returns:
        bool[rows, points], True where the model was trained on the record.

    Raises:
        ValueError: if a model's folder lacks a seed, as dev models do at a participant's.
    """
    with hashed_once(data):
        splits = [_splits(fleet.folders[row], data) for row in rows]
    return np.stack([_membership(split, fleet.records) for split in splits])


def _splits(folder: ModelFolder, data: Any) -> ChallengeDataset:
    splits = ChallengeDataset.from_path(folder.path, data)
    for name in SEED_FILES:
        if getattr(splits.seeds, name.removeprefix("seed_")) is None:
            raise ValueError(
                f"{folder.relative_path} has no {name}, so its members are not known: evaluate on "
                "the train phase, or on models of your own."
            )
    return splits


def _membership(splits: ChallengeDataset, records: np.ndarray) -> np.ndarray:
    """bool[points], whether a model with these splits was trained on each of `records`."""
    trained = np.zeros(_length(splits), bool)
    trained[splits.train_indices.numpy()] = True
    membership: np.ndarray = trained[records]
    return membership


def _known(
    splits: ChallengeDataset, folder: ModelFolder, disclosure: Disclosure, records: np.ndarray
) -> np.ndarray:
    """int8[points], what `disclosure` lets an attack know of one model's membership."""
    files = getattr(disclosure, folder.phase)
    if "seed_training" not in files:
        return np.full(len(records), HIDDEN, np.int8)
    if "seed_membership" in files:
        return _membership(_splits(folder, splits.dataset), records).astype(np.int8)
    if splits.seeds.training is None:
        raise ValueError(
            f"{folder.relative_path} has no seed_training, which the DP distinguisher discloses: "
            'download it again, or choose knowledge "standard".'
        )
    known = np.full(_length(splits), MEMBER, np.int8)
    known[splits.evaluation_indices.numpy()] = NONMEMBER
    known[splits.challenge_indices.numpy()] = HIDDEN
    known_membership: np.ndarray = known[records]
    return known_membership


def _length(splits: ChallengeDataset) -> int:
    return len(splits.dataset)  # type: ignore[arg-type]


def _chosen(records: np.ndarray | str, points: list[np.ndarray], length: int) -> np.ndarray:
    """int64[points], the dataset indices of `records`, ascending."""
    if isinstance(records, str):
        if records not in ("challenge", "all"):
            raise ValueError(f"Expected records {records!r} to be 'challenge' or 'all'.")
        return np.arange(length) if records == "all" else np.unique(np.concatenate(points))
    indices = np.unique(np.asarray(records, np.int64))
    if indices.size == 0 or indices[0] < 0 or indices[-1] >= length:
        raise ValueError(f"Expected records to be indices into the dataset, 0..{length - 1}.")
    return indices


def _columns(records: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The columns that hold the records `wanted`, -1 where they are not among `records`."""
    columns = np.searchsorted(records, wanted).clip(max=len(records) - 1)
    return np.where(records[columns] == wanted, columns, -1)
