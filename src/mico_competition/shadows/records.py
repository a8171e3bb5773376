"""The dataset of shadow models: its subsets, as `train` receives them, and its arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from mico_competition.support.arrays import as_array

_BATCH = 512  # items of a Dataset that are read at a time
_LABELS = ("labels", "label")
_FORMS = (
    "a torch Dataset of (input, label) items or of dicts with `labels`, or a pair (inputs, labels) "
    "of arrays or tensors, where inputs may be a dict of them"
)


@dataclass(frozen=True)
class Records:
    """A dataset, as the user gave it, with its number of records.

    Attributes:
        dataset: a torch Dataset, or a pair (inputs, labels).
        length: the number of records.
    """

    dataset: Any
    length: int

    @classmethod
    def of(cls, dataset: Any) -> Records:
        """Check the form of a dataset; ValueError if it has none of those above."""
        fix = _fix_of(dataset)
        if fix:
            raise ValueError(f"Expected dataset as {_FORMS}; got {type(dataset).__name__}{fix}.")
        if isinstance(dataset, (tuple, list)) and len(dataset) == 2:
            inputs, labels = dataset
            _check_pair(inputs, labels)
            return cls((inputs, labels), len(labels))
        try:
            return cls(dataset, len(dataset))
        except TypeError:
            kind = type(dataset).__name__
            raise ValueError(
                f"Expected dataset as {_FORMS}; got {kind}, without a length."
            ) from None

    @property
    def is_pair(self) -> bool:
        """Whether the dataset is a pair (inputs, labels) of arrays."""
        return isinstance(self.dataset, tuple)

    def subset(self, indices: np.ndarray) -> Any:
        """The records at `indices`: a torch Subset, or a pair of arrays, as the dataset is."""
        if not self.is_pair:
            return Subset(self.dataset, indices.tolist())
        inputs, labels = self.dataset
        return taken(inputs, indices), taken(labels, indices)

    @cached_property
    def arrays(self) -> tuple[Any, np.ndarray]:
        """All records: inputs as models take them, and labels int64[records].

        Raises:
            ValueError: if the items of a Dataset have another form.
        """
        if self.is_pair:
            inputs, labels = self.dataset
            return inputs, _whole(labels)
        parts = [
            _parted(self._batch(range(start, min(start + _BATCH, len(self)))))
            for start in range(0, len(self), _BATCH)
        ]
        labels = torch.cat([torch.as_tensor(labels) for _, labels in parts])
        first = parts[0][0]
        if isinstance(first, Mapping):
            return {name: torch.cat([part[name] for part, _ in parts]) for name in first}, _whole(
                labels
            )
        return torch.cat([part for part, _ in parts]), _whole(labels)

    def _batch(self, indices: range) -> Any:
        """The items at these positions of a Dataset, collated."""
        items = []
        for index in indices:
            try:
                items.append(self.dataset[index])
            except (IndexError, KeyError) as error:
                raise ValueError(
                    f"Expected items 0..{len(self) - 1} of dataset, whose length is {len(self)}, "
                    f"but item {index} fails: {type(error).__name__}: {error}."
                ) from error
        try:
            return default_collate(items)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                "The items of dataset do not make batches: give tensors or numbers of one shape "
                f"and type, with transforms for images and tokens for text ({error})."
            ) from error

    def __len__(self) -> int:
        return self.length

    def digest(self) -> str:
        """SHA-256, in hex, of all inputs and labels."""
        inputs, labels = self.arrays
        found = hashlib.sha256()
        named = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
        for name, values in [*sorted(named.items()), ("", labels)]:
            array = np.ascontiguousarray(as_array(values))
            found.update(f"{name} {array.dtype} {array.shape};".encode())
            found.update(array.data.cast("B") if array.size else b"")
        return found.hexdigest()


def _fix_of(dataset: Any) -> str:
    """What to give instead of something that is no dataset; empty if it may be one."""
    if isinstance(dataset, DataLoader):
        return ": give loader.dataset"
    if isinstance(dataset, IterableDataset):
        return ", whose items have no positions: give list(dataset)"
    if isinstance(dataset, Mapping):
        named = "data" in dataset and "target" in dataset
        return f": give (dataset{'.data, dataset.target' if named else '[...], labels'})"
    if isinstance(dataset, (np.ndarray, torch.Tensor)):
        return " alone: give (inputs, labels)"
    if isinstance(dataset, tuple) and len(dataset) != 2:
        return f" of {len(dataset)}: give (inputs, labels)"
    if isinstance(dataset, (str, bytes)) or not hasattr(dataset, "__getitem__"):
        return ": give (inputs, labels)" if dataset is None else ": load it first"
    return "" if hasattr(dataset, "__len__") else ", without a length"


def shape_of(subset: Any) -> str:
    """What `train` was given, for messages."""
    if isinstance(subset, Subset):
        return f"a torch Subset of {len(subset)} items, since dataset is no pair of arrays"
    inputs, labels = subset
    named = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    parts = [
        f"{name} {v.dtype} {tuple(v.shape)}" for name, v in {**named, "labels": labels}.items()
    ]
    return f"a pair (inputs, labels): {', '.join(parts)}".replace("torch.", "")


def _check_pair(inputs: Any, labels: Any) -> None:
    named = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    for name, values in [*named.items(), ("labels", labels)]:
        if not isinstance(values, (np.ndarray, torch.Tensor)):
            fix = ": give .to_numpy()" if hasattr(values, "to_numpy") else ": give np.asarray of it"
            raise ValueError(
                f"Expected {name} of dataset as an array or a tensor, got "
                f"{type(values).__name__}{fix}."
            )
        if not named or values.ndim == 0 or len(values) != len(labels):
            raise ValueError(
                f"Expected inputs and labels of dataset with one row for each record, got {name} "
                f"of shape {tuple(values.shape)} for {len(labels)} labels."
            )
    _whole(labels)


def taken(values: Any, indices: np.ndarray) -> Any:
    """The rows at `indices` of an array or a tensor, or of a dict of them."""
    if isinstance(values, Mapping):
        return {name: part[indices] for name, part in values.items()}
    return values[torch.from_numpy(indices) if isinstance(values, torch.Tensor) else indices]


def _parted(batch: Any) -> tuple[Any, Any]:
    """(inputs, labels) of a batch of items."""
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    if pair and (isinstance(batch[0], Tensor) or _all_tensors(batch[0])):
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        for name in _LABELS:
            if name in batch:
                inputs = {key: v for key, v in batch.items() if key != name}
                if _all_tensors(inputs):
                    return inputs, batch[name]
    raise ValueError(f"Expected dataset as {_FORMS}, got items of another form.")


def _all_tensors(inputs: Any) -> bool:
    """Whether these are tensors by name."""
    return isinstance(inputs, Mapping) and all(isinstance(v, Tensor) for v in inputs.values())


def _whole(labels: Any) -> np.ndarray:
    array = as_array(labels)
    if array.ndim == 1 and array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.ndim == 2 and array.shape[1] == 1:
        fix = "give labels[:, 0]"
    elif array.ndim > 1:
        fix = "if they are one-hot, give labels.argmax(1)"
    elif array.dtype.kind in "fb":
        fix = "convert them, if they are classes"
    else:
        fix = "give np.unique(labels, return_inverse=True)[1]"
    raise ValueError(
        f"Expected labels of dataset as whole numbers, one for each record, got {array.dtype} "
        f"of shape {array.shape}: {fix}."
    )
