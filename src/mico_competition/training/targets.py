"""Checks that the targets of a batch fit the model's outputs, for the losses that have a name."""

from __future__ import annotations

from torch import Tensor

from mico_competition.models.misfit import kind_of
from mico_competition.support.counts import count_of

IGNORED = -100  # the target of a position that does not count, as in torch and transformers


def check_classes(logits: Tensor, targets: Tensor) -> None:
    """ValueError unless targets are one class below the logits' [b, classes] an example.

    They may also be the probabilities of all classes, float[b, classes].
    """
    if logits.ndim != 2:
        fix = "loss='tokens'" if logits.ndim > 2 else "loss='squared_error' for numbers"
        raise ValueError(
            f"Expected outputs [b, classes] for the loss cross_entropy, got {kind_of(logits)}: "
            f"give {fix}."
        )
    if targets.is_floating_point() and targets.shape == logits.shape:
        return
    if targets.ndim == 2 and targets.shape[1] == 1:
        fix = "pass targets[:, 0]"
    elif targets.ndim != 1:
        fix = "if they are one-hot, pass targets.argmax(1)"
    elif targets.is_floating_point():
        fix = "pass targets.long(), or give loss='squared_error' if they are no classes"
    else:
        return
    raise ValueError(
        f"Expected targets as whole numbers [b], the class of each example, got {kind_of(targets)}"
        f": {fix}."
    )


def check_tokens(logits: Tensor, targets: Tensor) -> None:
    """ValueError unless targets are one token below the logits' [b, T, tokens] a position."""
    if logits.ndim != 3 or targets.shape != logits.shape[:2] or targets.is_floating_point():
        raise ValueError(
            "Expected outputs [b, T, tokens] and targets as whole numbers [b, T] for a loss of "
            f"tokens, got outputs {kind_of(logits)} and targets {kind_of(targets)}: for one class "
            "an example, give loss='cross_entropy'."
        )


def check_labels(logits: Tensor, targets: Tensor) -> None:
    """ValueError unless targets are in [0, 1] and of the outputs' shape [b, labels]."""
    check_shape(logits, targets)
    if not targets.is_cuda and targets.numel() and not 0 <= targets.min() <= targets.max() <= 1:
        raise ValueError(
            "Expected targets of 0 and 1 for the loss multi_label, got "
            f"{targets.min():g} to {targets.max():g}: for numbers, give loss='squared_error'."
        )


def check_shape(outputs: Tensor, targets: Tensor) -> None:
    """ValueError unless outputs and targets have the same shape."""
    if outputs.shape != targets.shape:
        raise ValueError(
            f"Expected targets of shape {list(outputs.shape)}, as the outputs have, got "
            f"{list(targets.shape)}."
        )


def out_of_range(classes: int, targets: Tensor) -> ValueError:
    """The error for a target that is not below the number of classes."""
    counted = targets[targets != IGNORED]
    return ValueError(
        f"Expected targets in 0..{classes - 1}, since the model has {count_of(classes, 'output')}, "
        f"got {counted.min()} to {counted.max()}: count classes from 0, and check that all targets "
        "are below the number of the model's outputs."
    )
