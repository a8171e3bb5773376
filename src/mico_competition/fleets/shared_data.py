"""Shares one copy of a dataset among the worker processes of a machine, as a memory-mapped file.

Unlike shared memory, a mapped file does not need /dev/shm, which many containers limit to 64 MB,
and a worker that dies leaves nothing behind.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from mico_competition.competition.in_use import InUse
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.inputs import Data
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.training.model_folder import StorageError

Parts = dict[str, torch.Tensor]
Rebuild = Callable[[Parts], Data]


@dataclass(frozen=True)
class Rebuilt:
    """What makes a dataset again in another process, which may not use the competition yet.

    A dataset may hold a function of the organiser's, which only a process that uses the
    competition can unpickle.
    """

    function: bytes
    competition: InUse

    @classmethod
    def by(cls, function: Rebuild) -> Rebuilt:
        """As `function` makes it, with the competition that is in use here."""
        return cls(pickle.dumps(function), InUse.here())

    def __call__(self, parts: Parts) -> Data:
        """The dataset.

        Raises:
            ValueError: if the competition's file is not here, or is another one.
        """
        self.competition.use()
        rebuild: Rebuild = pickle.loads(self.function)  # of our own process
        return rebuild(parts)


def parts_of(data: Data) -> tuple[Parts, Rebuild]:
    """The tensors of a dataset on the CPU, and a function (can be pickled) that rebuilds it."""
    if isinstance(data, TokenDataset):
        names = ("input_ids", "attention_mask", "labels")
        parts = {name: getattr(data, name) for name in names}
        return parts, Rebuilt.by(partial(_tokens, sentences_digest=data.sentences_digest))
    parts = {"storage": data.storage, "labels": data.labels}
    return parts, Rebuilt.by(partial(_arrays, expand=data.expand))


def _tokens(parts: Parts, sentences_digest: str | None) -> TokenDataset:
    return TokenDataset(**parts, sentences_digest=sentences_digest)


def _arrays(parts: Parts, expand: Callable[[torch.Tensor], torch.Tensor]) -> ArrayDataset:
    return ArrayDataset(**parts, expand=expand)


def save_parts(parts: Parts, path: PathLike) -> None:
    """Write the tensors of a dataset to one file.

    Raises:
        StorageError: if the disk is full, or the file cannot be written for another reason.
    """
    try:
        with written_aside(path, access=PRIVATE) as aside, open(aside, "wb") as file:
            torch.save(parts, file)
    except (OSError, RuntimeError) as error:  # torch raises the latter when the disk fills up
        size = sum(part.nbytes for part in parts.values())
        reason = getattr(error, "strerror", None) or "the disk did not take all of it"
        raise StorageError(
            f"{path} could not be written ({reason}): the dataset takes {size / 1e6:,.1f} MB there "
            "while a fleet runs; free some space and run again."
        ) from error


def map_parts(path: PathLike) -> Parts:
    """The tensors in a file of `save_parts`, mapped into memory."""
    parts: Parts = torch.load(Path(path), mmap=True, weights_only=True, map_location="cpu")
    return parts
