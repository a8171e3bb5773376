"""Whether a forward pass leaves a model as it was: weights, buffers, and what modules hold besides.

Knows modules only: no data, no loss, no mechanism.
"""

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

SHAKEN = 0.1  # noise on a weight, in units of 1 / the root of the number of a unit's inputs


def plain_name(name: str) -> str:
    """A parameter's name without the prefix that Opacus puts before it."""
    return name.removeprefix("_module.")


class WriteGuard:
    """Sees that a pass wrote into a weight or buffer, by torch's own count of writes; quick.

    Writes past that count (`.data`, some native layers) are for `State` to see.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = list(_tensors(model))
        self.start()

    def start(self) -> None:
        """Passes begin that must not write."""
        self._versions = [tensor._version for _, tensor in self._tensors]

    def check(self) -> None:
        """ValueError, naming the weight or buffer, if one was written into since `start`."""
        for (name, tensor), version in zip(self._tensors, self._versions):
            if tensor._version != version:
                raise ValueError(_written(name, tensor))


class State(WriteGuard):
    """A model's weights and buffers at one moment, bit for bit."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.model = model
        self._values = [tensor.detach().clone() for _, tensor in self._tensors]

    def check(self) -> None:
        """ValueError, naming the weight or buffer, if one was written into, changed or replaced."""
        super().check()
        now = dict(_tensors(self.model))
        for (name, tensor), value in zip(self._tensors, self._values):
            if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
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
        """Put every tensor, and every value, back."""
        for (name, tensor), value in zip(self._tensors, self._values):
            place, _, leaf = name.rpartition(".")
            owner = self.model.get_submodule(place)
            held: Any = owner._parameters if leaf in owner._parameters else owner._buffers
            held[leaf] = tensor
            _write(tensor, value)
        self.start()

    def all_rounded(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Every weight is off by about one rounding error inside this block."""
        return self._changed(lambda weight: rounded(weight, generator))

    def shaken(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Every weight is off by a little noise inside this block, so that none is zero.

        A layer whose weights start at zero hides what the layers before it do.
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
                if isinstance(tensor, nn.Parameter):
                    tensor.copy_(change(tensor))
        try:
            yield
        finally:
            self.restore()


def _written(name: str, tensor: Tensor) -> str:
    """The sentence about a weight or buffer that a forward pass writes into."""
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
    """Whether two tensors of one shape hold the same values, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def rounded(values: Tensor, generator: torch.Generator) -> Tensor:
    """Real values with an error of up to two roundings; others as they are."""
    if not values.is_floating_point():
        return values
    noise = torch.rand(values.shape, generator=generator).sub_(0.5)
    return values * noise.mul_(4 * torch.finfo(values.dtype).eps).add_(1.0).to(values)


class Attributes:
    """What modules hold beside weights, buffers and submodules, at one moment."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.digests = attributes(model)
        self._held = [(module, _own(module)) for module in model.modules()]
        self._put_back = _keeper([held for _, held in self._held], set(), 0)

    def grown(self) -> dict[str, Any]:
        """Digests of what is there now; ValueError, naming it, if what was there has changed.

        Mappings may have more in them: tables that are made when they are first asked for.
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
        """Put every one back, in place."""
        for module, held in self._held:
            for name in set(_own(module)) - set(held):
                delattr(module, name)
            vars(module).update(held)
        self._put_back()


def attributes(model: nn.Module) -> dict[str, Any]:
    """Digests of what modules hold beside weights, buffers and submodules, by name."""
    seen: dict[int, Any] = {}
    return {
        plain_name(f"{prefix}.{name}").removeprefix("."): _digest(value, seen, 0)
        for prefix, module in model.named_modules()
        for name, value in _own(module).items()
    }


def _own(module: nn.Module) -> dict[str, Any]:
    """A module's attributes but those that every module has."""
    return {name: value for name, value in vars(module).items() if name not in _INTERNAL}


def _digest(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Something that is equal for two values only if they are, as far as one can look."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    key = id(value)
    if key in seen:
        return seen[key]
    seen[key] = type(value).__name__  # also where a value holds itself
    if isinstance(value, torch.Generator):
        value = value.get_state()
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        found: Any = (value.shape, hashlib.blake2b(value.tobytes()).digest())
    elif isinstance(value, nn.Module) or callable(value) or depth > 5:
        found = type(value).__name__
    elif isinstance(value, Mapping):
        found = {repr(k): _digest(v, seen, depth + 1) for k, v in list(value.items())[:1000]}
    elif isinstance(value, (Sequence, set, frozenset)) or hasattr(value, "appendleft"):
        found = [_digest(v, seen, depth + 1) for v in list(value)[:1000]] + [len(value)]
    elif hasattr(value, "__dict__"):
        found = _digest(vars(value), seen, depth + 1)
    else:
        found = type(value).__name__
    seen[key] = found
    return found


def _within(old: Any, new: Any) -> bool:
    """Whether two digests are equal, but for what mappings have more now."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and _within(value, new[name]) for name, value in old.items())
    return bool(old == new)


def _keeper(value: Any, seen: set[int], depth: int) -> Callable[[], None]:
    """What puts the present contents of `value` back, as far as `_digest` looks."""
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
        inside = [_keeper(each, seen, depth + 1) for each in held.values()]
    elif isinstance(value, (Sequence, set)):
        held = list(value)
        inside = [_keeper(each, seen, depth + 1) for each in held]
    elif hasattr(value, "__dict__"):
        return _keeper(vars(value), seen, depth + 1)
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
    """Whether a container holds the very objects that it held."""
    one, other = list(value), list(held)
    if isinstance(value, Mapping):
        one, other = [*one, *value.values()], [*other, *held.values()]
    return len(one) == len(other) and all(a is b for a, b in zip(one, other))


def _write(tensor: Tensor, value: Tensor) -> None:
    """Put a value back; torch counts no write where nothing changed."""
    if tensor.shape == value.shape and not _same_bits(tensor, value):
        tensor.copy_(value)
