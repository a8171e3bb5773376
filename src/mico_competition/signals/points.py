"""The records at which signals are computed, kept on the device where the models run.

Records are stored compactly (bits, bytes, tokens).  The inputs that models take are expanded once
for all models if they fit into memory, and otherwise anew for each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.competition.table import Task, get_task
from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.models.inputs import Data
from mico_competition.models.padding import by_length, masks_padding, trimmed

KEPT_BYTES = 2**29  # the most bytes of expanded inputs that are kept between models
_CUDA = 8  # ratio of a GPU's batch to that of a CPU, whose caches are small

Batch = tuple[Any, Tensor]
Kept = dict[tuple[int, bool], list[Batch]]  # by batch size, and whether sentences are trimmed


@dataclass(frozen=True)
class Points:
    """Records with labels, in the order of a fleet's columns; can be pickled.

    Attributes:
        task_name: the task of the models.
        data: these records only, compact, on the device.
        size: the number of records that go through a model at once; by default as many as suit
            the device.
    """

    task_name: str
    data: Data
    size: int | None = None
    _kept: Kept = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, task_name: str, data: Any, records: np.ndarray) -> Points:
        """Select `records` (int64[points], indices) of a dataset, on the dataset's device.

        Raises:
            ValueError: if `data` is not what the task's models take, an index is out of range, or
                a label is not a class of the task.
        """
        task = get_task(task_name)
        expected = TokenDataset if task.text else ArrayDataset
        if not isinstance(data, expected):
            raise ValueError(
                f"Expected a {expected.__name__} for task {task_name}, got "
                f"{type(data).__name__}: open_signals and inputs.prepare return one"
                f"{', with the tokenizer of a model' if task.text else ''}."
            )
        if len(records) == 0 or records.min() < 0 or records.max() >= len(data):
            raise ValueError(
                f"Expected records to be indices into the dataset, 0..{len(data) - 1}: were they "
                "read with another dataset?"
            )
        chosen = _chosen(data, records)
        if int(chosen.labels.min()) < 0 or int(chosen.labels.max()) >= task.num_classes:
            raise ValueError(
                f"Expected labels of {task_name} in 0..{task.num_classes - 1}, got "
                f"{int(chosen.labels.min())}..{int(chosen.labels.max())}: is it another task's "
                "dataset?"
            )
        return cls(task_name, chosen)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def task(self) -> Task:
        """The task of the models, from the table."""
        return get_task(self.task_name)

    @property
    def device(self) -> torch.device:
        """The device that holds the records."""
        return self.data.labels.device

    def to(self, device: torch.device) -> Points:
        """The same records on `device`, without the inputs that were kept."""
        return Points(self.task_name, self.data.to(device), self.size)

    def outputs(
        self,
        model: nn.Module,
        run: Callable[[Any, Tensor], Tensor],
        batch_size: int,
        *,
        keep: bool = False,
    ) -> list[Tensor]:
        """The results of `run` on batches, in parts that follow the order of the records.

        Sentences go by length and without needless padding, if the model masks padding.

        Args:
            model: that `run` uses.
            run: gets inputs as `models.logits` takes them, and labels int64[b]; returns [b, ...].
            batch_size: records in one call.
            keep: keeps the inputs for the next model, if they fit into KEPT_BYTES.
        """
        if not isinstance(self.data, TokenDataset) or not masks_padding(model):
            return [run(*batch) for batch in self._batches(None, batch_size, keep)]
        order = by_length(self.data.attention_mask).flip(0)  # the first batch is the largest
        parts = [run(*batch) for batch in self._batches(order, batch_size, keep)]
        return [torch.cat(parts)[order.argsort()]]

    def _batches(self, order: Tensor | None, batch_size: int, keep: bool) -> Iterator[Batch]:
        """Batches of inputs and labels: in order, or trimmed and in the order given."""
        kind = batch_size, order is not None
        if keep and kind in self._kept:  # kept ones are of inference: no gradients flow
            yield from self._kept[kind]
            return
        kept: list[Batch] | None = [] if keep else None
        places = torch.arange(len(self), device=self.device) if order is None else order
        for index in places.split(batch_size):
            inputs = self.data.inputs(index)
            batch = inputs if order is None else trimmed(inputs), self.data.labels[index]
            yield batch
            if kept == [] and _nbytes(batch[0]) * len(self) / len(index) > KEPT_BYTES:
                kept = None
            if kept is not None:
                kept.append(batch)
        if kept is not None:
            self._kept[kind] = kept

    def batch_size(self, *, gradients: bool = False) -> int:
        """How many records go through a model at once: as many as suit a core's caches or a GPU.

        The number is even, as `cache` needs it.  It is smaller for images and sentences, whose
        activations are far larger than they are themselves.
        """
        if self.size is not None:
            return self.size
        if not isinstance(self.data, ArrayDataset):
            size = 32
        elif self.data.storage[0].ndim > 1:
            size = 64
        else:
            size = 1024
        if self.device.type == "cuda":
            size *= _CUDA
        return max(2, size // 2) if gradients else size

    def check_model(self, model: nn.Module, name: str) -> None:
        """Raise ValueError if the tokens do not fit into the vocabulary of the model `name`."""
        words = getattr(getattr(model, "config", None), "vocab_size", None)
        if isinstance(self.data, TokenDataset) and words is not None:
            largest = int(self.data.input_ids.max())
            if largest >= words:
                raise ValueError(
                    f"{name} has {words} tokens, but the dataset holds token {largest}: it was "
                    "tokenised with another model's tokenizer; put the model's own beside it."
                )


def _chosen(data: Data, records: np.ndarray) -> Data:
    """These records of a dataset; the dataset itself, without a copy, if they are all of it."""
    if len(records) == len(data) and (np.diff(records) == 1).all():
        return data
    index = torch.from_numpy(np.asarray(records, np.int64))
    if isinstance(data, TokenDataset):
        return TokenDataset(data.input_ids[index], data.attention_mask[index], data.labels[index])
    return ArrayDataset(data.storage[index], data.labels[index], data.expand)


def _nbytes(inputs: Any) -> int:
    values = inputs.values() if isinstance(inputs, dict) else [inputs]
    return sum(value.nbytes for value in values)
