"""How much memory a stack takes at most, by a formula of its models' shapes.

A stack of S models with W weights each, on batches of up to b records a model in one pass, takes at
most

    S * (4 W k  +  4 b (c X + f D)  +  40 n)  +  16 MB,

on top of the data set and what the process holds before.

- k counts the copies of the weights while a pass runs: 5 (the models, the stack, the sums of
  gradients and those of one more pass, what the optimiser computes with), 6 in a private run, which
  has noise, and with Adam its 2 moments and 1 more.  The checks of a private run hold 14, which
  malloc spreads over 17, and at that time the D of 5 records: what is larger counts.
- X numbers go into a model for each record.  They are held c = 3 times, and 8 times in a private
  run, whose checks exchange records.
- D numbers are made of each record.  A forward pass leaves A of them for the backward pass, and the
  largest tensor has M: D = A + M.  In a private run A includes the inputs of the layers with
  parameters, and two moments count.  At the end of the backward pass, the G gradients of these
  layers' outputs are there: A + G + M.  While norms are computed, there are K inputs and gradients,
  or the per-example gradients that `Rule.keeps` puts in their place, and what one layer computes, P
  at most: K + M + P.  D is the larger one.  Convolutions that run model by model compute for one
  model at a time, so there b P counts once, not S times.
- f = 2.4, as malloc leaves gaps; 1.9 in a private run, whose A and G are not all there at once.
- n records of each model have an index, a label and a place in the epoch's batches.

A, M, G, K and P are counted on two models with two records each (`sizes_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mico_competition.models.architectures import logits
from mico_competition.support.memory_limits import all_memory, size_in_words
from mico_competition.training.bookkeeping import BookKeeper
from mico_competition.training.check_batches import mapped
from mico_competition.training.fixed_shapes import fixed_length
from mico_competition.training.ghost_norms import ScaleRule
from mico_competition.training.layer_rule import Rule
from mico_competition.training.random_numbers import undisturbed
from mico_competition.training.settings import Settings
from mico_competition.training.stacked_layers import SMALL_CONVOLUTION, StackedConv2d
from mico_competition.training.stacked_model import stacked

_ADAM = {"sgd": 0, "adam": 3, "adamw": 3}  # copies of the weights
_CHECKS, _CHECKED = 17, 5  # copies of the weights, and records of each model, in the checks
_RECORD = 40  # bytes of index, label and places in batches
_FLOAT = 4
_ALWAYS = 16 * 10**6
_TRIED = 2  # models, and records of each, on which `sizes_of` counts


@dataclass(frozen=True)
class Sizes:
    """Numbers that one model of a stack has, as the formula above names them.

    Attributes:
        weights: W.
        inputs: X, of one record, as all that follow.
        left: A, what a forward pass leaves for the backward pass.
        largest: M, of the largest tensor of real numbers.
        gradients: G, of the outputs of layers with parameters; 0 in a plain run.
        kept: K, what the norms of all layers are computed from, or what they keep instead.
        norms: P of layers that compute all models' norms at once.
        convolutions: P of each convolution, and the multiply-adds of one model's.
    """

    weights: int
    inputs: float
    left: float
    largest: float
    gradients: float = 0
    kept: float = 0
    norms: float = 0
    convolutions: tuple[tuple[float, float], ...] = ()

    def made(self, stack: int, rows: int) -> float:
        """S b D, the numbers that a stack makes of `rows` records of each model."""
        norms = stack * self.norms
        for numbers, work in self.convolutions:
            norms = max(norms, numbers * (stack if work * rows <= SMALL_CONVOLUTION else 1))
        step = max(stack * (self.left + self.gradients), stack * self.kept + norms)
        return rows * (step + stack * self.largest)


def sizes_of(model: nn.Module, example: Any, private: bool) -> Sizes:
    """Count the numbers of a model, by a pass of two copies over two records each.

    Args:
        model: on the device of the example.
        example: the inputs of one example, a tensor or tensors by name, with one row.
        private: whether the run is private.

    Raises:
        ValueError, RuntimeError or IndexError: if the models do not stack.
    """
    whole, rows = stacked([model] * _TRIED), _TRIED * _TRIED
    inputs = mapped(example, lambda one: one.expand(rows, *one.shape[1:]).clone(), 1)
    given = {_key(part) for part in [*_tensors(inputs), *whole.parameters()]}
    left: list[Tensor] = []

    def leave(tensor: Tensor) -> Tensor:
        left.append(tensor)
        return tensor

    keeper = BookKeeper(whole) if private else None
    recording = keeper.recording(rows) if keeper else nullcontext()
    with undisturbed(), torch.enable_grad():
        with recording, saved_tensors_hooks(leave, lambda tensor: tensor):
            losses = logits(whole, inputs).flatten(1).logsumexp(1)
        if keeper:
            losses.backward(torch.ones_like(losses))
    rules = list(keeper.layers.rules.values()) if keeper else []
    calls = [call for rule in rules for call in rule.recorded(losses.shape)]
    gradients = [g for _, g in calls]
    held = {_key(t): t for t in [*left, *(a for a, _ in calls)] if _key(t) not in given}
    numbers = [t for t in [*held.values(), *gradients] if t.is_floating_point()]
    unit = _FLOAT * rows
    return Sizes(
        weights=sum(p.numel() for p in model.parameters()),
        inputs=sum(part.nbytes for part in _tensors(inputs)) / unit,
        left=sum(map(_bytes, held.values())) / unit,
        largest=max(map(_bytes, numbers), default=0) / unit,
        gradients=sum(map(_bytes, gradients)) / unit,
        **_of_norms(rules, losses.shape),
    )


def _of_norms(rules: Sequence[Rule], batch: torch.Size) -> dict[str, Any]:
    """What the rules of a private run keep and compute, as fields of `Sizes`."""
    kept, norms, convolutions = 0.0, 0.0, []
    for rule in rules:
        calls = list(rule.recorded(batch))
        numbers = sum(a[0].numel() + g[0].numel() for a, g in calls)
        gradient = sum(rule.shape_of(name).numel() for name in rule.trained)
        if rule.may_keep and all(rule.keeps(a, g) for a, g in calls):
            kept += max(numbers, gradient)
        else:
            kept += numbers + (gradient if isinstance(rule, ScaleRule) else 0)
        with _Made() as made:
            rule.squared_norms(batch)
        computed = sum(made.sizes.values()) / (_FLOAT * len(calls[0][0]))
        if isinstance(rule.module, StackedConv2d):
            pixels = calls[0][1][0, 0].numel()
            convolutions.append((computed, rule.module.weight[0].numel() * pixels))
        else:
            norms = max(norms, computed)
    return {"kept": kept, "norms": norms, "convolutions": tuple(convolutions)}


class _Made(TorchDispatchMode):
    """Counts the bytes of all tensors that are made in its block, also of those dropped again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self._held: list[Tensor] = []  # so that no other tensor gets the place of a dropped one

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = set(map(_key, _tensors((args, kwargs))))
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            if _key(tensor) not in given:
                self.sizes[_key(tensor)] = _bytes(tensor)
                self._held.append(tensor)
        return made


