"""Controls the global random generators while a model is checked, and restores them afterwards.

It covers those of torch, Python and NumPy.  A run draws its batches and noise from generators of
its own, which the checks never touch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SEED = 20230208  # every pass of a comparison starts from the random state of this seed


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the global random states at the end of this block."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def restart(seed: int = SEED) -> None:
    """Start every global random stream from `seed`; only inside `undisturbed`."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # else `torch.manual_seed` would leave it a seed for later
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed)


def global_states(device: torch.device) -> dict[str, Any]:
    """The states of the global generators of torch (CPU and `device`), NumPy and Python."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def set_global_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Set what `global_states` gave; `device` may have another number now."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])


def torch_states() -> list[Tensor]:
    """The states of torch's global generators; equal after passes that drew equally much."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


# The constants that replace random numbers, in two versions, by the start of an operation's name.
_CONSTANTS = {
    "bernoulli": (1.0, 0.0),
    "randn": (1.0, -1.0),
    "normal": (1.0, -1.0),
    "rand": (0.9, 0.1),
    "uniform": (0.9, 0.1),
    "exponential": (1.0, 2.0),
}


class Constant(TorchDispatchMode):
    """Replaces random numbers of dropout and the like by constants, for any shape of the batch.

    Batches of different lengths can then be compared.  Operations that it does not know stay
    random.

    Args:
        version: 0 or 1, which of two constants to use (for dropout: keep all, or none).

    Attributes:
        used: whether any operation drew random numbers.
    """

    def __init__(self, version: int = 0) -> None:
        TorchDispatchMode.__init__(self)
        self.version = version
        self.used = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        names = [argument.name for argument in func._schema.arguments]
        given = {**dict(zip(names, args)), **kwargs}
        given.setdefault("dropout_p", 0.0 if "dropout_p" in names else None)
        if given["dropout_p"] == 0.0 or (name == "bernoulli_" and given.get("p") == 1.0):
            return func(*args, **kwargs)  # the result is not random
        self.used = True
        if given["dropout_p"] is not None:  # fused attention
            return func(**{**given, "dropout_p": 0.0})
        if name == "native_dropout":
            kept = torch.full_like(args[0], 1.0 - self.version)
            return args[0] * kept / max(1 - given["p"], 1e-6), kept.bool()
        if name.startswith("rrelu_with_noise"):
            args[1].copy_(torch.where(args[0] > 0, 1.0, (0.25, 0.2)[self.version]))
            return args[0] * args[1]
        result = func(*args, **kwargs)
        for start, constants in _CONSTANTS.items():
            if name.startswith(start) and result.is_floating_point():
                return result.fill_(constants[self.version])
        return result
