"""Keeps the norms of Opacus' mode ghost above what rounding hides, where positions cancel.

Opacus sums over pairs of positions too, but has no way to add one example's gradient by itself.  So
the norm of such an example is taken larger, and the example counts for less.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.training.layer_rule import doubt_of, rough_square


def guard_norms(wrapped: Any) -> None:
    """Change how one model that Opacus wraps computes the norms of its linear layers."""
    samplers = dict(wrapped.NORM_SAMPLERS)
    computed = samplers[nn.Linear]

    def guarded(
        layer: nn.Linear, activations: list[Tensor], gradient: Tensor
    ) -> dict[nn.Parameter, Tensor]:
        norms: dict[nn.Parameter, Tensor] = computed(layer, activations, gradient)
        if gradient.ndim > 2:
            length = rough_square(gradient)
            sizes = {
                layer.weight: rough_square(activations[0].to(gradient)) * length,
                layer.bias: math.prod(gradient.shape[1:-1]) * length,
            }
            for parameter, norm in norms.items():
                least = doubt_of(sizes[parameter], of_pairs=True).sqrt()
                norms[parameter] = torch.maximum(norm, least)  # NaN stays NaN
        return norms

    wrapped.NORM_SAMPLERS = {**samplers, nn.Linear: guarded}
