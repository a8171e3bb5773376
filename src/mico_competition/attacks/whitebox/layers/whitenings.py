"""Which layers of a model can be decoded, and the whitening of their inputs.

See docs/METHODS.md, section 6.8 (formula 49).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.attacks.whitebox.layers.directions import input_covariance, whitening
from mico_competition.attacks.whitebox.layers.layers import layer_inputs
from mico_competition.models.inputs import to_device

WHITE = 0.3  # ridge of the whitening of inputs
COVARIANCE_RECORDS, COVARIANCE_POSITIONS = 256, 16  # records of each model for the estimate of M
ROUNDING = 1e-6  # inputs that differ by less than this share of them are the same


def whitenings(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Iterable[Any], records: int
) -> tuple[set[str], dict[str, Tensor | None]]:
    """Layers with one position for each record, and L of each layer that can be decoded.

    A layer that the model calls twice, or on other rows than the records, has no entry, and neither
    has one whose inputs are the same for all records, such as the one behind a dead layer. L is
    None for a layer with more inputs than there are records and one position: its inputs are
    linearly independent already.

    Args:
        model: in eval mode.
        layers: of this model, by name.
        batches: inputs of some records (`some_batches`).
        records: N, the number of all.
    """
    seen = [_places(model, layers, inputs) for inputs in batches]
    once: set[str] = set()
    found: dict[str, Tensor | None] = {}
    for name in seen[0]:
        own = [inputs[name] for inputs in seen if name in inputs]
        if len(own) < len(seen) or not varies([places for places, _ in own]):
            continue
        if own[0][1] == 1:
            once.add(name)
        free = name in once and own[0][0].shape[2] > records
        places = [places for places, _ in own if len(places)]
        found[name] = None if free else whitening(input_covariance(places), WHITE)
    return once, found


def some_batches(data: Any, records: int, device: torch.device, batch: int) -> Iterator[Any]:
    """Inputs of some of the first `records` of a dataset, by chance, on the device."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(records, generator=generator)[:COVARIANCE_RECORDS].sort().values
    return (to_device(data.inputs(rows), device) for rows in some.split(batch))


def _places(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Any
) -> dict[str, tuple[Tensor, int]]:
    """By layer, inputs float32[b, t, D] at a few positions; and the number of all positions."""
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    seen = {}
    for name, own in layer_inputs(model, layers, inputs).items():
        places = own if mask is None else first_tokens(own, mask)
        every = max(1, -(-places.shape[1] // COVARIANCE_POSITIONS))
        seen[name] = places[:, ::every], own.shape[1]
    return seen


def first_tokens(inputs: Tensor, mask: Tensor) -> Tensor:
    """float[b', t, D], inputs of each sentence's first t tokens; t is the shortest one's length.

    Padding is no part of a record, on either side, and neither are sentences without tokens.

    Args:
        inputs: float[b, T, D]; returned as it is unless T is the number of places in a sentence.
        mask: [b, T], above 0 for a token and 0 for padding.
    """
    if inputs.shape[1] != mask.shape[1]:
        return inputs
    lengths = (mask > 0).sum(1)
    some = lengths > 0
    if not some.any():
        return inputs[:0]
    shortest = int(lengths[some].min())
    places = (mask[some] == 0).int().argsort(dim=1, stable=True)[:, :shortest]
    return inputs[some][torch.arange(len(places), device=places.device)[:, None], places]


def varies(inputs: list[Tensor]) -> bool:
    """Whether inputs float[b, T, D], in batches, differ between records or positions."""
    rows = torch.cat([own.flatten(0, 1) for own in inputs])
    return bool(((rows - rows[:1]).abs() > ROUNDING * rows[:1].abs()).any())
