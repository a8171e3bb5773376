"""Per-example gradient norms and the clipped sum, without per-example gradients.

One forward and one backward pass keep, for each layer, its input and the gradient of its output.
They give the norm of each example's gradient and, once all norms are known, the sum of clipped
gradients as one product: docs/METHODS.md, section 11.3 (formula 89).  The backward pass skips the
gradients of parameters, so the whole costs a plain step, and the norms.  Source: Bu, Wang, Zha and
Karypis, "Differentially private optimization on large model at small cost", ICML 2023 (arXiv
2210.00038).

Knows layers and losses only: noise, sampling and accounting are the work of `dpsgd`.
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
    """Finds the clipped sum of per-example gradients of a model's losses.

    Args:
        model: its parameters must lie in layers that `ghost_norms.RULES` knows, each in one
            layer only, and all of them trainable.

    Raises:
        ValueError: naming the layer or parameter that cannot be clipped.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._rules = dict(_rules_of(model))
        self._recorder = Recorder(model, self._rules, self._see)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Forward passes in this block are kept for `norms`; parameters get no gradient."""
        for rule in self._rules.values():
            rule.forget()
        with self._recorder.recording():
            yield

    def _see(self, module: nn.Module, layer_input: Tensor, output: Tensor) -> None:
        """Keep a layer's input, and ask for the gradient of its output."""
        if torch.is_grad_enabled():
            rule = self._rules[module]
            rule.see_input(layer_input)
            output.register_hook(rule.see_output_gradient)

    def norms(self, losses: Tensor) -> Tensor:
        """float[b], the norm of each example's gradient; the one backward pass.

        Args:
            losses: float[b], one loss an example, computed inside `recording`.

        Raises:
            ValueError: naming a layer that took no part in the losses, whose input does not
                have one row an example, or whose input was changed in place.
        """
        if losses.requires_grad:  # else no layer took part, and the first rule says so
            losses.sum().backward()
        squares = torch.zeros_like(losses)
        for rule in self._rules.values():
            squares += rule.squared_norms(losses.shape)
        return squares.sqrt()

    def write_weighted_sum(self, weights: Tensor) -> None:
        """Put sum_i weights_i * gradient_i into each parameter's `grad`, and forget the batch."""
        for rule in self._rules.values():
            rule.write_weighted_sum(weights)
            rule.forget()


def _rules_of(model: nn.Module) -> Iterator[tuple[nn.Module, Rule]]:
    """A rule for each layer with parameters; ValueError for what none can be found for."""
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        own: list[tuple[str, Any]] = list(module.named_parameters(name, recurse=False))
        for full_name, parameter in own:
            if id(parameter) in owner:
                raise ValueError(
                    f"Parameter {full_name} is shared with {owner[id(parameter)]}: private "
                    "training needs a parameter of its own in each layer."
                )
            owner[id(parameter)] = full_name
        if own:
            if type(module) not in RULES:
                known = ", ".join(kind.__name__ for kind in RULES)
                raise ValueError(
                    f"Layer {name or 'model'} ({type(module).__name__}) is not supported in "
                    f"book-keeping mode, which knows {known}: replace it, or use "
                    "--grad_sample_mode hooks."
                )
            yield module, RULES[type(module)](name, module)
