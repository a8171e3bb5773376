"""The weights from which training started, where they are known: those of the base model.

Weights of a model on the Hugging Face Hub are public before it is fine-tuned, so that the whole
change W - W_base of each layer is known, and which rows of the embedding did not move at all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.attacks.whitebox.layers.layers import token_embedding
from mico_competition.attacks.whitebox.layers.tokens import Held
from mico_competition.signals.source import Source

EXPLAINED = 0.5  # a parameter started from the base if that explains this share of its squares


def base_of(source: Source) -> nn.Module | None:
    """The model from which the source's models were fine-tuned, if it is known."""
    base: nn.Module | None = getattr(source, "base", None)
    return base


@torch.no_grad()
def near_base(model: nn.Module, base: nn.Module, name: str) -> set[str]:
    """The names of the parameters that the base explains; a new head's are not among them.

    Args:
        model: a trained one.
        base: with the same names of layers.
        name: what errors call the model.

    Raises:
        ValueError: if the base explains no weight matrix. Vectors do not count: those of a
            normalisation are near 1 in all models.
    """
    before = dict(base.named_parameters())
    near, matrices = set(), 0
    for part, own in model.named_parameters():
        start = before.get(part)
        if start is not None and start.shape == own.shape:
            weights = own.float()  # squares exceed what float16 holds
            left = ((weights - start.to(weights)) ** 2).sum()
            if float(left) < EXPLAINED * float((weights**2).sum()):
                near.add(part)
                matrices += own.ndim > 1
    if not matrices:
        raise ValueError(
            f"Expected models that were trained from the base model, but no weights of {name} are "
            "near its: leave out models that did not start from it, or give another base model or "
            "none."
        )
    return near


@torch.no_grad()
def known_start(
    model: nn.Module, base: nn.Module, near: set[str], factor: float
) -> dict[str, Tensor]:
    """The parameters at which training of a fleet started, by name, on the device of `model`.

    Args:
        model: one of the fleet.
        base: with the same names of layers.
        near: names of the parameters that the base explains (`near_base`).
        factor: by how much weight decay shrank all of them (`decay`).
    """
    return {
        name: factor * start.detach().to(model.get_parameter(name).device).float()
        for name, start in base.named_parameters()
        if name in near
    }


@torch.no_grad()
def decay(model: nn.Module, base: nn.Module, held: Held | None) -> float:
    """By how much weight decay shrank the weights: 1 if no row of the embedding shows it.

    Decay multiplies all weights by one factor, and does nothing else to the rows of tokens that no
    record holds.

    Args:
        model: a trained one.
        base: with the same names of layers.
        held: which record holds which token; None unless text.
    """
    own, start = token_embedding(model), token_embedding(base)
    if held is None or own is None or start is None or own.weight.shape != start.weight.shape:
        return 1.0
    unused = torch.ones(len(own.weight), dtype=torch.bool, device=own.weight.device)
    unused[held.tokens.to(own.weight.device)] = False
    after, before = own.weight[unused].double(), start.weight.to(own.weight)[unused].double()
    squares = float((before**2).sum())
    return float((after * before).sum()) / squares if squares > 0 else 1.0


@torch.no_grad()
def halfway(model: Any, start: Mapping[str, Tensor]) -> Any:
    """A copy of the model with its weights half way from their start: the mean of the path.

    What moved a weight were gradients along the whole path, and not those at its end.
    """
    between = copy.deepcopy(model)
    for name, own in between.named_parameters():
        if name in start:
            own.add_(start[name].to(own)).div_(2)
    return between
