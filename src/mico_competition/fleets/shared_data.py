"""A dataset in one file that worker processes map into memory: one copy a machine, not a worker.

A mapped file needs no /dev/shm, which is 64 MB in many containers, and a worker that dies
leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.inputs import Data
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.training.model_folder import StorageError

Parts = dict[str, torch.Tensor]
Rebuild = Callable[[Parts], Data]


def parts_of(data: Data) -> tuple[Parts, Rebuild]:
    """The tensors of a dataset on the CPU, and what makes the dataset of them again (pickles)."""
    if isinstance(data, TokenDataset):
        names = ("input_ids", "attention_mask", "labels")
        parts = {name: getattr(data, name) for name in names}
        return parts, partial(_tokens, sentences_digest=data.sentences_digest)
    return {"storage": data.storage, "labels": data.labels}, partial(_arrays, expand=data.expand)


def _tokens(parts: Parts, sentences_digest: str | None) -> TokenDataset:
    return TokenDataset(**parts, sentences_digest=sentences_digest)


def _arrays(parts: Parts, expand: Callable[[torch.Tensor], torch.Tensor]) -> ArrayDataset:
    return ArrayDataset(**parts, expand=expand)


def save_parts(parts: Parts, path: PathLike) -> None:
    """Write the tensors of a dataset to one file.

    Raises:
        StorageError: if the disk does not take it.
    """
    try:
        with written_aside(path, access=PRIVATE) as aside, open(aside, "wb") as file:
            torch.save(parts, file)
    except (OSError, RuntimeError) as error:  # torch's own, where a disk fills up under it
        size = sum(part.nbytes for part in parts.values())
        reason = getattr(error, "strerror", None) or "the disk did not take all of it"
        raise StorageError(
            f"{path} could not be written ({reason}): the dataset takes {size / 1e6:,.1f} MB there "
            "while a fleet runs; free some space and run again."
        ) from error


def map_parts(path: PathLike) -> Parts:
    """The tensors in a file of `save_parts`, read from the file as they are needed."""
    parts: Any = torch.load(Path(path), mmap=True, weights_only=True, map_location="cpu")
    return parts
