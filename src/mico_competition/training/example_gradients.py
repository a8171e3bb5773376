"""Per-example gradients of one layer of any kind, by torch.func or example by example.

It is the fallback for layers without a formula in `ghost_norms`: the layer runs again on each
example's recorded input, and the recorded gradient of its output is taken back through it.  The
result has b times as many numbers as the layer has weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from mico_competition.training.random_numbers import torch_states

Gradients = dict[str, Tensor]


def example_gradients(
    name: str,
    module: nn.Module,
    trained: Collection[str],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    gradients: Sequence[Tensor | None],
    by_example: Sequence[bool] | None = None,
) -> Gradients:
    """Compute the gradient of each example by each of a layer's parameters.

    Args:
        name: the layer's name, for messages.
        module: the layer; its hooks must be off.
        trained: the names of the parameters.
        arguments, named: those of the call.
        gradients: of each tensor of the output, [b, ...]; None for one without influence.
        by_example: for each leaf of the arguments, whether it has one row an example; by default
            all tensors have.

    Returns:
        float[b, ...] for each parameter.

    Raises:
        ValueError: naming the layer, if it draws random numbers.
    """
    given, spec = tree_flatten((arguments, named))
    leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in given]
    split = list(by_example) if by_example else [isinstance(leaf, Tensor) for leaf in leaves]
    used = [at for at, gradient in enumerate(gradients) if gradient is not None]
    taken = [gradient for gradient in gradients if gradient is not None]
    parameters = {own: module.get_parameter(own).detach() for own in sorted(trained)}

    def outputs(values: Gradients, rows: Sequence[Any]) -> tuple[Tensor, ...]:
        """The layer's outputs for one example."""
        one = [row.unsqueeze(0) if each else row for row, each in zip(rows, split)]
        args, kwargs = tree_unflatten(one, spec)
        made = tree_leaves(functional_call(module, values, args, kwargs))
        return tuple(made[at] for at in used)

    def gradient(rows: Sequence[Any], pulled: Sequence[Tensor]) -> Gradients:
        back: Any = vjp(lambda values: outputs(values, rows), parameters)[1]
        (found,) = back(tuple(each.unsqueeze(0) for each in pulled))
        result: Gradients = found
        return result

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        try:
            dims = [0 if each else None for each in split]
            mapped: Callable[..., Gradients] = vmap(gradient, in_dims=(dims, 0))
            return mapped(leaves, taken)
        except RuntimeError:  # an operation that torch.func does not support, or a random one
            return _one_by_one(name, parameters, outputs, leaves, split, taken)


def without(rows: Tensor, dropped: Tensor) -> Tensor:
    """`rows` with zeros for the examples that `dropped`, bool[batch], marks: 0 * NaN is NaN."""
    return rows.masked_fill(dropped.view(*dropped.shape, *[1] * (rows.ndim - dropped.ndim)), 0)


def _one_by_one(
    name: str,
    parameters: Gradients,
    outputs: Callable[[Gradients, Sequence[Any]], tuple[Tensor, ...]],
    leaves: Sequence[Any],
    split: Sequence[bool],
    taken: Sequence[Tensor],
) -> Gradients:
    """The same by plain autograd, one example after the other."""
    found: list[list[Tensor]] = []
    before = torch_states()
    for at in range(len(taken[0])):
        values = {own: value.requires_grad_() for own, value in parameters.items()}
        made = outputs(values, [leaf[at] if each else leaf for leaf, each in zip(leaves, split)])
        pulled = [gradient[at].unsqueeze(0) for gradient in taken]
        parts = torch.autograd.grad(made, list(values.values()), pulled, allow_unused=True)
        rows = [torch.zeros_like(v) if g is None else g for v, g in zip(values.values(), parts)]
        found.append(rows)
    if not all(map(torch.equal, before, torch_states())):
        raise ValueError(
            f"Layer {name} draws random numbers, which its per-example gradients would draw again: "
            "set its dropout to 0, or use dropout in a layer of its own."
        )
    return {own: torch.stack(rows) for own, rows in zip(parameters, zip(*found))}
