"""Detects whether a forward pass changes a model: its weights, buffers or other attributes."""

from __future__ import annotations

import hashlib
from collections.abc import (
    Callable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
)
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_INTERNAL = frozenset(vars(nn.Module())) | {"training"}

SHAKEN = 0.1  # noise on a weight, in units of 1 / sqrt(number of inputs of a unit)


def plain_name(name: str) -> str:
    """A parameter's name without the prefix that Opacus adds."""
    return name.removeprefix("_module.")


class WriteGuard:
    """Detects in-place writes to weights and buffers by torch's version counters, which is fast.

    `State` also detects writes that bypass the counters (`.data`, some native layers).
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = list(_tensors(model))
        self.start()

    def start(self) -> None:
        """Remember the version counters; passes that follow must not write."""
        self._versions = [tensor._version for _, tensor in self._tensors]

    def check(self) -> None:
        """Raise ValueError, naming the tensor, if one was written to since `start`."""
        for (name, tensor), version in zip(self._tensors, self._versions):
            if tensor._version != version:
                raise ValueError(_written(name, tensor))


class State(WriteGuard):
    """A copy of a model's weights and buffers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.model = model
        self._values = [tensor.detach().clone() for _, tensor in self._tensors]
        self._trained = [tensor.requires_grad for _, tensor in self._tensors]

    def check(self) -> None:
        """Raise ValueError, naming the tensor, if one was written to, changed or replaced."""
        super().check()
        now = dict(_tensors(self.model))
        for (name, tensor), value, trained in zip(self._tensors, self._values, self._trained):
            if trained and not tensor.requires_grad:
                raise ValueError(
                    f"Parameter {plain_name(name)} is frozen by the forward pass: leave "
                    "requires_grad as it is, so that every parameter is trained."
                )
            if now.pop(name, None) is not tensor or not _same_bits(tensor.detach(), value):
                raise ValueError(_written(name, tensor))
        for name, tensor in now.items():
            raise ValueError(_written(name, tensor))

    @torch.no_grad()
    def restore(self) -> None:
        """Restore every tensor and its values."""
        for (name, tensor), value in zip(self._tensors, self._values):
            path, _, leaf = name.rpartition(".")
            owner = self.model.get_submodule(path)
            held: Any = owner._parameters if leaf in owner._parameters else owner._buffers
            held[leaf] = tensor
            _write(tensor, value)
        self.start()

    def all_rounded(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Perturb every weight by about one rounding error inside this block."""
        return self._changed(lambda weight: rounded(weight, generator))

    def shaken(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Add a little noise to every weight inside this block, so that none is zero.

        A layer whose weights are zero would hide the faults of the layers before it.
        """

        def shaken(weight: Tensor) -> Tensor:
            noise = torch.randn(weight.shape, generator=generator)
            inputs = max(1, weight.numel() // max(1, len(weight))) if weight.ndim else 1
            return weight + noise.mul_(SHAKEN / inputs**0.5).to(weight)

        return self._changed(shaken)

    @contextmanager
    def _changed(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        with torch.no_grad():
            for _, tensor in self._tensors:
                if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
                    tensor.copy_(change(tensor))
        try:
            yield
        finally:
            self.restore()


def _written(name: str, tensor: Tensor) -> str:
    """The error message for a weight or buffer that the forward pass changes."""
    name = plain_name(name)
    if isinstance(tensor, nn.Parameter):
        return (
            f"Parameter {name} is changed by the forward pass: in private training only the "
            "optimiser may change it. Leave max_norm, spectral norms and the like out of the model."
        )
    return (
        f"Buffer {name} is changed by the forward pass, which carries data past the noise: use "
        "layers that keep no statistics, such as GroupNorm or LayerNorm for batch normalisation."
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, type and values; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def rounded(values: Tensor, generator: torch.Generator) -> Tensor:
    """Perturb real values by up to two rounding errors; return others unchanged."""
    if not values.is_floating_point():
        return values
    noise = torch.rand(values.shape, generator=generator).sub_(0.5)
    return values * noise.mul_(4 * torch.finfo(values.dtype).eps).add_(1.0).to(values)


class Attributes:
    """A copy of the attributes of a model's modules, without weights, buffers and submodules."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.digests = attributes(model)
        self._held = [(module, _attributes(module)) for module in model.modules()]
        self._put_back = _restorer([held for _, held in self._held], set(), 0)

    def grown(self) -> dict[str, Any]:
        """Compare with the present attributes, and return their digests.

        ValueError, naming the attribute, if one has changed.  Mappings may have new keys, because
        modules may fill a table when they first need it.
        """
        now = attributes(self.model)
        for name in {**self.digests, **now}:
            if not _within(self.digests.get(name), now.get(name)):
                raise ValueError(
                    f"Attribute {name} of the model changes from one forward pass to the next: "
                    "private training needs a model that keeps no state. Take it out of forward."
                )
        return now

    @torch.no_grad()
    def restore(self) -> None:
        """Restore every attribute, in place."""
        for module, held in self._held:
            for name in set(_attributes(module)) - set(held):
                delattr(module, name)
            vars(module).update(held)
        self._put_back()


def attributes(model: nn.Module) -> dict[str, Any]:
    """Digests of all modules' attributes, by name, without weights, buffers and submodules."""
    seen: dict[int, Any] = {}
    return {
        plain_name(f"{prefix}.{name}").removeprefix("."): _digest(value, seen, 0)
        for prefix, module in model.named_modules()
        for name, value in _attributes(module).items()
    }


def _attributes(module: nn.Module) -> dict[str, Any]:
    """A module's attributes, except those that every module has."""
    return {name: value for name, value in vars(module).items() if name not in _INTERNAL}


def _digest(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """A value that differs if the content of `value` does, as far as this can be inspected."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    key = id(value)
    if key in seen:
        return seen[key]
    seen[key] = type(value).__name__  # for a value that contains itself
    if isinstance(value, torch.Generator):
        value = value.get_state()
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        digest: Any = (value.shape, hashlib.blake2b(value.tobytes()).digest())
    elif isinstance(value, nn.Module) or callable(value) or depth > 5:
        digest = type(value).__name__
    elif isinstance(value, Mapping):
        digest = {repr(k): _digest(v, seen, depth + 1) for k, v in list(value.items())[:1000]}
    elif isinstance(value, (Sequence, set, frozenset)) or hasattr(value, "appendleft"):
        digest = [_digest(v, seen, depth + 1) for v in list(value)[:1000]] + [len(value)]
    elif hasattr(value, "__dict__"):
        digest = _digest(vars(value), seen, depth + 1)
    else:
        digest = type(value).__name__
    seen[key] = digest
    return digest


def _within(old: Any, new: Any) -> bool:
    """Whether two digests are equal, except for new keys of mappings."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and _within(value, new[name]) for name, value in old.items())
    return bool(old == new)


def _restorer(value: Any, seen: set[int], depth: int) -> Callable[[], None]:
    """A function that restores the present content of `value`, as far as `_digest` inspects it."""
    if id(value) in seen or depth > 5:
        return lambda: None
    seen.add(id(value))
    if isinstance(value, Tensor):
        numbers = value.detach().clone()
        return lambda: _write(value.detach(), numbers)
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: (value.set_state(state), None)[1]
    if isinstance(value, np.ndarray):
        copied = value.copy()
        return lambda: np.copyto(value, copied)
    if isinstance(value, nn.Module) or callable(value) or isinstance(value, (str, bytes)):
        return lambda: None
    if isinstance(value, Mapping):
        held: Any = dict(value)
        inside = [_restorer(each, seen, depth + 1) for each in held.values()]
    elif isinstance(value, (Sequence, set)):
        held = list(value)
        inside = [_restorer(each, seen, depth + 1) for each in held]
    elif hasattr(value, "__dict__"):
        return _restorer(vars(value), seen, depth + 1)
    else:
        return lambda: None

    def put_back() -> None:
        if isinstance(value, (MutableMapping, MutableSequence, set)) and not _same(value, held):
            value.clear()
            (value.extend if isinstance(value, MutableSequence) else value.update)(held)
        for each in inside:
            each()

    return put_back


def _same(value: Any, held: Any) -> bool:
    """Whether a container holds the same objects as before."""
    one, other = list(value), list(held)
    if isinstance(value, Mapping):
        one, other = [*one, *value.values()], [*other, *held.values()]
    return len(one) == len(other) and all(a is b for a, b in zip(one, other))


def _write(tensor: Tensor, value: Tensor) -> None:
    """Restore a tensor's values; if they are unchanged, its version counter stays."""
    if tensor.shape == value.shape and not _same_bits(tensor, value):
        tensor.copy_(value)
