"""A dataset from the loader that a competition's file names, checked and converted for models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mico_competition.competition.code import described, resolve
from mico_competition.data.arrays import ArrayDataset, TextDataset
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage

_FORMS = "an ArrayDataset, a TextDataset, or a pair (records, labels) of arrays"


def load_by(dotted: str, dataset_dir: PathLike | None, download: bool) -> Any:
    """The dataset that the function `dotted` ("my_competition:load_faces") returns.

    It is called with the folder of the data, if it takes an argument, and with `download`, if it
    has an argument of that name. A pair (records [N, ...], labels [N]) becomes an `ArrayDataset`,
    whose records reach models as float32.

    Raises:
        ValueError: if there is no such function, it fails, or it returns something else.
        OSError: as the function.
    """
    loader = resolve(dotted)
    with stage(f"Reading the dataset by {dotted}"):
        try:
            found = _called(loader, dataset_dir, download)
        except (OSError, ValueError, ImportError):
            raise
        except Exception as error:
            raise ValueError(f"The loader {dotted} failed: {described(error)}.") from error
        return _dataset(found, dotted)


def _called(loader: Callable[..., Any], dataset_dir: PathLike | None, download: bool) -> Any:
    kinds = inspect.Parameter
    takes = inspect.signature(loader).parameters
    named = {"download": download} if "download" in takes else {}
    places = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD, kinds.VAR_POSITIONAL)
    first = next((p for p in takes.values() if p.name != "download" and p.kind in places), None)
    return loader(dataset_dir, **named) if first is not None else loader(**named)


def _dataset(found: Any, dotted: str) -> Any:
    if isinstance(found, (ArrayDataset, TextDataset)):
        return found
    if not (isinstance(found, (tuple, list)) and len(found) == 2):
        raise ValueError(f"Expected {_FORMS} from {dotted}, got {type(found).__name__}.")
    records, labels = (_tensor(part, dotted) for part in found)
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"Expected labels of {dotted} as whole numbers, one a record, got {labels.dtype} of "
            f"shape {tuple(labels.shape)}."
        )
    if records.is_floating_point():
        if not bool(records.isfinite().all()):
            raise ValueError(f"Expected finite records of {dotted}, got NaN or infinite values.")
        records = records.to(torch.float32)
    return ArrayDataset(records.contiguous(), labels, as_float32)


def _tensor(values: Any, dotted: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Expected {_FORMS} from {dotted}, got an array of {array.dtype}.")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # types without arithmetic in torch
        array = array.astype(np.int64)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def as_float32(records: Tensor) -> Tensor:
    """Records as float32, in new memory."""
    return records.to(torch.float32, copy=True)
