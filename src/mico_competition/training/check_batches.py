"""Batches for the checks before the first step: rows picked, repeated and exchanged.

A row is one example.  The rows of a stack of S models lie end to end, model by model; one model
is a stack of one.  Knows tensors only: no model, no loss, no mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGE = 8.0  # what the inputs of a large example are multiplied by


def mapped(inputs: Any, change: Callable[[Tensor], Tensor], rows: int) -> Any:
    """`inputs` with `change` applied to each tensor that has `rows` rows; dicts may be nested."""
    if isinstance(inputs, Mapping):
        return {name: mapped(value, change, rows) for name, value in inputs.items()}
    if isinstance(inputs, Tensor) and inputs.ndim and len(inputs) == rows:
        return change(inputs)
    return inputs


@dataclass(frozen=True)
class Batch:
    """Examples in rows.

    Attributes:
        inputs: what the model takes, a tensor or (nested) dict of tensors with a row an example.
        labels: int64[rows].
        models: S, of which each has rows / S examples.
    """

    inputs: Any
    labels: Tensor
    models: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """Examples of each model."""
        return len(self) // self.models

    def changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """With `change` applied to every tensor of the inputs, and to the labels."""
        inputs = mapped(self.inputs, change, len(self))
        return Batch(inputs, change(self.labels), self.models)

    def fresh(self) -> Batch:
        """A copy, which a model may change in place."""
        return self.changed(torch.clone)

    def columns(self, at: Tensor) -> Batch:
        """The examples `at` of every model, in this order; repeated where `at` repeats them."""
        starts = torch.arange(self.models, device=at.device) * self.width
        rows = (starts.unsqueeze(1) + at).flatten()
        return self.changed(lambda values: values[rows])

    def of_width(self, width: int) -> Batch:
        """The first `width` examples of every model, from the start again where they end."""
        return self.columns(torch.arange(width, device=self.labels.device) % self.width)

    def exchanged(self, chosen: Tensor, other: Batch) -> Batch:
        """With the rows that are `chosen` (bool[rows]) taken from `other`."""
        inputs = _exchanged(self.inputs, other.inputs, chosen)
        return Batch(inputs, torch.where(chosen, other.labels, self.labels), self.models)


def _exchanged(mine: Any, other: Any, chosen: Tensor) -> Any:
    if isinstance(mine, Mapping):
        return {name: _exchanged(mine[name], other[name], chosen) for name in mine}
    if isinstance(mine, Tensor) and mine.ndim and len(mine) == len(chosen):
        return torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), other, mine)
    return mine


def joined(batches: Sequence[Batch]) -> Batch:
    """The examples of all batches, model by model."""
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
    """Examples whose inputs are all zero; of whole numbers (tokens, masks), all like the first."""

    def change(values: Tensor) -> Tensor:
        if values.is_floating_point():
            return torch.zeros_like(values)
        return values[:, :1].expand_as(values) if values.ndim == 2 else values

    return Batch(mapped(batch.inputs, change, len(batch)), batch.labels, batch.models)


def enlarged(batch: Batch) -> Batch:
    """Examples whose real-valued inputs are LARGE times as large.

    Real values that are all whole may be indices, and an index out of range ends a CUDA process;
    there they stay as they are.
    """

    def change(values: Tensor) -> Tensor:
        if not values.is_floating_point():
            return values
        if values.is_cuda and bool((values == values.round()).all()):
            return values
        return values * LARGE

    return Batch(mapped(batch.inputs, change, len(batch)), batch.labels, batch.models)


def companions(batch: Batch) -> Batch:
    """Other examples for every row: its neighbour's, by turns as it is, blank and large."""
    neighbours = batch.changed(lambda values: values.roll(1, 0))
    turn = torch.arange(len(batch), device=batch.labels.device) % 3
    mixed = neighbours.exchanged(turn == 1, blank(neighbours))
    return mixed.exchanged(turn == 2, enlarged(neighbours))


def halves(rows: int, device: torch.device, seed: int) -> Iterator[Tensor]:
    """bool[rows] masks and their complements.

    Up to 16 rows, every ordered pair of rows is parted by one of them, the first in and the
    second out; of more rows a random half, and the other one.
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
    """Up to `count` examples of each model: the first, the smallest and the largest, and more."""
    sizes = list(_sizes(batch.inputs, len(batch))) or [torch.zeros(len(batch))]
    size = torch.stack(sizes).view(len(sizes), batch.models, -1).sum((0, 1))
    order = [0, int(size.argmin()), int(size.argmax()), *range(min(count, batch.width))]
    chosen = list(dict.fromkeys(order))[:count]
    return batch.columns(torch.tensor(chosen, device=batch.labels.device))


def _sizes(inputs: Any, rows: int) -> Iterator[Tensor]:
    """float[rows], sums of absolute values, of each tensor of the inputs."""
    if isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _sizes(value, rows)
    elif isinstance(inputs, Tensor) and inputs.ndim and len(inputs) == rows:
        yield inputs.reshape(rows, -1).abs().float().nan_to_num().sum(1)


def widths(largest: int) -> list[int]:
    """Numbers of examples to try: a few small ones, and by steps up to the largest possible."""
    tried = {largest, 2, 3, *(8 * 8**power for power in range(8))}
    return sorted((width for width in tried if 2 <= width <= largest), reverse=True)
