"""How much memory a stack takes, by a formula of its models' shapes.

A stack of S models with W weights each, on batches of up to b records a model in one pass, takes

    S * (4 W k  +  4 b (c X + d A)  +  40 n)  +  8 P    bytes,

on top of the data set and what the process holds before.  k counts the copies of the weights: the
models, the stack, the sum of gradients, those of one more pass (or what the optimiser computes
with), the noise of a private run, and the optimiser's moments.  X numbers go into a model for each
record, which are held c times: 2, and 5 in a private run, whose checks compare batches.  A numbers
come out of its layers; a step keeps them, their gradients, and what is computed from both: d = 4,
and 6 in a private run, which may keep the gradients of examples.  n records of each model have an
index, a label and a place in the epoch's batches, which are held up to three times.  P is the
number of values in the patches of the largest convolution, of which a private run has two copies;
they are those of one model, unless the convolutions of all run as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.models.architectures import logits
from mico_competition.support.memory_limits import all_memory, size_in_words
from mico_competition.training.fixed_shapes import fixed_length
from mico_competition.training.random_numbers import undisturbed
from mico_competition.training.settings import Settings
from mico_competition.training.stacked_layers import SMALL_CONVOLUTION

_MOMENTS = {"sgd": 0, "adam": 2, "adamw": 2}
_RECORD = 40  # bytes of index, label and places in batches
_FLOAT = 4


@dataclass(frozen=True)
class Sizes:
    """Numbers that one model of a stack has.

    Attributes:
        weights: W.
        inputs: X, of one example.
        outputs: A, of all layers, of one example.
        patches: of its largest convolution, of one example; 0 without one.
        work: multiply-adds of that convolution, of one example.
    """

    weights: int
    inputs: int
    outputs: int
    patches: int = 0
    work: int = 0


@torch.no_grad()
def sizes_of(model: nn.Module, example: Any) -> Sizes:
    """Count the numbers of a model.

    Args:
        model: on the device of the example.
        example: the inputs of one example, a tensor or tensors by name, with one row.
    """
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    with undisturbed(), _recorded(model, seen):
        logits(model, example)
    outputs = sum(output.numel() for _, _, output in seen)
    patches = [
        (math.prod(layer.weight.shape[1:]) * layer.groups * output[0, 0].numel(), layer, output)
        for layer, _, output in seen
        if isinstance(layer, nn.Conv2d)
    ]
    largest = max(patches, key=lambda each: each[0], default=None)
    work = 0
    if largest is not None:
        work = largest[1].weight.numel() * largest[2][0, 0].numel()
    parts = example.values() if isinstance(example, Mapping) else (example,)
    return Sizes(
        weights=sum(p.numel() for p in model.parameters()),
        inputs=sum(part.numel() for part in parts),
        outputs=outputs,
        patches=0 if largest is None else largest[0],
        work=work,
    )


@contextmanager
def _recorded(model: nn.Module, seen: list[tuple[nn.Module, Tensor, Tensor]]) -> Iterator[None]:
    """Record the input and output of each layer that has no layers inside."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
            seen.append((module, inputs[0], output))

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(hook) for module in leaves]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def stack_bytes(settings: Settings, sizes: Sizes, stack: int) -> int:
    """The bytes that a stack takes while it is trained, by the formula above.

    Args:
        settings: of the run.
        sizes: of one of its models.
        stack: S >= 1.
    """
    private, moments = not settings.disable_dp, _MOMENTS[settings.optimizer]
    copies = 4 + private + moments
    longest = settings.batch_size
    if private:
        longest = fixed_length(settings.expected_batch_size, settings.len_training)
    rows = min(settings.max_physical_batch_size, longest)
    of_rows = (5 if private else 2) * sizes.inputs + (6 if private else 4) * sizes.outputs
    numbers = sizes.weights * copies + rows * of_rows
    each = _FLOAT * numbers + _RECORD * settings.len_training
    together = stack if sizes.work * rows <= SMALL_CONVOLUTION else 1
    patches = 2 * _FLOAT * sizes.patches * rows * together if private else 0
    return stack * each + patches


def most_models(settings: Settings, sizes: Sizes, free: int) -> int:
    """The largest stack that fits into `free` bytes; 0 if none does."""
    one, two = (stack_bytes(settings, sizes, stack) for stack in (1, 2))
    return max(0, 1 + (free - one) // (two - one)) if free >= one else 0


def check_memory(settings: Settings, model: nn.Module, example: Any, stack: int) -> None:
    """Raise ValueError if a stack takes more memory than its device has.

    Args:
        settings: of the run.
        model: one of the stack, on its device.
        example: as for `sizes_of`.
        stack: S.
    """
    device = next(model.parameters()).device
    there = memory_of(device)
    if there is None:
        return
    sizes = sizes_of(model, example)
    needed = stack_bytes(settings, sizes, stack)
    if needed > there:
        most = most_models(settings, sizes, there)
        fix = f"give --stack {most} or less" if most else "lower --max_physical_batch_size"
        where = "the GPU has" if device.type == "cuda" else "this process may use"
        raise ValueError(
            f"A stack of {stack} models of task {settings.task} takes about "
            f"{size_in_words(needed)}, and {where} {size_in_words(there)}: {fix}."
        )


def memory_of(device: torch.device) -> int | None:
    """The bytes of memory of a device that this process may use; None where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return all_memory()
