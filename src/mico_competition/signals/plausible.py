"""Warns if models do not fit the dataset, where their folders name no dataset to compare with.

The folders of 2022 have no fingerprint of their dataset.  Two things then suggest that it is the
wrong one: a model classifies its own training records no better than guessing, or models that were
trained without privacy classify members no better than non-members.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.table import get_scenario

_LEAST_GAIN = 0.05  # in accuracy over guessing the most frequent class; or 3 standard errors
_LEAST_POINTS = 500  # to judge by the difference between members and non-members

_log = logging.getLogger(__name__)


class Plausibility:
    """The accuracies of one scenario's models at their challenge points.

    Args:
        folders: the models; those whose metadata name their dataset are not examined.
    """

    def __init__(self, folders: Sequence[ModelFolder]) -> None:
        self._open = {f for f in folders if not read_metadata(f.path).get("dataset_fingerprint")}
        self._near: list[tuple[ModelFolder, float, float]] = []
        # bool[points]: which members, and which non-members, a non-private model gets right
        self._members: list[np.ndarray] = []
        self._others: list[np.ndarray] = []
        self._seen = 0

    def wants(self, folder: ModelFolder) -> bool:
        """Whether `see` must still be called for this model."""
        return folder in self._open

    def see(
        self,
        folder: ModelFolder,
        predicted: np.ndarray,
        labels: np.ndarray,
        members: np.ndarray | None,
    ) -> None:
        """Record how well a model classifies its challenge points.

        Args:
            folder: the model.
            predicted: int64[points], the classes that it predicts at its challenge points.
            labels: int64[points], their true classes.
            members: bool[points], which of them it was trained on; None if that is not known.
        """
        self._open.discard(folder)
        self._seen += 1
        right = predicted == labels
        if members is not None and members.any() and not get_scenario(folder.scenario).private:
            self._members.append(right[members])
            self._others.append(right[~members])
        if members is not None and members.any():
            right, labels = right[members], labels[members]
        guess = float(np.bincount(labels).max() / len(labels))
        error = math.sqrt(guess * (1 - guess) / len(labels))
        if right.mean() <= guess + max(_LEAST_GAIN, 3 * error):
            self._near.append((folder, float(right.mean()), guess))

    def warn(self) -> None:
        """Log one warning if the models seen so far look wrong, and forget them."""
        if self._near:
            folder, accuracy, guess = self._near[0]
            _log.warning(
                "%d of %d models of %s whose folders name no dataset are near chance: %s "
                "classifies %.1f%% of its records correctly, where guessing gives %.1f%%. Unless "
                "they were hardly trained, this is not the dataset that they were trained on: "
                "check its records, labels and order.",
                len(self._near),
                self._seen,
                folder.scenario,
                folder.relative_path,
                100 * accuracy,
                100 * guess,
            )
        elif self._members:
            members, others = np.concatenate(self._members), np.concatenate(self._others)
            error = math.sqrt(members.var() / len(members) + others.var() / len(others))
            enough = len(members) + len(others) >= _LEAST_POINTS
            if enough and members.mean() - others.mean() <= 2 * error:
                _log.warning(
                    "%d models whose folders name no dataset classify the records that they were "
                    "trained on no better than others (%.1f%% and %.1f%% correct), although they "
                    "were trained without privacy: check that this is the dataset that they were "
                    "trained on, in its original order.",
                    len(self._members),
                    100 * members.mean(),
                    100 * others.mean(),
                )
        self._near, self._members, self._others = [], [], []
