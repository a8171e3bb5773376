"""The records that signals are of, on the device where models run, ready to be gone through again.

Records stay compact (bits, bytes, tokens); what models take is made of them once for all models
where that fits into memory, else anew for each batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.competition.table import Task, get_task
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.inputs import Data

KEPT_BYTES = 2**29  # of expanded inputs, kept between models
_CUDA = 8  # times the batch of a CPU, whose caches are small

Batch = tuple[Any, Tensor]


@dataclass(frozen=True)
class Points:
    """Records with labels, in the order of a fleet's columns; pickles.

    Attributes:
        task_name: of the models.
        data: these records only, compact, on the device.
    """

    task_name: str
    data: Data
    _kept: dict[int, list[Batch]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, task_name: str, data: Any, records: np.ndarray) -> Points:
        """`records` (int64, places in `data`) out of a dataset, on the dataset's device.

        Raises:
            ValueError: if `data` is not what the task's models take, a record is out of range,
                or a label is no class of the task.
        """
        task = get_task(task_name)
        expected = TokenDataset if task.text else ArrayDataset
        if not isinstance(data, expected):
            raise ValueError(
                f"Expected a {expected.__name__} for task {task_name}, got "
                f"{type(data).__name__}: open_signals and inputs.prepare make one"
                f"{', with the tokenizer of a model' if task.text else ''}."
            )
        if len(records) == 0 or records.min() < 0 or records.max() >= len(data):
            raise ValueError(
                f"Expected records to be places in the dataset, 0..{len(data) - 1}: were they "
                "read with another dataset?"
            )
        index = torch.from_numpy(np.asarray(records, np.int64))
        if isinstance(data, TokenDataset):
            own: Data = TokenDataset(
                data.input_ids[index], data.attention_mask[index], data.labels[index]
            )
        else:
            own = ArrayDataset(data.storage[index], data.labels[index], data.expand)
        if int(own.labels.min()) < 0 or int(own.labels.max()) >= task.num_classes:
            raise ValueError(
                f"Expected labels of {task_name} in 0..{task.num_classes - 1}, got "
                f"{int(own.labels.min())}..{int(own.labels.max())}: is it another task's dataset?"
            )
        return cls(task_name, own)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def task(self) -> Task:
        """The row of the task."""
        return get_task(self.task_name)

    @property
    def device(self) -> torch.device:
        """Where the records are."""
        return self.data.labels.device

    def to(self, device: torch.device) -> Points:
        """The same on `device`, without what was kept."""
        return Points(self.task_name, self.data.to(device))

    def batches(self, batch_size: int, *, keep: bool = False) -> Iterator[Batch]:
        """(inputs as `models.logits` takes them, labels int64[b]), in order, on the device.

        With `keep` they are there for the next model, if they are not too large.
        """
        if batch_size in self._kept:
            yield from self._kept[batch_size]
            return
        kept: list[Batch] | None = [] if keep else None
        for index in torch.arange(len(self), device=self.device).split(batch_size):
            batch = self.data.inputs(index), self.data.labels[index]
            yield batch
            if kept == [] and _nbytes(batch[0]) * len(self) / len(index) > KEPT_BYTES:
                kept = None
            if kept is not None:
                kept.append(batch)
        if kept is not None:
            self._kept[batch_size] = kept

    def batch_size(self, *, gradients: bool = False) -> int:
        """Records in one pass: what a core's caches like, more on a GPU.

        Even, as `cache` wants it.  Activations of images and sentences are far larger than they.
        """
        if isinstance(self.data, TokenDataset):
            size = 32
        elif isinstance(self.data, ArrayDataset) and self.data.storage[0].ndim > 1:
            size = 64
        else:
            size = 1024
        if self.device.type == "cuda":
            size *= _CUDA
        return max(2, size // 2) if gradients else size

    def check_model(self, model: nn.Module, place: str) -> None:
        """ValueError if the tokens are not of the model's vocabulary."""
        words = getattr(getattr(model, "config", None), "vocab_size", None)
        if isinstance(self.data, TokenDataset) and words is not None:
            largest = int(self.data.input_ids.max())
            if largest >= words:
                raise ValueError(
                    f"{place} has {words} tokens and the dataset token {largest}: it was "
                    "tokenised with another model's tokenizer; put the model's own beside it."
                )


def _nbytes(inputs: Any) -> int:
    values = inputs.values() if isinstance(inputs, dict) else [inputs]
    return sum(value.nbytes for value in values)
