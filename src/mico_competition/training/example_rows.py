"""The rows of a batch, one an example: their number, as tensors, and a part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def rows_of(inputs: Any) -> int:
    """The number of examples of a batch: the length of its tensors, which must agree.

    Nothing but tensors with one row an example (and None) is allowed, since the checks for
    mixing exchange rows and would pass over anything else.
    """
    named = list(_flat(inputs, ""))
    for name, value in named:
        if not isinstance(value, Tensor) or not value.ndim:
            what = "a tensor of one number" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                "Expected inputs to be a tensor with one row an example, or a dict of such "
                f"tensors, got {what}{name and f' for {name}'}: set constants in the model, and "
                "repeat what all examples share for each row."
            )
    lengths = {len(value) for _, value in named}
    if len(lengths) != 1:
        raise ValueError(
            "Expected inputs to be a tensor with one row an example, or a dict of such tensors, "
            f"got {type(inputs).__name__} of {sorted(lengths) or 'no'} rows."
        )
    return lengths.pop()


def _flat(inputs: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The values of inputs, without None, and their names."""
    if isinstance(inputs, Mapping):
        for key, value in inputs.items():
            yield from _flat(value, f"{name}[{key!r}]")
    elif inputs is not None or not name:
        yield name, inputs


def as_batch(inputs: Any, targets: Any) -> tuple[Any, Tensor]:
    """Inputs and targets as tensors; ValueError unless all have the same number of rows."""
    inputs, targets = as_tensors(inputs, "inputs"), as_tensors(targets, "targets")
    rows = rows_of(inputs)
    if not isinstance(targets, Tensor) or not targets.ndim or len(targets) != rows:
        shape = list(getattr(targets, "shape", [])) or type(targets).__name__
        fix = ": pass torch.tensor(targets)" if isinstance(targets, (list, tuple)) else ""
        raise ValueError(f"Expected targets of {rows} rows, as the inputs have, got {shape}{fix}.")
    return inputs, targets


def as_tensors(inputs: Any, name: str) -> Any:
    """Arrays as tensors, in a dict too; ValueError, with the name, for arrays of other things."""
    if isinstance(inputs, Mapping):
        return {key: as_tensors(value, f"{name}[{key!r}]") for key, value in inputs.items()}
    if not hasattr(inputs, "__array__"):
        return inputs
    try:
        return torch.as_tensor(inputs)
    except TypeError:
        fix = "number classes by np.unique(labels, return_inverse=True)[1], and tokenise text"
        kind = getattr(inputs, "dtype", type(inputs).__name__)
        raise ValueError(f"Expected {name} to hold numbers, got {kind}: {fix}.") from None


class OneShape:
    """Refuses batches whose examples have another shape than those of the first step."""

    def __init__(self) -> None:
        self._shape: Any = None

    def check(self, inputs: Any, targets: Tensor, precision: str) -> Any:
        """The shape of a batch, as `as_batch` gives it, for `keep`; None for an empty batch.

        Raises:
            ValueError: if the shape is another than that of earlier steps.
        """
        if not len(targets):
            return None
        shape = {"inputs": _shape_of(inputs), "targets": _shape_of(targets)}
        if self._shape not in (None, shape):
            name = next(name for name in shape if shape[name] != self._shape[name])
            raise ValueError(
                f"Expected {name} of shape {self._shape[name]} an example, as in the first step, "
                f"got {shape[name]}: in {precision} rounding depends on the shape of a batch, so "
                "no record may change it. Give all batches one shape (pad all sentences to one "
                "length), or choose precision='float32'."
            )
        return shape

    def keep(self, shape: Any) -> None:
        """Called after a step, with what `check` returned."""
        self._shape = self._shape or shape


def _shape_of(inputs: Any) -> Any:
    """The shape of one example: a list, or lists by name."""
    if isinstance(inputs, Mapping):
        return {name: _shape_of(value) for name, value in inputs.items()}
    return list(inputs.shape[1:]) if isinstance(inputs, Tensor) else None


def part_of(inputs: Any, at: Tensor, device: torch.device) -> Any:
    """The examples at positions `at`, on the model's device."""
    if isinstance(inputs, Mapping):
        return {name: part_of(value, at, device) for name, value in inputs.items()}
    if isinstance(inputs, Tensor) and inputs.ndim:
        return inputs[at.to(inputs.device)].to(device)
    return inputs