def _tensors(tree: Any) -> Iterable[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def stack_bytes(settings: Settings, sizes: Sizes, stack: int) -> int:
    """The most bytes that a stack takes while it is trained, by the formula above.

    Args:
        settings: of the run.
        sizes: of one of its models.
        stack: S >= 1.
    """
    private, adam = not settings.disable_dp, _ADAM[settings.optimizer]
    longest = settings.batch_size
    if private:
        longest = fixed_length(settings.expected_batch_size, settings.len_training)
    rows = min(settings.max_physical_batch_size, longest)
    gaps = 1.9 if private else 2.4

    def held(copies: int, rows: int) -> float:
        return stack * copies * sizes.weights + gaps * sizes.made(stack, rows)

    numbers = held(5 + private + adam, rows)
    if private:
        numbers = max(numbers, held(_CHECKS, _CHECKED))
    numbers += stack * max(rows, _CHECKED if private else 0) * (8 if private else 3) * sizes.inputs
    return int(_FLOAT * numbers) + stack * _RECORD * settings.len_training + _ALWAYS


def most_models(settings: Settings, sizes: Sizes, free: int) -> int:
    """The largest stack that fits into `free` bytes; 0 if none does."""
    fits, beyond = 0, 1
    while stack_bytes(settings, sizes, beyond) <= free:
        fits, beyond = beyond, 2 * beyond
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if stack_bytes(settings, sizes, middle) <= free:
            fits = middle
        else:
            beyond = middle
    return fits


def check_memory(settings: Settings, model: nn.Module, example: Any, stack: int) -> None:
    """Raise ValueError if a stack takes more memory than its device has.

    Models that do not stack pass: `check_stacking` refuses them, with the reason.

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
    try:
        sizes = sizes_of(model, example, not settings.disable_dp)
    except (RuntimeError, ValueError, IndexError):
        return
    needed = stack_bytes(settings, sizes, stack)
    if needed > there:
        most = most_models(settings, sizes, there)
        fix = f"give --stack {most} or less" if most else "lower --max_physical_batch_size"
        where = "the GPU has" if device.type == "cuda" else "this process may use"
        raise ValueError(
            f"A stack of {stack} models of task {settings.task} takes up to "
            f"{size_in_words(needed)}, and {where} {size_in_words(there)}: {fix}."
        )


def memory_of(device: torch.device) -> int | None:
    """The bytes of memory of a device that this process may use; None where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return all_memory()
