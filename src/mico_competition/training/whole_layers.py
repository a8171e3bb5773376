"""The rule of layers, or blocks of layers, that have no formula: per-example gradients in full."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mico_competition.training.example_gradients import example_gradients, without


class WholeLayer:
    """Computes the per-example gradients of a layer and everything in it by `example_gradients`.

    Args:
        name: the layer's name.
        module: the layer; its trained parameters, and those of the layers in it, are clipped.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name or "model", module
        self.trained = [own for own, p in module.named_parameters() if p.requires_grad]
        self._by_example: list[bool] | None = None
        self.forget()

    @property
    def numbers(self) -> int:
        """The length of one example's gradient."""
        return sum(self.module.get_parameter(own).numel() for own in self.trained)

    @property
    def cost(self) -> str:
        """What the lack of a formula costs."""
        return f"computes per-example gradients, {self.numbers:,} numbers an example"

    def forget(self) -> None:
        """Drop what was recorded of a batch."""
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any], list[int]]] = []
        self._gradients: list[dict[int, Tensor]] = []
        self._rows: dict[str, Tensor] = {}
        self._autocast: AbstractContextManager[Any] | None = None

    def see(self, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        """Record a call, and hook the gradients of its outputs."""
        self._autocast = _autocast_now((arguments, named))  # the rows are computed as the outputs
        versions = [leaf._version for leaf in _tensors((arguments, named))]
        self._calls.append((arguments, named, versions))
        gradients: dict[int, Tensor] = {}
        self._gradients.append(gradients)
        for at, leaf in enumerate(tree_leaves(output)):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(lambda g, at=at: gradients.__setitem__(at, g.detach()))

    def squared_norms(self, batch: torch.Size) -> Tensor:
        """The squared norms of the per-example gradients, float[batch]."""
        if not any(self._gradients):
            raise ValueError(
                f"Layer {self.name} takes no part in the loss, so its gradient is not known: "
                "remove it from the model, or freeze it by requires_grad_(False)."
            )
        for (arguments, named, versions), gradients in zip(self._calls, self._gradients):
            if not gradients:
                continue
            if [leaf._version for leaf in _tensors((arguments, named))] != versions:
                raise ValueError(
                    f"Layer {self.name} had its input changed in place after it was called: leave "
                    "inplace=True and the like out of the model."
                )
            self._add(arguments, named, gradients, batch[-1])
        return torch.stack([_squares(rows) for rows in self._rows.values()]).sum(0)

    def _add(
        self,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        gradients: dict[int, Tensor],
        count: int,
    ) -> None:
        """Add the per-example gradients of one call."""
        for gradient in gradients.values():
            if not gradient.ndim or len(gradient) != count:
                raise ValueError(
                    f"Layer {self.name} ({type(self.module).__name__}) gives "
                    f"{len(gradient) if gradient.ndim else 'no'} rows in a batch of {count} "
                    "examples: its first dimension must be the examples (batch_first=True)."
                )
        with self._autocast or nullcontext():
            found = example_gradients(
                self.name,
                self.module,
                self.trained,
                arguments,
                named,
                [gradients.get(at) for at in range(max(gradients) + 1)],
                self._rows_by_example(tree_leaves((arguments, named)), count),
            )
        for own, rows in found.items():
            self._rows[own] = self._rows[own] + rows if own in self._rows else rows

    def _rows_by_example(self, leaves: list[Any], count: int) -> list[bool]:
        """Which arguments have one row an example: those that had in batches of every length."""
        now = [isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == count for leaf in leaves]
        if self._by_example is not None and len(self._by_example) == len(now):
            now = [each and before for each, before in zip(now, self._by_example)]
        self._by_example = now
        return now

    def drop(self, dropped: Tensor) -> None:
        """Make the gradients of the examples that `dropped`, bool[batch], marks zero."""
        self._rows = {own: without(rows, dropped) for own, rows in self._rows.items()}

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into the `grad` of the parameters."""
        for own, rows in self._rows.items():
            self.module.get_parameter(own).grad = torch.tensordot(weights, rows, dims=1)


def _squares(rows: Tensor) -> Tensor:
    """The squared norm of each row of [b, ...], also of rows of one number [b]."""
    return rows.reshape(len(rows), -1).square().sum(1)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _autocast_now(tree: Any) -> AbstractContextManager[Any] | None:
    """An autocast like the present one, for tensors of this tree; None if there is none."""
    for device in {leaf.device.type for leaf in _tensors(tree)}:
        if torch.is_autocast_enabled(device):
            kind = torch.get_autocast_dtype(device)
            return torch.autocast(device, kind, cache_enabled=False)
    return None
