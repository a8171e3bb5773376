"""Gradients of the loss of single records, and their inner products between models.

A layer that multiplies one vector of a record by its weights has a gradient of rank one, the
gradient of its output times its input (Goodfellow, "Efficient per-example gradient computations",
2015, arXiv 1510.01799). Inner products of such gradients do not need the gradients themselves:
`Outer`.

The mathematics is in docs/METHODS.md, section 5.6 (formula 37).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from mico_competition.models.architectures import logits
from mico_competition.models.recorder import recorded


@dataclass(frozen=True)
class Outer:
    """Gradients of a linear layer's weights: `rise` float[b, out] times `given` float[b, in]."""

    rise: Tensor
    given: Tensor

    def dot(self, other: Outer) -> Tensor:
        """float[b], inner products with the gradients of another model on the same records."""
        return (self.rise * other.rise).sum(dim=1) * (self.given * other.given).sum(dim=1)


def weights_of(model: nn.Module, layers: int) -> dict[str, Tensor]:
    """The last `layers` weight tensors (of two dimensions or more; biases do not count)."""
    found = {n: p.detach() for n, p in model.named_parameters() if p.ndim >= 2}
    return dict(list(found.items())[-layers:])


def gradients(model: nn.Module, inputs: Any, labels: Tensor, layers: int) -> list[Tensor]:
    """One float[b, weights] for each layer: each record's gradient of its own loss."""
    weights = weights_of(model, layers)
    if isinstance(inputs, Mapping):
        return _text_gradients(model, inputs, labels, list(weights))

    def loss(weights: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        output = functional_call(model, weights, (x[None],))
        return nn.functional.cross_entropy(output, label[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, inputs, labels)
    return [g.flatten(1) for g in found.values()]


def _text_gradients(
    model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor, names: list[str]
) -> list[Tensor]:
    """One record at a time, since vmap does not support data-dependent masks."""
    parameters = dict(model.named_parameters())
    wanted = [parameters[name] for name in names]
    rows = []
    for i in range(len(labels)):
        one = {name: value[i : i + 1] for name, value in inputs.items()}
        loss = nn.functional.cross_entropy(logits(model, one), labels[i : i + 1])
        rows.append([g.flatten() for g in torch.autograd.grad(loss, wanted)])
    return [torch.stack(layer) for layer in zip(*rows)]


def outer_gradients(
    model: nn.Module, inputs: Any, labels: Tensor, layers: int
) -> list[Outer] | None:
    """The same in factors; None unless all these weights are of linear layers on vectors."""
    linear = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Linear)}
    parameters = dict(model.named_parameters())
    wanted = [linear.get(id(parameters[name])) for name in weights_of(model, layers)]
    if isinstance(inputs, Mapping) or any(layer is None for layer in wanted):
        return None
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {
        layer: [] for layer in wanted if layer is not None
    }

    def keep(layer: nn.Module, layer_input: Tensor, output: Tensor) -> None:
        calls[layer].append((layer_input.detach(), output))

    with recorded(model, calls, keep):
        losses = nn.functional.cross_entropy(logits(model, inputs), labels, reduction="sum")
    found = list(calls.values())
    if any(len(call) != 1 or call[0][0].ndim != 2 for call in found):
        return None  # used twice, or on more than one vector of a record
    rises = torch.autograd.grad(losses, [call[0][1] for call in found])
    return [Outer(rise, call[0][0]) for rise, call in zip(rises, found)]


def alignments(mine: Sequence[Tensor | Outer], theirs: Sequence[Tensor | Outer]) -> Tensor:
    """float[b, layers], inner products of two models' gradients on the same records.

    Args:
        mine: of `gradients` or of `outer_gradients`.
        theirs: of the same function, on the same records.
    """
    return torch.stack([_dot(a, b) for a, b in zip(mine, theirs)], dim=1)


def _dot(a: Tensor | Outer, b: Tensor | Outer) -> Tensor:
    if isinstance(a, Outer) and isinstance(b, Outer):
        return a.dot(b)
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return (a * b).sum(dim=1)
