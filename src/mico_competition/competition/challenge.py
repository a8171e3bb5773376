"""`ChallengeDataset`: the splits of a dataset that a model's seeds give.

They say which records are challenge points and which ones the model was trained on:

                         dataset: N records
                     seed_challenge |
              +---------------------+---------------+
          challenge: 2m                        rest: N - 2m
    seed_membership |                  seed_training |
          +---------+---------+         +-----------+-----------+
     nonmember: m   member: m      training: n - m   evaluation: N - n - m

A model is trained on member + training and evaluated on evaluation, but never on nonmember, because
an accuracy over non-members would reveal who they are.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from mico_competition.competition.lengths import Lengths, read_metadata
from mico_competition.competition.solutions import check_solution
from mico_competition.competition.splits import Seed, Seeds, parse_seed, permutation
from mico_competition.competition.table import SEED_FILES, check_lengths
from mico_competition.data.fingerprint import check_dataset
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import SEED_LIMIT, read_limited_text

Self = TypeVar("Self", bound="ChallengeDataset")

_HIDDEN = {
    "seed_training": "which other records were trained on and which are left for evaluation",
    "seed_membership": "which challenge points are members",
}


class NotDisclosedError(ValueError, AttributeError):
    """A part of the split needs a seed that was not disclosed.

    It is a `ValueError`, and also an `AttributeError`, so that `hasattr(dataset, "training")` is
    False if the training records are not known, as in 2022.
    """


class ChallengeDataset:
    """The splits of one model, rebuilt from its seeds: keyed ones, or those of 2022 bit for bit.

    Each split is drawn when it is first used; the 2m challenge points take milliseconds however
    long the dataset is.

    Args:
        dataset: anything with a length N and items.
        len_training: n, the number of records the model was trained on, with the m members.
        len_challenge: m, the number of members; there are 2m challenge points.
        seed_challenge: the seed of the challenge points: 16 bytes, or an integer as in 2022.
        seed_training: the seed of the other training records, or None if it was not disclosed.
        seed_membership: the seed that divides challenge points into members and non-members, or
            None if it was not disclosed.

    Raises:
        ValueError: if a split would be empty or negative, if a seed is neither 16 bytes nor a
            64-bit integer, or if the seeds are of different schemes.

    >>> seeds = {"seed_challenge": 1, "seed_training": 2, "seed_membership": 3}
    >>> splits = ChallengeDataset(range(20), len_training=8, len_challenge=2, **seeds)
    >>> list(splits.get_challenges()), splits.get_solutions(), len(splits.get_train_dataset())
    ([5, 13, 2, 11], [1, 1, 0, 0], 8)
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        len_training: int,
        len_challenge: int,
        seed_challenge: Seed,
        seed_training: Seed | None = None,
        seed_membership: Seed | None = None,
    ) -> None:
        check_lengths(_length(dataset), len_training, len_challenge)
        self.dataset = dataset
        self.len_training = len_training
        self.len_challenge = len_challenge
        self.seeds = Seeds(seed_challenge, seed_training, seed_membership)

    @classmethod
    def from_path(
        cls: type[Self],
        path: PathLike,
        dataset: Dataset[Any],
        len_training: int | None = None,
        len_challenge: int | None = None,
    ) -> Self:
        """Rebuild the splits of the model in folder `path` from its seed files.

        Args:
            path: a model folder, with at least `seed_challenge`.
            dataset: the whole dataset of the model's task.
            len_training: n; by default that of the folder's metadata, or of the scenario that is
                named on the path.
            len_challenge: m; by default that of the metadata, or 100.

        Raises:
            ValueError: if there is no `seed_challenge`; if n is unknown, or not that of the model;
                if the dataset has another length or fingerprint than the model's metadata or
                scenario say; or if a solution.csv contradicts the seeds.  (The constructor accepts
                any dataset.)
        """
        path = Path(path)
        lengths = Lengths.of(path)
        m = lengths.check_challenge(len_challenge)
        n = lengths.check_training(len_training)
        lengths.check_dataset(n, _length(dataset))
        check_dataset(path, read_metadata(path).get("dataset_fingerprint"), dataset)
        seeds = read_seeds(path)
        check_solution(path, count=2 * m)
        return cls(dataset, n, m, seeds.challenge, seeds.training, seeds.membership)

    @cached_property
    def _challenge_order(self) -> torch.Tensor:
        return permutation(_length(self.dataset), self.seeds.challenge)

    @cached_property
    def _training_order(self) -> torch.Tensor:
        seed = self._seed("seed_training", self.seeds.training)
        return permutation(_length(self.dataset) - 2 * self.len_challenge, seed)

    @cached_property
    def _membership_order(self) -> torch.Tensor:
        seed = self._seed("seed_membership", self.seeds.membership)
        return permutation(2 * self.len_challenge, seed)

    @staticmethod
    def _seed(name: str, seed: Seed | None) -> Seed:
        if seed is None:
            raise NotDisclosedError(
                f"{name} was not disclosed for this model, so {_HIDDEN[name]} is not known."
            )
        return seed

    @cached_property
    def challenge(self) -> Subset[Any]:
        """The 2m challenge points."""
        return Subset(self.dataset, self._challenge_order[: 2 * self.len_challenge].tolist())

    @cached_property
    def rest(self) -> Subset[Any]:
        """The N - 2m records that are not challenge points."""
        return Subset(self.dataset, self._challenge_order[2 * self.len_challenge :].tolist())

    @cached_property
    def training(self) -> Subset[Any]:
        """The n - m training records that are not challenge points; needs seed_training."""
        return self._part(
            self.rest, "training", slice(None, self.len_training - self.len_challenge)
        )

    @cached_property
    def evaluation(self) -> Subset[Any]:
        """The N - n - m records that the model never saw; needs seed_training."""
        return self._part(
            self.rest, "training", slice(self.len_training - self.len_challenge, None)
        )

    @cached_property
    def nonmember(self) -> Subset[Any]:
        """The m challenge points that were not trained on; needs seed_membership."""
        return self._part(self.challenge, "membership", slice(None, self.len_challenge))

    @cached_property
    def member(self) -> Subset[Any]:
        """The m challenge points that were trained on; needs seed_membership."""
        return self._part(self.challenge, "membership", slice(self.len_challenge, None))

    def _part(self, whole: Dataset[Any], order: str, part: slice) -> Subset[Any]:
        return Subset(whole, getattr(self, f"_{order}_order")[part].tolist())

    @property
    def challenge_indices(self) -> torch.Tensor:
        """The indices of the challenge points in the dataset, int64[2m], in their order."""
        return self._challenge_order[: 2 * self.len_challenge]

    @property
    def train_indices(self) -> torch.Tensor:
        """The indices of member + training in the dataset, int64[n], members first."""
        m, n = self.len_challenge, self.len_training
        members = self.challenge_indices[self._membership_order[m:]]
        others = self._challenge_order[2 * m :][self._training_order[: n - m]]
        return torch.cat([members, others])

    @property
    def evaluation_indices(self) -> torch.Tensor:
        """The indices of the evaluation records in the dataset, int64[N - n - m]."""
        m, n = self.len_challenge, self.len_training
        return self._challenge_order[2 * m :][self._training_order[n - m :]]

    def get_challenges(self) -> Subset[Any]:
        """The 2m challenge points, in the order of solutions and predictions."""
        return self.challenge

    def get_train_dataset(self) -> Dataset[Any]:
        """member + training, in that order: the n records the model was trained on.

        Raises:
            NotDisclosedError: if seed_training or seed_membership was not disclosed.
        """
        training = self.training
        return ConcatDataset([self.member, training])

    def get_eval_dataset(self) -> Subset[Any]:
        """The N - n - m records to evaluate on.

        Raises:
            NotDisclosedError: if seed_training was not disclosed.
        """
        return self.evaluation

    def get_solutions(self) -> list[int]:
        """2m labels in the order of `get_challenges`: 1 for a member, 0 for a non-member.

        Raises:
            NotDisclosedError: if seed_membership was not disclosed.
        """
        labels = torch.zeros(2 * self.len_challenge, dtype=torch.int64)
        labels[self._membership_order[self.len_challenge :]] = 1
        return labels.tolist()


def read_seeds(path: PathLike) -> Seeds:
    """Read the seeds in model folder `path`; ValueError if there is no seed_challenge."""
    path = Path(path)
    if not (path / "seed_challenge").is_file():
        raise ValueError(f"There is no file seed_challenge in {path}: is it a model folder?")
    seeds = [
        parse_seed(str(path / name), read_limited_text(path / name, SEED_LIMIT, "a seed"))
        if (path / name).is_file()
        else None
        for name in SEED_FILES
    ]
    return Seeds(*seeds)  # type: ignore[arg-type]


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]
