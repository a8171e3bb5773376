"""The errors of a model that does not take its inputs, as a sentence with the fix."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mico_competition.support.spelling import nearest


def misfit(name: str, model: nn.Module, inputs: Any, error: Exception) -> ValueError:
    """The error to raise for a model that failed on its inputs.

    Args:
        name: what messages call the model.
        model: the model.
        inputs: what it was called with: a tensor, or tensors by argument.
        error: what it raised.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if not isinstance(error, (RuntimeError, ValueError)):
        lines[0] = f"{type(error).__name__}: {lines[0]}"
    fix = _of_names(model, inputs) or _of_types(model, inputs)
    return ValueError(
        f"{name} does not take the inputs, here {described(inputs)}: {fix}{lines[0].rstrip('.')}."
    )


def described(inputs: Any) -> str:
    """The types and shapes of tensors: "inputs float32 (16, 4)"."""
    named = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    return ", ".join(f"{name} {kind_of(value)}" for name, value in named.items())


def kind_of(value: Any) -> str:
    """The type and shape of one tensor, or the type of something else."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")


def _of_names(model: nn.Module, inputs: Any) -> str:
    """What to do if the model has other arguments than the inputs have names."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # a forward that was compiled or scripted
        return ""
    names = [
        p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL
    ]
    needed = [p.name for p in parameters if p.default is p.empty and p.name in names]
    takes = f"{type(model).__name__}.forward takes {', '.join(names) or 'nothing'}"
    if not isinstance(inputs, Mapping):
        return f"{takes}, so pass a dict of these. " if len(needed) > 1 else ""
    if any(not isinstance(name, str) for name in inputs):
        return f"{takes}, so the keys must be these names. "
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
    extra = [] if any_name else [name for name in inputs if name not in names]
    lacking = [name for name in needed if name not in inputs]
    if extra:
        near = nearest(extra[0], names)
        return f"{takes}: {'rename' if near else 'leave out'} {extra[0]}. "
    return f"{takes}: add {lacking[0]}. " if lacking else ""


def _of_types(model: nn.Module, inputs: Any) -> str:
    """What to do if the model computes in another type than that of the inputs."""
    weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if not isinstance(inputs, Tensor) or weights is None or inputs.dtype == weights:
        return ""
    if not inputs.is_floating_point():
        return "if it takes floating-point numbers, pass inputs.float(). "
    return f"its weights are {weights}, so pass inputs.to({weights}). "
