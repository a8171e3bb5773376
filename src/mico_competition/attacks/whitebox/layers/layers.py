"""The layers of any model: their inputs for a record, and the gradients of their outputs.

A layer is y_t = W a_t + b at positions t (pixels of a convolution's output, tokens of a sentence,
one for a classifier's head). With d_t the gradient by y_t, the gradient by W is the sum over
positions of d_t (outer) a_t; a bias is one more column of W, whose input is 1. An embedding is such
a layer, too, with one-hot inputs (`tokens.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mico_competition.models.architectures import logits
from mico_competition.models.recorder import recorded


@dataclass(frozen=True)
class Seen:
    """The inputs and gradients of one layer in one batch.

    Attributes:
        inputs: float32[b, T, D], a with its 1 for the bias; int64[b, T] tokens for an embedding.
        gradients: float32[b, T, H], d.
    """

    inputs: Tensor
    gradients: Tensor


def find_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Linear and plain Conv2d layers by name, in the order of the model; no embedding.

    Convolutions in groups, or with other padding than zeros, are left out, as their gradient has
    another form, and so are layers with shared weights. `layer_inputs` shows which others are
    called twice.
    """
    found: dict[str, nn.Module] = {}
    owner: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and _plain(module)):
            key = id(module.weight)
            if key in owner:
                found.pop(owner[key], None)
            else:
                found[name] = module
            owner[key] = name
    return found


def _plain(module: nn.Conv2d) -> bool:
    return (
        module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def token_embedding(model: nn.Module) -> nn.Embedding | None:
    """The layer that takes a text model's `input_ids`; None for other models."""
    getter: Callable[[], Any] | None = getattr(model, "get_input_embeddings", None)
    layer = getter() if getter is not None else None
    return layer if isinstance(layer, nn.Embedding) else None


def has_positions(model: nn.Module, length: int) -> bool:
    """Whether a text model adds a learned row to each of the `length` places of a sentence.

    Such rows are those of another embedding, as wide as the tokens' and of `length` rows or more.
    """
    tokens = token_embedding(model)
    return tokens is not None and any(
        isinstance(own, nn.Embedding)
        and own.weight is not tokens.weight
        and own.embedding_dim == tokens.embedding_dim
        and own.num_embeddings >= length
        for own in model.modules()
    )


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of all decoded layers, to compare models."""
    found = {name: tuple(weights_of(layer).shape) for name, layer in find_layers(model).items()}
    embedding = token_embedding(model)
    return found if embedding is None else {**found, "tokens": tuple(embedding.weight.shape)}


def weights_of(layer: Any) -> Tensor:
    """float32[H, D], detached: the weights as a matrix, the bias as its last column."""
    weight: Tensor = layer.weight.detach().float().flatten(1)
    if layer.bias is None:
        return weight
    return torch.cat([weight, layer.bias.detach().float()[:, None]], dim=1)


def watch(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    inputs: Any,
    residual: Tensor,
) -> tuple[dict[str, Seen], Tensor]:
    """Inputs and gradients of some layers, one forward and one backward pass of a batch.

    Args:
        model: in eval mode; its parameters' `requires_grad` and `grad` stay as they are.
        layers: of this model, by name, each of them one that `layer_inputs` gives.
        inputs: a batch as `models.logits` takes it, on the model's device.
        residual: float32[b, classes], the direction in the logits to backpropagate.

    Returns: `Seen` of each layer that affects the logits, and the logits float32[b, classes].

    Raises:
        ValueError: if a layer is called twice, or mixes records.
    """
    names = {layer: name for name, layer in layers.items()}
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(layer: nn.Module, layer_input: Tensor, output: Tensor) -> None:
        name = names[layer]
        if name in kept:
            raise ValueError(
                f"Expected layers that are called once in a forward pass, but {name} is called "
                "twice."
            )
        kept[name] = layer_input.detach(), output

    with recorded(model, names, keep), torch.enable_grad():
        outputs = logits(model, inputs)
        gradients = torch.autograd.grad(
            (outputs * residual).sum(), [out for _, out in kept.values()], allow_unused=True
        )
    seen = {
        name: _positions(name, layers[name], own, gradient, len(residual))
        for (name, (own, _)), gradient in zip(kept.items(), gradients, strict=True)
        if gradient is not None
    }
    return seen, outputs.detach().float()


def with_gradient(seen: Seen) -> Seen:
    """The same without positions at which no record of the batch has a gradient.

    In the last block of a transformer that classifies by its first token, other tokens have none
    but in keys and values, and nothing else of them is worth multiplying.
    """
    kept = torch.nonzero(seen.gradients.abs().amax((0, 2)))[:, 0]
    if 0 < len(kept) < seen.gradients.shape[1]:
        return Seen(seen.inputs[:, kept], seen.gradients[:, kept])
    return seen


def layer_inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Any
) -> dict[str, Tensor]:
    """float32[b, T, D] of each layer that can be decoded: a as in `Seen`, by a forward pass only.

    Layers that are called twice in the pass, or with another number of rows than there are records,
    are left out.
    """
    names = {layer: name for name, layer in layers.items()}
    calls: dict[str, list[tuple[Tensor, int]]] = {}

    def keep(layer: nn.Module, layer_input: Tensor, output: Tensor) -> None:
        calls.setdefault(names[layer], []).append((layer_input.detach(), len(output)))

    with recorded(model, names, keep), torch.inference_mode():
        records = len(logits(model, inputs))
        return {
            name: _unfolded(layers[name], own)
            for name, [(own, rows), *others] in calls.items()
            if not others and len(own) == rows == records
        }


def _positions(name: str, layer: Any, inputs: Tensor, gradient: Tensor, batch: int) -> Seen:
    if len(inputs) != batch or len(gradient) != batch:
        raise ValueError(
            f"Expected layers with a row for each of the {batch} records, but {name} has "
            f"{len(inputs)} rows of inputs and {len(gradient)} of outputs."
        )
    gradient = gradient.float()
    if isinstance(layer, nn.Conv2d):
        return Seen(_unfolded(layer, inputs), gradient.flatten(2).transpose(1, 2))
    rows = gradient.reshape(batch, -1, gradient.shape[-1])
    if isinstance(layer, nn.Embedding):
        return Seen(inputs.reshape(batch, -1), rows)
    return Seen(_unfolded(layer, inputs), rows)


def _unfolded(layer: Any, inputs: Tensor) -> Tensor:
    """float32[b, T, D], patches or tokens, with a 1 for the bias."""
    inputs = inputs.float()
    if isinstance(layer, nn.Conv2d):
        kernel = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = functional.unfold(inputs, *kernel).transpose(1, 2)  # type: ignore[arg-type]
    else:
        rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    if layer.bias is None:
        return rows
    return torch.cat([rows, torch.ones_like(rows[..., :1])], dim=2)
