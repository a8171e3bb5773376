"""The parts of models of the MLP family for decoders: weights, hidden units, update directions.

The family is logits = W2 tanh(W1 g x + b1) + b2, with a fixed gain g on the inputs: an `MLP`, or an
`nn.Sequential` of a linear layer, tanh and a linear layer (g = 1; dropout may stand between).  A
step on a record changes each weight matrix by a matrix of rank one, whose directions are in
docs/METHODS.md, section 6.1 (formula 39).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mico_competition.models.architectures import MLP
from mico_competition.signals.source import Source

# A trace is the sum of steps over all of training. Weights start near 0 and grow, so during
# training hidden units were less saturated than at its end: the square root of tanh's slope
# replaces the slope, and hidden units at half the weights replace those at the end. Chosen by
# measurement on A_inf and A_hi (docs/ATTACKS.md).
SLOPE = 0.5
HALFWAY = 0.5
ROWS = 1024  # records at once, whose hidden units stay in a core's cache
TINY = 1e-30  # keeps a vector of zeros a vector of zeros


@dataclass(frozen=True)
class Layers:
    """One model, float32: `w1` [H, D], `b1` [H], `w2` [C, H], `b2` [C], and its `gain`."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    gain: float

    def hidden(self, x: Tensor) -> Tensor:
        """float32[points, H] in (-1, 1): hidden units.

        Args:
            x: float32[points, D].
        """
        return self.hidden_at(x, (1.0,))[0]

    def hidden_at(self, x: Tensor, parts: Sequence[float]) -> list[Tensor]:
        """float32[points, H] in (-1, 1) for each part: hidden units with these parts of W1 and b1.

        Args:
            x: float32[points, D].
            parts: 1 for the final model, HALFWAY for the middle of training.
        """
        outs = [x.new_empty(len(x), len(self.w1)) for _ in parts]
        for rows, *owns in zip(x.split(ROWS), *(out.split(ROWS) for out in outs)):
            before = torch.addmm(self.b1, rows, self.w1.T, alpha=self.gain)
            for part, own in zip(parts, owns):
                torch.mul(before, part, out=own).tanh_()
        return outs

    def directions(self, hidden: Tensor, residual: Tensor, slope: float = SLOPE) -> Tensor:
        """float32[points, H], unit rows: how steps with this residual moved the hidden units.

        Args:
            hidden: float32[points, H], the result of `hidden`.
            residual: float32[points, C], e_y - p, of any scale.
            slope: power of the slope of tanh; 1 gives the gradient at the final weights.
        """
        out = torch.empty_like(hidden)
        for part, back, own in zip(hidden.split(ROWS), residual.split(ROWS), out.split(ROWS)):
            torch.mm(back, self.w2, out=own)
            own.mul_(part.square().neg_().add_(1).clamp_min_(0).pow_(slope))
            own.copy_(unit_rows(own))
        return out


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays zero."""
    unit: Tensor = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(TINY)
    return unit


def layers_of(model: nn.Module, name: str = "the model") -> Layers:
    """The weights of one model.

    Args:
        model: of the MLP family, on any device.
        name: for error messages.

    Raises:
        ValueError: if it is of another family, or a weight is not finite.
    """
    pair = linear_pair(model)
    if pair is None:
        raise ValueError(
            "This white-box decoder is for tanh networks with one hidden layer, an "
            "nn.Sequential of Linear, Tanh and Linear (or this package's MLP), "
            f"but {name} is a {type(model).__name__}: use the attack `layers`, which decodes any "
            "model, or `whitebox`, which chooses the right one."
        )
    first, last = pair
    w1, b1, w2, b2 = (
        part.detach().float() for part in (first.weight, first.bias, last.weight, last.bias)
    )
    if not all(bool(torch.isfinite(part).all()) for part in (w1, b1, w2, b2)):
        raise ValueError(f"Expected finite weights, but {name} has NaN or infinite ones: drop it.")
    return Layers(w1, b1, w2, b2, float(model.gain) if isinstance(model, MLP) else 1.0)


def linear_pair(model: nn.Module) -> tuple[nn.Linear, nn.Linear] | None:
    """The two linear layers of a model of the MLP family; None for any other model."""
    inner = model.mlp if isinstance(model, MLP) else model
    if not isinstance(inner, nn.Sequential):
        return None
    parts = [part for part in inner if not isinstance(part, (nn.Dropout, nn.Identity))]
    if [type(part) for part in parts] != [nn.Linear, nn.Tanh, nn.Linear]:
        return None
    first, _, last = parts
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    return None if first.bias is None or last.bias is None else (first, last)


def read_layers(source: Source, rows: Sequence[int] | np.ndarray) -> dict[int, Layers]:
    """Weights of the models in these rows of the fleet.

    Raises:
        ValueError: as `layers_of`; if models are not all of one shape and gain.
    """
    layers: dict[int, Layers] = {}
    for row in map(int, rows):
        name = source.fleet.name(row)
        layers[row] = own = layers_of(source.load(row), name)
        first = next(iter(layers.values()))
        if (own.w1.shape, own.w2.shape, own.gain) != (first.w1.shape, first.w2.shape, first.gain):
            raise ValueError(
                f"Expected models of one shape, but {name} has layers {_shape(own)} and the first "
                f"model {_shape(first)}: shadow models must have the targets' architecture."
            )
    return layers


def inputs_of(data: Any, layers: Layers) -> Tensor:
    """float32[N, D], all records of the dataset as the models take them, on their device.

    Raises:
        ValueError: if the records are not what the models take.
    """
    inputs = data.inputs(torch.arange(len(data)))
    width = layers.w1.shape[1]
    if not isinstance(inputs, Tensor) or inputs.shape != (len(data), width):
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(
            f"Expected records of {width} numbers, as the models' first layer takes, got {shape}: "
            "is it the dataset of this scenario?"
        )
    return inputs.to(layers.w1.device, torch.float32)


def _shape(layers: Layers) -> str:
    sizes = (layers.w1.shape[1], layers.w1.shape[0], layers.w2.shape[0])
    return "-".join(map(str, sizes)) + (f" (gain {layers.gain:g})" if layers.gain != 1 else "")
