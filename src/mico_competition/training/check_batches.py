"""Builds the batches on which a model is checked before its first private step.

The checks compare batches whose rows (examples) are selected, repeated or exchanged.  The rows of a
stack of S models follow each other, model by model; a single model is a stack of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGE = 8.0  # the factor by which `enlarged` multiplies inputs


def mapped(inputs: Any, change: Callable[[Tensor], Tensor], rows: int) -> Any:
    """`inputs` with `change` applied to each tensor that has `rows` rows; dicts may be nested."""
    if isinstance(inputs, Mapping):
        return {name: mapped(value, change, rows) for name, value in inputs.items()}
    if isinstance(inputs, Tensor) and inputs.ndim and len(inputs) == rows:
        return change(inputs)
    return inputs


@dataclass(frozen=True)
class Batch:
    """A batch of examples, one in each row.

    Attributes:
        inputs: the model's inputs, a tensor or (nested) dict of tensors with one row an example.
        labels: int64[rows], or what the loss takes as targets, a tensor with one row an example.
        models: S; each model has rows / S examples.
    """

    inputs: Any
    labels: Tensor
    models: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """The number of examples of each model."""
        return len(self) // self.models

    def changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """This batch with `change` applied to every tensor of the inputs, and to the labels."""
        inputs = mapped(self.inputs, change, len(self))
        return Batch(inputs, change(self.labels), self.models)

    def fresh(self) -> Batch:
        """A copy, which a model may change in place."""
        return self.changed(torch.clone)

    def columns(self, at: Tensor) -> Batch:
        """The examples at the indices `at` (which may repeat) of every model."""
        starts = torch.arange(self.models, device=at.device) * self.width
        rows = (starts.unsqueeze(1) + at).flatten()
        return self.changed(lambda values: values[rows])

    def of_width(self, width: int) -> Batch:
        """The first `width` examples of every model, repeated from the start if there are fewer."""
        return self.columns(torch.arange(width, device=self.labels.device) % self.width)

    def exchanged(self, chosen: Tensor, other: Batch) -> Batch:
        """This batch with the rows where `chosen` (bool[rows]) is True taken from `other`."""
        inputs = _exchanged(self.inputs, other.inputs, chosen)
        return Batch(inputs, _exchanged(self.labels, other.labels, chosen), self.models)


def _exchanged(mine: Any, other: Any, chosen: Tensor) -> Any:
    if isinstance(mine, Mapping):
        return {name: _exchanged(mine[name], other[name], chosen) for name in mine}
    if isinstance(mine, Tensor) and mine.ndim and len(mine) == len(chosen):
        return torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), other, mine)
    return mine


def joined(batches: Sequence[Batch]) -> Batch:
    """Concatenate the examples of all batches, model by model."""
    first = batches[0]
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + len(batch))
    together = Batch(
        _laid_end_to_end([batch.inputs for batch in batches], [len(batch) for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
    )
    rows = [
        torch.arange(start + model * batch.width, start + (model + 1) * batch.width)
        for model in range(first.models)
        for start, batch in zip(starts, batches)
    ]
    order = torch.cat(rows).to(first.labels.device)
    sorted_batch = together.changed(lambda values: values[order])
    return Batch(sorted_batch.inputs, sorted_batch.labels, first.models)


def _laid_end_to_end(parts: Sequence[Any], rows: Sequence[int]) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: _laid_end_to_end([part[name] for part in parts], rows) for name in first}
    if isinstance(first, Tensor) and first.ndim and len(first) == rows[0]:
        return torch.cat(list(parts))
    return first


def blank(batch: Batch) -> Batch:
    """Replace real inputs by zeros, and tokens and masks by the first of each row."""

    def change(values: Tensor) -> Tensor:
        if values.is_floating_point():
            return torch.zeros_like(values)
        return values[:, :1].expand_as(values) if values.ndim == 2 else values

    return Batch(mapped(batch.inputs, change, len(batch)), batch.labels, batch.models)


def enlarged(batch: Batch) -> Batch:
    """Multiply real-valued inputs by LARGE.

    On a GPU, values that are all whole numbers stay unchanged: they may be indices, and an index
    out of range ends a CUDA process.
    """

    def change(values: Tensor) -> Tensor:
        if not values.is_floating_point():
            return values
        if values.is_cuda and bool((values == values.round()).all()):
            return values
        return values * LARGE

    return Batch(mapped(batch.inputs, change, len(batch)), batch.labels, batch.models)


def companions(batch: Batch) -> Batch:
    """Replace every row by its neighbour: in turn unchanged, blank and enlarged."""
    neighbours = batch.changed(lambda values: values.roll(1, 0))
    turn = torch.arange(len(batch), device=batch.labels.device) % 3
    mixed = neighbours.exchanged(turn == 1, blank(neighbours))
    return mixed.exchanged(turn == 2, enlarged(neighbours))


def halves(rows: int, device: torch.device, seed: int) -> Iterator[Tensor]:
    """Masks bool[rows], each followed by its complement.

    For up to 16 rows, there is a mask for every ordered pair of rows that holds the first but not
    the second; for more rows, the masks are a random half and its complement.
    """
    index = torch.arange(rows, device=device)
    if rows <= 16:
        chosen = [index // 2**bit % 2 == 1 for bit in range(max(1, (rows - 1).bit_length()))]
    else:
        generator = torch.Generator().manual_seed(seed)
        chosen = [(torch.rand(rows, generator=generator) < 0.5).to(device)]
    for half in chosen:
        yield half
        yield ~half


def varied(batch: Batch, count: int) -> Batch:
    """Up to `count` examples of each model, among them the first, smallest and largest."""
    sizes = list(_sizes(batch.inputs, len(batch))) or [torch.zeros(len(batch))]
    size = torch.stack(sizes).view(len(sizes), batch.models, -1).sum((0, 1))
    order = [0, int(size.argmin()), int(size.argmax()), *range(min(count, batch.width))]
    chosen = list(dict.fromkeys(order))[:count]
    return batch.columns(torch.tensor(chosen, device=batch.labels.device))


def _sizes(inputs: Any, rows: int) -> Iterator[Tensor]:
    """For each tensor of the inputs, the sums of absolute values, float[rows]."""
    if isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _sizes(value, rows)
    elif isinstance(inputs, Tensor) and inputs.ndim and len(inputs) == rows:
        yield inputs.reshape(rows, -1).abs().float().nan_to_num().sum(1)


def widths(largest: int) -> list[int]:
    """Batch lengths to try: a few small ones, then multiples of 8 up to the largest possible."""
    tried = {largest, 2, 3, *(8 * 8**power for power in range(8))}
    return sorted((width for width in tried if 2 <= width <= largest), reverse=True)
