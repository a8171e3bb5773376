"""A dataset in one file that worker processes map into memory: one copy a machine, not a worker.

A mapped file needs no /dev/shm, which is 64 MB in many containers, and a worker that dies
leaves nothing behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.files import PathLike, written_aside
from mico_competition.inputs import Data

Parts = dict[str, torch.Tensor]
Rebuild = Callable[[Parts], Data]


def parts_of(data: Data) -> tuple[Parts, Rebuild]:
    """The tensors of a dataset on the CPU, and what makes the dataset of them again (pickles)."""
    if isinstance(data, TokenDataset):
        names = ("input_ids", "attention_mask", "labels")
        return {name: getattr(data, name) for name in names}, _tokens
    return {"storage": data.storage, "labels": data.labels}, _Arrays(data.expand)


def _tokens(parts: Parts) -> TokenDataset:
    return TokenDataset(**parts)


class _Arrays:
    """Makes an ArrayDataset of its parts; a class, because closures do not pickle."""

    def __init__(self, expand: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.expand = expand

    def __call__(self, parts: Parts) -> ArrayDataset:
        return ArrayDataset(**parts, expand=self.expand)


def fingerprint(data: Data) -> str:
    """SHA-256 in hex of a dataset's records and labels: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, part in sorted(parts_of(data)[0].items()):
        digest.update(f"{name} {part.dtype} {tuple(part.shape)};".encode())
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def save_parts(parts: Parts, path: PathLike) -> None:
    """Write the tensors of a dataset to one file."""
    with written_aside(path) as aside, open(aside, "wb") as file:
        torch.save(parts, file)


def map_parts(path: PathLike) -> Parts:
    """The tensors in a file of `save_parts`, read from the file as they are needed."""
    parts: Any = torch.load(Path(path), mmap=True, weights_only=True, map_location="cpu")
    return parts
