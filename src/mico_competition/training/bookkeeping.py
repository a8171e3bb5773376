"""Computes per-example gradient norms and the clipped sum without per-example gradients.

One forward and one backward pass record, for each layer, its input and the gradient of its output.
From these follow the norm of each example's gradient and then the sum of clipped gradients, as one
product: docs/METHODS.md, section 11.3 (formula 89).  The backward pass skips the gradients of
parameters, so the total cost is that of a plain step and the norms.  Source: Bu, Wang, Zha and
Karypis, "Differentially private optimization on large model at small cost", ICML 2023 (arXiv
2210.00038).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.recorder import Recorder
from mico_competition.training.ghost_norms import RULES, Rule


class BookKeeper:
    """Computes the clipped sum of per-example gradients of a model's losses.

    Args:
        model: all its parameters must be trainable and belong to layers that `ghost_norms.RULES`
            supports, each to one layer only.

    Raises:
        ValueError: naming the layer or parameter that cannot be clipped.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._rules = dict(_rules_of(model))
        self._recorder = Recorder(model, self._rules, self._see)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the forward passes of this block for `norms`; parameters get no gradient."""
        for rule in self._rules.values():
            rule.forget()
        with self._recorder.recording():
            yield

    def _see(self, module: nn.Module, layer_input: Tensor, output: Tensor) -> None:
        """Record a layer's input, and hook the gradient of its output."""
        if torch.is_grad_enabled():
            rule = self._rules[module]
            rule.see_input(layer_input)
            output.register_hook(rule.see_output_gradient)

    def norms(self, losses: Tensor) -> Tensor:
        """Run the backward pass, and compute the norm of each example's gradient.

        Args:
            losses: float[b], one loss for each example, computed inside `recording`.

        Returns:
            float[b].

        Raises:
            ValueError: naming a layer that does not contribute to the losses, whose input does
                not have one row for each example, or whose input was changed in place.
        """
        if losses.requires_grad:  # otherwise no layer contributes, and the first rule says so
            losses.sum().backward()
        squares = torch.zeros_like(losses)
        for rule in self._rules.values():
            squares += rule.squared_norms(losses.shape)
        return squares.sqrt()

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Write sum_i weights_i * gradient_i into each parameter's `grad`; forget the batch."""
        for rule in self._rules.values():
            rule.write_weighted_sum(weights)
            rule.forget()


def _rules_of(model: nn.Module) -> Iterator[tuple[nn.Module, Rule]]:
    """A rule for each layer with parameters; ValueError for a layer that no rule supports."""
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        parameters: list[tuple[str, Any]] = list(module.named_parameters(name, recurse=False))
        for full_name, parameter in parameters:
            if id(parameter) in owner:
                raise ValueError(
                    f"Parameter {full_name} is shared with {owner[id(parameter)]}: private "
                    "training needs separate parameters in each layer."
                )
            owner[id(parameter)] = full_name
        if parameters:
            if type(module) not in RULES:
                supported = ", ".join(kind.__name__ for kind in RULES)
                raise ValueError(
                    f"Layer {name or 'model'} ({type(module).__name__}) is not supported in "
                    f"book-keeping mode, which supports {supported}: replace it, or use "
                    "--grad_sample_mode hooks."
                )
            yield module, RULES[type(module)](name, module)
