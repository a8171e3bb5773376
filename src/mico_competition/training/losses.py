"""Losses of single examples, by name or by a function, and the checks of what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Any, Tensor], Tensor]
"""Maps a model's outputs and the targets [b, ...] to float[b], one loss an example."""

IGNORED = -100  # the target of a position that does not count, as in torch and transformers


def class_loss(outputs: Any, targets: Tensor) -> Tensor:
    """The cross-entropy of logits [b, classes] with int64[b]."""
    return functional.cross_entropy(logits_of(outputs), targets, reduction="none")


def token_loss(outputs: Any, targets: Tensor) -> Tensor:
    """The mean cross-entropy of logits [b, T, tokens] over the targets int64[b, T] except -100."""
    logits = logits_of(outputs)
    each = functional.cross_entropy(
        logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED
    )
    return each.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)


def next_token_loss(outputs: Any, targets: Tensor) -> Tensor:
    """`token_loss`, where the logits at position t predict the target at position t + 1."""
    return token_loss(logits_of(outputs)[:, :-1], targets[:, 1:])


def squared_error(outputs: Any, targets: Tensor) -> Tensor:
    """The mean squared error of each example, whose outputs and targets have one shape."""
    outputs = logits_of(outputs)
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    _same_shape(outputs, targets)
    mean: Tensor = (outputs - targets).square().reshape(len(targets), -1).mean(1)
    return mean


def multi_label_loss(outputs: Any, targets: Tensor) -> Tensor:
    """The mean binary cross-entropy of logits [b, labels] with targets of 0 and 1."""
    outputs = logits_of(outputs)
    _same_shape(outputs, targets)
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


def _same_shape(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"Expected targets of shape {list(outputs.shape)}, as the outputs have, got "
            f"{list(targets.shape)}."
        )


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
        if not callable(loss):
            raise ValueError(f"Expected loss to be a function or a name, got {loss!r}.")
        self.loss = loss

    def __call__(self, model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        """float[b], with a graph; ValueError if the loss returns another shape."""
        outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
        losses = self.loss(outputs, targets)
        if not isinstance(losses, Tensor):
            raise ValueError(f"Expected loss to return a tensor, got {type(losses).__name__}.")
        if losses.shape != (len(targets),):
            raise ValueError(
                f"The loss returned shape {list(losses.shape)} for {len(targets)} examples: "
                f"return one value an example, {self._remedy(losses)}."
            )
        return losses

    @staticmethod
    def _remedy(losses: Tensor) -> str:
        if not losses.ndim:
            return "for example with reduction='none', and no .mean() over the batch"
        return "for example by .flatten(1).mean(1)"


def rows_of(inputs: Any) -> int:
    """The number of examples of a batch: the length of its tensors, which must agree."""
    tensors = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    lengths = {len(each) for each in tensors if isinstance(each, Tensor) and each.ndim}
    if len(lengths) != 1:
        raise ValueError(
            "Expected inputs to be a tensor with one row an example, or a dict of such tensors, "
            f"got {type(inputs).__name__} of {sorted(lengths) or 'no'} rows."
        )
    return lengths.pop()


def as_tensors(inputs: Any) -> Any:
    """Arrays as tensors, in a dict too."""
    if isinstance(inputs, Mapping):
        return {name: as_tensors(value) for name, value in inputs.items()}
    return torch.as_tensor(inputs) if hasattr(inputs, "__array__") else inputs


def part_of(inputs: Any, at: Tensor, device: torch.device) -> Any:
    """The examples at positions `at`, on the model's device."""
    if isinstance(inputs, Mapping):
        return {name: part_of(value, at, device) for name, value in inputs.items()}
    if isinstance(inputs, Tensor) and inputs.ndim:
        return inputs[at.to(inputs.device)].to(device)
    return inputs
