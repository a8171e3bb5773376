"""A dataset of records that consist of several named tensors, in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mico_competition.data.arrays import Device, Indices


class NamedDataset(Dataset[tuple[dict[str, Tensor], int]]):
    """Records of several tensors with labels: the inputs of a model that takes them by name.

    Args:
        tensors: name -> tensor [N, ...].
        labels: int64 [N].
    """

    def __init__(self, tensors: Mapping[str, Tensor], labels: Tensor):
        self.tensors = dict(tensors)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        """Item `index`: (dict of tensors [...], int label)."""
        return {name: t[index] for name, t in self.tensors.items()}, int(self.labels[index])

    def inputs(self, indices: Indices) -> dict[str, Tensor]:
        """The records at `indices` (0 <= i < N), as a dict of tensors [len(indices), ...]."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        return {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}

    def to(self, device: Device) -> NamedDataset:
        """The same dataset on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return NamedDataset(moved, self.labels.to(device))

    @property
    def nbytes(self) -> int:
        """The memory that the dataset takes, in bytes."""
        return self.labels.nbytes + sum(tensor.nbytes for tensor in self.tensors.values())
