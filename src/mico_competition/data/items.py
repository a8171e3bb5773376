"""Reads the records and labels of datasets of other classes, whose items may have many forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LABELS = ("label", "labels", "y", "target", "targets", "class")


def records_of(dataset: Any) -> Iterator[tuple[Tensor, float]]:
    """Each record as a tensor, with its label; ValueError if an item has another form.

    Args:
        dataset: has a length and items (array, label, ...), or dicts with one array and a label.
            An array may be of torch (dense or sparse), numpy or scipy, or a list of numbers; a
            label may be a number or a one-hot vector.
    """
    for i in range(len(dataset)):
        record, label = _parts(dataset[i])
        yield _record(record), _label(label)


def sentences_of(dataset: Any) -> tuple[list[str], Tensor] | None:
    """Sentences and labels of a dataset of dicts with `sentence` and `label`; None for others."""
    first = dataset[0]
    if not (isinstance(first, Mapping) and isinstance(first.get("sentence"), str)):
        return None
    items = [dataset[i] for i in range(len(dataset))]
    labels = labels_tensor([_label(item["label"]) for item in items])
    if labels.is_floating_point():
        raise ValueError("Expected whole numbers as labels of sentences.")
    return [str(item["sentence"]) for item in items], labels


def labels_tensor(labels: list[float]) -> Tensor:
    """The labels as int64[N], or as float64[N] if one is not a whole number."""
    whole = all(float(label).is_integer() for label in labels)
    return torch.tensor(labels, dtype=torch.float64).to(torch.int64 if whole else torch.float64)


def _parts(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        names = [name for name in item if str(name).lower() in _LABELS]
        arrays = [v for name, v in item.items() if name not in names and _is_array(v)]
        if len(names) == len(arrays) == 1:
            return arrays[0], item[names[0]]
        raise ValueError(
            f"a dict of {', '.join(map(str, item))}, not of one array and one of {_LABELS}"
        )
    if isinstance(item, (tuple, list)) and len(item) > 1:
        return item[0], item[1]
    raise ValueError(f"an item of type {type(item).__name__}, not a pair")


def _is_array(value: Any) -> bool:
    if isinstance(value, (list, tuple)) or hasattr(value, "toarray"):
        return True
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0


def _record(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        tensor: Tensor = value.detach()
        return tensor if tensor.layout == torch.strided else tensor.to_dense()
    if hasattr(value, "toarray"):  # a matrix of scipy.sparse
        value = value.toarray()
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise ValueError(f"a record of type {type(value).__name__}, not an array")
    array = np.asarray(value)
    if array.dtype == object or isinstance(value, (list, tuple)):
        array = array.astype(np.float32)
    return torch.from_numpy(array.copy())  # torch warns if an array is read-only


def _label(value: Any) -> float:
    """A label as a number; for a one-hot vector, the index of the one."""
    numbers = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if numbers.size == 1:
        return float(numbers.reshape(()))
    if sorted(numbers.ravel().tolist()) != [*[0] * (numbers.size - 1), 1]:
        raise ValueError("a label that is neither a number nor one-hot")
    return float(numbers.argmax())
