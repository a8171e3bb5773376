"""Turns a researcher's records, arrays or named tensors, into a dataset that models take."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mico_competition.data.arrays import ArrayDataset, TokenDataset
from mico_competition.data.named import NamedDataset
from mico_competition.signals.pool_checks import as_array

Data = ArrayDataset | TokenDataset | NamedDataset

_TOKENS = {"input_ids", "attention_mask"}


def dataset_of(inputs: Any, labels: np.ndarray, dtype: torch.dtype) -> Data:
    """The records with their labels.

    Args:
        inputs: a tensor or array [records, ...], or a mapping of names to such, as a tokenizer
            returns it.
        labels: int64[records].
        dtype: that of the models' weights, to which inputs that are not whole numbers are cast.

    Raises:
        ValueError: if the inputs are something else, or there are not as many as labels.
    """
    classes = torch.from_numpy(labels)
    if isinstance(inputs, Mapping):
        named = {name: _tensor(f"inputs[{name!r}]", value) for name, value in inputs.items()}
        for name, tensor in named.items():
            _check_count(f"inputs[{name!r}]", tensor, labels)
        unused = "token_type_ids" in named and not named["token_type_ids"].any()
        if unused and set(named) > _TOKENS:
            del named["token_type_ids"]  # zeros are what models take by default
        if set(named) == _TOKENS and _is_mask(named["attention_mask"]):
            return TokenDataset(
                named["input_ids"].int(), named["attention_mask"].to(torch.uint8), classes
            )
        return NamedDataset({name: _cast(dtype, t) for name, t in named.items()}, classes)
    storage = _tensor("inputs", inputs)
    _check_count("inputs", storage, labels)
    expand = partial(_cast, dtype) if storage.is_floating_point() else torch.clone
    return ArrayDataset(storage, classes, expand)


def subset(data: Data, columns: np.ndarray) -> Data:
    """Some of the records, int64[k]."""
    index = torch.from_numpy(columns)
    if isinstance(data, ArrayDataset):
        return ArrayDataset(data.storage[index], data.labels[index], data.expand)
    if isinstance(data, TokenDataset):
        return TokenDataset(data.input_ids[index], data.attention_mask[index], data.labels[index])
    return NamedDataset({n: t[index] for n, t in data.tensors.items()}, data.labels[index])


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The type of a module's weights; float32 if it has none."""
    found = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(found, torch.float32)


def data_digest(data: Data) -> str:
    """SHA-256 in hex of the records and labels."""
    if isinstance(data, ArrayDataset):
        tensors = {"": data.storage, "expanded": data.inputs([0])}
    elif isinstance(data, TokenDataset):
        tensors = {"input_ids": data.input_ids, "attention_mask": data.attention_mask}
    else:
        tensors = data.tensors
    total = hashlib.sha256()
    for name, tensor in [*tensors.items(), ("labels", data.labels)]:
        flat = tensor.detach().cpu().contiguous()
        total.update(f"{name} {flat.dtype} {tuple(flat.shape)}".encode())
        total.update(flat.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, Dataset):
        raise ValueError(
            f"Expected {name} to be a tensor or array of records, got the dataset "
            f"{type(values).__name__}: stack its records, as "
            "torch.stack([record for record, label in dataset])."
        )
    array = as_array(name, values)
    if not array.flags.writeable:  # torch warns if an array is read-only
        array = array.copy()
    return torch.from_numpy(np.ascontiguousarray(array))


def _check_count(name: str, tensor: Tensor, labels: np.ndarray) -> None:
    if tensor.ndim == 0 or len(tensor) != len(labels):
        raise ValueError(
            f"Expected {name} and labels of the same records, got shapes {tuple(tensor.shape)} and "
            f"{labels.shape}."
        )


def _is_mask(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and bool(((tensor == 0) | (tensor == 1)).all())


def _cast(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor
