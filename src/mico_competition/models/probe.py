"""A hash of what a network's code computes: its outputs and gradients for given weights and inputs.

Formulas of integer arithmetic give the weights and inputs, the passes run in double precision on
the CPU, and six digits are hashed.  So the hash is the same on every machine and with every version
of torch, and changes if the code computes something else.  Passes in float32 affect it only if they
differ from double precision by more than rounding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# The rows of a probe range from values at which units saturate to values at which they are linear,
# so that a change of scale shows in some row.
SCALES = (16.0, 1.0, 1 / 16, 1 / 256)

_DIGITS = {torch.float64: 6, torch.float32: 3}
_FLOAT32 = 1e-4  # the relative difference between float32 and double precision that is allowed
_MANY, _FEW, _SMALL = 65, 9, 1024  # rows of a longer batch: many if records have <= _SMALL numbers

Forward = Callable[[nn.Module, Any], Tensor]


def behaviour(build: Callable[[], nn.Module], forward: Forward, inputs: Any, longer: Any) -> str:
    """Compute the SHA-256, in hex, of what a network does with `inputs`.

    It covers evaluation mode, training mode and gradients, the names and shapes of the state dict,
    the rates of dropout, float32, and batches of several lengths.

    Args:
        build: creates the network; its weights do not matter.
        forward: (network, inputs) -> outputs [B, ...], as in training.
        inputs: a tensor, or tensors by name; floats are converted to the precision of the probe.
        longer: a longer batch of such inputs.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), one_thread():
        dtype = torch.float64
        try:
            facts = _facts(build(), forward, inputs, dtype)
        except Exception:  # the network's code works in one precision only
            dtype = torch.float32
            facts = _facts(build(), forward, inputs, dtype)
        facts += _more_facts(build, forward, inputs, longer, dtype)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: a probe is too small to gain from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def probe_rows(shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """A record of `shape` for each of SCALES, [4, *shape]; zeros and ones for integer types."""
    values = uniform((len(SCALES), *shape), stream=1)
    if not dtype.is_floating_point:
        return (2 * values).to(dtype)
    scales = torch.tensor(SCALES, dtype=torch.float64).view(-1, *[1] * (values.ndim - 1))
    return (values - 0.5) * math.sqrt(12) * scales


def longer_rows(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A batch of many kinds of records of `shape`; it is longer if they are small."""
    return varied_rows(_MANY if math.prod(shape) <= _SMALL else _FEW, shape, dtype)


def varied_rows(count: int, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """Records of many kinds, [count, *shape]: like images, centred, large, small and zero."""
    values = uniform((count, *shape), stream=1)
    if not dtype.is_floating_point:
        return (2 * values).to(dtype)
    centred = (values - 0.5) * math.sqrt(12)
    kinds = [values, centred, values.round(), 16 * centred, 255 * values, centred / 16, 0 * values]
    return torch.stack([kinds[row % len(kinds)][row] for row in range(count)])


def uniform(shape: Iterable[int], *, stream: int) -> Tensor:
    """float64 values of `shape` in [0, 1), a hash of each element's index."""
    shape = tuple(shape)
    values = torch.arange(math.prod(shape), dtype=torch.int64) + stream * 0x9E3779B1
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        values = ((values ^ (values >> 16)) * factor) & 0xFFFFFFFF
    return ((values ^ (values >> 16)).double() / 2**32).view(shape)


def _facts(model: nn.Module, forward: Forward, inputs: Any, dtype: torch.dtype) -> list[str]:
    """The lines of text that are hashed."""
    model = model.cpu().to(dtype)
    fill(model)
    digits = _DIGITS[dtype]
    facts = [str(dtype), *(f"{n} {tuple(v.shape)}" for n, v in model.state_dict().items())]
    with torch.no_grad():
        facts += _rows(forward(model.eval(), _converted(inputs, dtype)), digits)
    model.train()
    inputs = _converted(inputs, dtype)
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        inputs.requires_grad_()
    torch.manual_seed(0)
    with Repeatable() as dropout:
        outputs = forward(model, inputs)
    facts += [*dropout.seen, *_rows(outputs, digits)]
    _weighted_sum(outputs).backward()
    grads = [(name, parameter.grad) for name, parameter in model.named_parameters()]
    grads.append(("inputs", inputs.grad if isinstance(inputs, Tensor) else None))
    facts += [f"{name} {grad is not None}" for name, grad in grads]
    buffers = [value for value in model.buffers() if value.is_floating_point()]
    moved = [*(grad for _, grad in grads if grad is not None), *buffers]
    facts.append(rounded([number for values in moved for number in summary(values)], digits))
    return facts


def _more_facts(
    build: Callable[[], nn.Module], forward: Forward, inputs: Any, longer: Any, dtype: torch.dtype
) -> list[str]:
    """Lines for a longer batch, a single row, gradients in evaluation mode, and float32."""
    digits, facts = _DIGITS[dtype], []
    outputs, grads = _passes(build, forward, inputs, longer, dtype)
    for output in outputs:
        facts += _rows(output, digits)
    facts.append(rounded([number for grad in grads for number in summary(grad)], digits))
    if dtype == torch.float64:
        singles, single_grads = _passes(build, forward, inputs, longer, torch.float32)
        for found, expected in zip(singles, outputs):
            if not all(near([a], [b], _FLOAT32) for a, b in zip(found, expected, strict=True)):
                facts += _rows(found, 2)
        if not near(single_grads, grads, _FLOAT32):
            facts.append(rounded([n for grad in single_grads for n in summary(grad)], 2))
    return facts


def _passes(
    build: Callable[[], nn.Module], forward: Forward, inputs: Any, longer: Any, dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs and gradients of a network in `dtype`."""
    model = build().cpu().to(dtype)
    fill(model)
    inputs, longer, grads = _converted(inputs, dtype), _converted(longer, dtype), []
    with torch.inference_mode():
        outputs = [forward(model.eval(), some) for some in (longer, _first_row(longer))]
    torch.manual_seed(0)
    for training in (False, True):
        with Repeatable():
            outputs.append(forward(model.train(training), inputs))
        model.zero_grad()
        _weighted_sum(outputs[-1]).backward()
        grads += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [output.detach() for output in outputs], grads


def _first_row(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: value[:1] for name, value in inputs.items()}
    return inputs[:1]


def fill(model: nn.Module, start: int = 2) -> None:
    """Set the state dict of a network to values of a formula, with a scale that suits each layer.

    Another `start` gives other values.
    """
    with torch.no_grad():
        for stream, (name, value) in enumerate(model.state_dict().items(), start=start):
            if not value.is_floating_point():
                continue
            spread = uniform(value.shape, stream=stream) - 0.5
            if value.ndim > 1:
                spread *= math.sqrt(12 * value.shape[0] / value.numel())
            elif not name.endswith(("bias", "mean")):  # gains and variances
                spread += 1
            value.copy_(spread)


def _converted(inputs: Any, dtype: torch.dtype) -> Any:
    """A copy of the inputs, floats in `dtype`."""
    if isinstance(inputs, Mapping):
        return {name: _converted(value, dtype) for name, value in inputs.items()}
    return inputs.to(dtype, copy=True) if inputs.is_floating_point() else inputs.clone()


def _weighted_sum(outputs: Tensor) -> Tensor:
    """A loss that weights every output differently, but large rows no more than others."""
    weights = uniform(outputs.shape, stream=0).to(outputs.dtype) - 0.5
    if len(outputs) == len(SCALES):
        scales = torch.tensor(SCALES).clamp(min=1).view(-1, *[1] * (outputs.ndim - 1))
        weights = weights / scales
    return (outputs * weights).sum()


def summary(values: Tensor) -> tuple[float, float]:
    """Two numbers that change with any element: the norm, and a weighted sum."""
    values = values.detach().double()
    return float(values.norm()), float((values * uniform(values.shape, stream=0)).sum())


def _rows(outputs: Tensor, digits: int) -> list[str]:
    return [
        f"{tuple(outputs.shape)}",
        *(rounded(row.flatten().tolist(), digits) for row in outputs),
    ]


def near(found: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float) -> bool:
    """Whether tensors differ from the expected ones by at most `tolerance` of their joint norm."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, expected)]
    distance: float = sum(float((a - b).norm() ** 2) for a, b in pairs) ** 0.5
    norm: float = sum(float(b.norm() ** 2) for _, b in pairs) ** 0.5
    return distance <= tolerance * norm


def rounded(values: Iterable[float], digits: int) -> str:
    """The numbers as text, rounded to `digits` digits of the largest."""
    values = list(values)
    largest = max(map(abs, values), default=0.0)
    if not all(map(math.isfinite, values)) or not largest:
        return repr(values)
    unit = float(f"{largest:.{digits - 1}e}")
    return f"{unit!r} {[round(value / unit * 10**digits) for value in values]}"


class Repeatable(TorchFunctionMode):
    """Makes random operations give the same result in every precision and build of torch.

    Dropout drops nothing; `seen` records its rate and the shape of its input.  Normal noise is
    drawn in double precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":  # (query, key, value, mask, dropout_p, ...)
            rate = kwargs.pop("dropout_p", 0.0) if len(args) < 5 else args[4]
            self.seen.append(f"{name} {rate:g} {tuple(args[0].shape)}")
            return func(*args[:4], *([0.0, *args[5:]] if len(args) > 4 else []), **kwargs)
        if "dropout" in name and name != "native_dropout":  # (input, p, training, ...)
            values = {**dict(zip(("p", "training"), args[1:])), **kwargs}
            if values.get("training", values.get("train", True)):
                self.seen.append(f"{name} {values.get('p', 0.5):g} {tuple(args[0].shape)}")
            return args[0]
        if name == "normal_" and args[0].dtype != torch.float64:
            return args[0].copy_(func(args[0].double(), *args[1:], **kwargs))
        return func(*args, **kwargs)
