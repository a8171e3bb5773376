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
def known_start(model: nn.Module, base: nn.Module, held: Held | None) -> dict[str, Tensor]:
    """The parameters at which training of `model` started, by name.

    Parameters that the base does not explain, such as a new head's, are left out. Weight decay
    multiplies all by one factor, which rows of the embedding show whose tokens no record holds.

    Args:
        model: a trained one; the others of its fleet must have started from the same base.
        base: with the same names of layers.
        held: which record holds which token; None unless text.

    Raises:
        ValueError: if the base explains no parameter of the model.
    """
    before = dict(base.named_parameters())
    found = {}
    for name, own in model.named_parameters():
        start = before.get(name)
        if start is not None and start.shape == own.shape:
            left = ((own - start.to(own)) ** 2).sum()
            if float(left) < EXPLAINED * float((own**2).sum()):
                found[name] = start.detach().to(own).float()
    if not found:
        raise ValueError(
            "Expected models that were trained from the base model, but none of their weights is "
            "near its: give the model that they were fine-tuned from, or none."
        )
    factor = _decay(model, base, held)
    return {name: factor * start for name, start in found.items()}


def _decay(model: nn.Module, base: nn.Module, held: Held | None) -> float:
    """By how much weight decay shrank the weights: 1 if no row of the embedding shows it."""
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
