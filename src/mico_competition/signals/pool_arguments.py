"""What is passed to a pool: lists of models, inputs with labels, a choice of rows, and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from mico_competition.signals.pool_estimators import count, is_estimator
from mico_competition.signals.pool_run import as_give
from mico_competition.signals.pool_source import TWINS_FROM, Joined


def choice(name: str, chosen: Any, total: int) -> np.ndarray:
    """int64[k], indices below `total` that a mask or a list names; all for None.

    Raises:
        ValueError: for an index that is out of range or occurs twice, and for none at all.
    """
    if chosen is None:
        return np.arange(total)
    chosen = range(total)[chosen] if isinstance(chosen, slice) else chosen
    array = np.atleast_1d(np.asarray(chosen))
    if array.dtype == bool:
        if array.shape != (total,):
            raise ValueError(f"Expected {name} as a mask of shape ({total},), got {array.shape}.")
        array = np.flatnonzero(array)
    whole = array.ndim == 1 and array.size and array.dtype.kind in "iu"
    if not whole or array.min() < 0 or array.max() >= total or len(np.unique(array)) < len(array):
        raise ValueError(
            f"Expected {name} to be different indices in 0..{total - 1}, or a mask of shape "
            f"({total},), got {chosen!r}."
        )
    return array.astype(np.int64)


def as_gives(models: Any) -> list[Callable[[], Any]]:
    """A function for each model; ValueError for what is no list of models."""
    one = isinstance(models, nn.Module) and not isinstance(models, nn.ModuleList)
    if one or is_estimator(models):
        raise ValueError(
            f"Expected models to be a list, got one {type(models).__name__}: pass [model]."
        )
    given = list(models)
    if not given:
        raise ValueError("Expected one model or more, got an empty list.")
    for row, model in enumerate(given):
        if not callable(model) and not is_estimator(model):
            raise ValueError(
                "Expected models to be torch modules, classifiers with predict_proba, or functions "
                f"that return such, got {type(model).__name__} as model {row}."
            )
    return [as_give(model) for model in given]


def check_counts(inputs: Any, labels: Any) -> None:
    """ValueError if inputs and labels are not of the same number of records."""
    for name, values in inputs.items() if isinstance(inputs, Mapping) else [("", inputs)]:
        what = f"inputs[{name!r}]" if name else "inputs"
        if hasattr(values, "__len__") and count(values) != count(labels):
            raise ValueError(
                f"Expected {what} and labels of the same records, got {count(values)} and "
                f"{count(labels)}."
            )


def refuse_known(source: Joined, rows: np.ndarray) -> None:
    """ValueError if a target is one of the pool's models, whose membership the attack knows."""
    outputs = source.get("logit")
    for row in rows if outputs.shape[1] >= TWINS_FROM else ():
        same = np.flatnonzero((outputs[: rows[0]] == outputs[row]).all(axis=1))
        if len(same):
            raise ValueError(
                f"Expected target to be no model of the pool, but it has the outputs of model "
                f"{same[0]}: pass target={same[0]}, which leaves it out of its shadow models."
            )
