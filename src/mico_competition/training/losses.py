"""Losses of single examples, by name or by a function, and the checks of what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

from mico_competition.models.architectures import logits
from mico_competition.models.misfit import kind_of, misfit
from mico_competition.support.call_errors import check_call
from mico_competition.training.targets import (
    IGNORED,
    check_classes,
    check_labels,
    check_shape,
    check_tokens,
    out_of_range,
)

Loss = Callable[[Any, Tensor], Tensor]
"""Maps a model's outputs and the targets [b, ...] to float[b], one loss an example."""


def class_loss(outputs: Any, targets: Tensor) -> Tensor:
    """The cross-entropy of logits [b, classes] with int[b], or with float[b, classes]."""
    logits = logits_of(outputs)
    check_classes(logits, targets)
    targets = targets if targets.is_floating_point() else targets.long()
    try:
        return cross_entropy(logits, targets, reduction="none")
    except IndexError as error:
        raise out_of_range(logits.shape[1], targets) from error


def token_loss(outputs: Any, targets: Tensor) -> Tensor:
    """The mean cross-entropy of logits [b, T, tokens] over the targets int64[b, T] except -100."""
    logits = logits_of(outputs)
    check_tokens(logits, targets)
    try:
        each = cross_entropy(
            logits.transpose(1, 2), targets.long(), reduction="none", ignore_index=IGNORED
        )
    except IndexError as error:
        raise out_of_range(logits.shape[2], targets) from error
    return each.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)


def next_token_loss(outputs: Any, targets: Tensor) -> Tensor:
    """`token_loss`, where the logits at position t predict the target at position t + 1."""
    logits = logits_of(outputs)
    check_tokens(logits, targets)
    return token_loss(logits[:, :-1], targets[:, 1:])


def squared_error(outputs: Any, targets: Tensor) -> Tensor:
    """The mean squared error of each example, whose outputs and targets have one shape."""
    outputs = logits_of(outputs)
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    check_shape(outputs, targets)
    mean: Tensor = (outputs - targets).square().reshape(len(targets), -1).mean(1)
    return mean


def multi_label_loss(outputs: Any, targets: Tensor) -> Tensor:
    """The mean binary cross-entropy of logits [b, labels] with targets of 0 and 1."""
    outputs = logits_of(outputs)
    check_labels(outputs, targets)
    each = functional.binary_cross_entropy_with_logits(
        outputs, targets.to(outputs.dtype), reduction="none"
    )
    return each.flatten(1).mean(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": class_loss,
    "multi_label": multi_label_loss,
    "next_token": next_token_loss,
    "squared_error": squared_error,
    "tokens": token_loss,
}


def logits_of(outputs: Any) -> Tensor:
    """The logits among a model's outputs: the outputs themselves, or their `logits`."""
    found = getattr(outputs, "logits", outputs)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"The model returns {type(outputs).__name__}, which is no tensor and has no logits: "
            "give loss= a function of these outputs and the targets."
        )
    return found


def per_example_losses(model: nn.Module, inputs: Any, labels: Tensor) -> Tensor:
    """The cross-entropy of each example, float[b].

    Raises:
        ValueError: if the model does not take the inputs, or has fewer outputs than classes.
    """
    outputs = logits(model, inputs)
    try:
        return cross_entropy(outputs, labels, reduction="none")
    except IndexError as error:
        raise ValueError(
            f"Model {type(model).__name__} gives outputs of shape {list(outputs.shape)}, which do "
            "not cover the task's classes: correct the model."
        ) from error


def _outputs_of(model: nn.Module, inputs: Any) -> Any:
    """The outputs of a model; ValueError, with what to change, if it does not take the inputs."""
    try:
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, IndexError) as error:
        raise misfit("The model", model, inputs, error) from error


class ExampleLosses:
    """Runs a model on a batch, and computes the loss of each example.

    Args:
        loss: a name in LOSSES, or a function of the outputs and targets.

    Raises:
        ValueError: if no loss has this name.
    """

    def __init__(self, loss: str | Loss) -> None:
        if isinstance(loss, str):
            if loss not in LOSSES:
                raise ValueError(
                    f"Unknown loss {loss!r}: give a function of outputs and targets, or one of "
                    f"{', '.join(LOSSES)}."
                )
            loss = LOSSES[loss]
        if isinstance(loss, type):
            raise ValueError(
                f"Expected loss to be a function or a name, got the class {loss.__name__}: make an "
                "object of it, for torch's losses with reduction='none'."
            )
        check_call("loss", loss, "outputs, targets")
        self.loss = loss
        self._checked = False

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the loss is a module with parameters to train beside the model's."""
        holder = getattr(self.loss, "__self__", self.loss)
        if isinstance(holder, nn.Module):
            _refuse_foreign(model, [p for p in holder.parameters() if p.requires_grad])

    def __call__(self, model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        """float[b], with a graph; ValueError if the loss returns another shape."""
        outputs = _outputs_of(model, inputs)
        losses = self._losses_of(outputs, targets)
        if not isinstance(losses, Tensor):
            raise ValueError(f"Expected loss to return a tensor, got {type(losses).__name__}.")
        if losses.shape != (len(targets),):
            raise ValueError(
                f"The loss returned shape {list(losses.shape)} for {len(targets)} examples: "
                f"return one value an example, {self._remedy(losses)}."
            )
        if not self._checked and losses.grad_fn is not None:
            _refuse_foreign(model, _parameters_below(losses))
            self._checked = True
        return losses

    def _losses_of(self, outputs: Any, targets: Tensor) -> Any:
        """What the loss gives; ValueError with the shapes if it fails on them."""
        try:
            return self.loss(outputs, targets)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"The loss fails on outputs {kind_of(outputs)} and targets {kind_of(targets)}, in "
                f"this order: {error}"
            ) from error

    @staticmethod
    def _remedy(losses: Tensor) -> str:
        if not losses.ndim:
            return "for example with reduction='none', and no .mean() over the batch"
        return "for example by .flatten(1).mean(1)"


def _parameters_below(losses: Tensor) -> list[Tensor]:
    """The parameters in the graph of the losses."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    waiting: list[Any] = [losses.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [below for below, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter):
            found.append(leaf)
    return found


def _refuse_foreign(model: nn.Module, parameters: list[Any]) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    foreign = [each for each in parameters if id(each) not in own]
    if foreign:
        raise ValueError(
            f"The loss uses a parameter of shape {list(foreign[0].shape)} that is not the model's, "
            "so its gradient would be neither clipped nor noised: make it a part of the model, or "
            "freeze it by requires_grad_(False)."
        )
