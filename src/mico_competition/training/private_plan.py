"""Checks the arguments of `PrivateTrainer`, and makes its mechanism and generators of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from mico_competition.support.counts import check_whole
from mico_competition.support.extras import install
from mico_competition.training.accounting import Mechanism
from mico_competition.training.secure_random import Generator, SecureGenerator
from mico_competition.training.streams import fresh_streams
from mico_competition.training.whole_layers import WholeLayer

LARGE_LAYER = 2**28  # numbers of per-example gradients in a physical batch, which take 1 GiB


def check_opacus() -> None:
    """Raise ImportError, with the command that helps, if Opacus is not installed."""
    if find_spec("opacus") is None:
        raise ImportError(f"PrivateTrainer needs the package opacus: {install('opacus')}")


def check_module(model: Any, optimizer: Any) -> None:
    """Raise ValueError unless these are a module and an optimizer that a trainer can use."""
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"Expected model to be a torch module, got {_kind(model)}: pass the model first, then "
            "its optimizer."
        )
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "A model of torch.compile cannot be trained privately, since its layers cannot be "
            "seen: pass the model itself."
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"Expected optimizer to be a torch optimizer, got {_kind(optimizer)}: pass one of this "
            "model's parameters, such as torch.optim.SGD(model.parameters(), lr=0.1)."
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "LBFGS computes gradients several times a step, without noise: use another optimizer."
        )
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError(f"Model {type(model).__name__} has no parameters to train.")
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(
                f"Parameter {name} has no shape yet: call the model once, then make the optimizer "
                "and the trainer."
            )


def _kind(value: Any) -> str:
    """What a value is, for messages: its type, or the class itself."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_number(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"Expected {name} to be a number, got {value!r}.")


def check_seed(seed: Any, secure_mode: bool) -> None:
    """Raise ValueError unless the seed is a whole number, or None as in secure mode."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise ValueError(f"Expected seed to be a whole number or None, got {type(seed).__name__}.")
    if not isinstance(secure_mode, bool):
        raise ValueError(f"Expected secure_mode to be True or False, got {secure_mode!r}.")
    if secure_mode and seed is not None:
        raise ValueError("A run in secure_mode cannot be repeated: leave out seed.")


def claimed_delta(delta: float | None) -> float:
    """The delta of a claim; ValueError unless it is in (0, 1)."""
    if delta is None:
        raise ValueError(
            "Expected delta in (0, 1), such as epsilon(delta=1e-5), since the trainer has no "
            "target_delta."
        )
    check_number("delta", delta)
    if not 0 < delta < 1:
        raise ValueError(f"Expected delta={delta} in (0, 1).")
    return delta


def warn_of_delta(delta: float, num_records: int) -> None:
    """Warn if delta permits that a whole record is published."""
    if delta >= 1 / num_records:
        warnings.warn(
            f"delta={delta} is not below 1 / num_records = {1 / num_records:.2g}, and so permits "
            "to publish a record as it is: choose a delta well below.",
            stacklevel=4,
        )


def warn_of_cost(layers: Iterable[WholeLayer], rows: int) -> None:
    """Warn of layers whose per-example gradients take much memory in a physical batch."""
    for whole in layers:
        if whole.numbers * rows > LARGE_LAYER:
            warnings.warn(
                f"Layer {whole.name or 'model'} ({type(whole.module).__name__}) has no formula "
                f"for per-example gradients: it {whole.cost}. Lower "
                f"max_physical_batch_size={rows}, or freeze the layer.",
                stacklevel=4,
            )


def held_by(optimizer: torch.optim.Optimizer) -> list[int]:
    """The identities of an optimizer's parameters."""
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


def check_surroundings(
    optimizer: torch.optim.Optimizer, held: list[int], device: torch.device
) -> None:
    """Raise ValueError if a step here and now would not be the step that was checked."""
    if held_by(optimizer) != held:
        raise ValueError(
            "The optimizer got or lost parameters after the trainer was made: give it all of "
            "them first, then make the trainer."
        )
    if not torch.is_grad_enabled():
        raise ValueError(
            "A private step computes gradients: call step outside of torch.no_grad() and "
            "torch.inference_mode()."
        )
    if torch.is_autocast_enabled(device.type):
        raise ValueError(
            "Private steps under torch.autocast are not supported, since gradients would be "
            "clipped in low precision: call step outside of autocast, and give the trainer "
            "precision='bfloat16'."
        )


def checked_counts(
    num_records: int, batch_size: int, epochs: int, physical: int
) -> tuple[int, int, int, int]:
    """The four as int; ValueError unless all are whole numbers in range."""
    counts: dict[str, Any] = {
        "num_records": num_records,
        "batch_size": batch_size,
        "epochs": epochs,
        "max_physical_batch_size": physical,
    }
    for name, value in counts.items():
        check_whole(name, value, least=1)
    if batch_size > num_records:
        raise ValueError(
            f"Expected batch_size={batch_size} <= num_records={num_records}, the number of records "
            "to train on."
        )
    return int(num_records), int(batch_size), int(epochs), int(physical)


def planned_mechanism(
    noise_multiplier: float | None,
    target_epsilon: float | None,
    target_delta: float | None,
    *,
    sample_rate: float,
    num_steps: int,
) -> Mechanism:
    """The mechanism of the whole run, by its noise or by its target."""
    if (noise_multiplier is None) == (target_epsilon is None):
        raise ValueError(
            "Expected one of target_epsilon and noise_multiplier, got "
            f"target_epsilon={target_epsilon} and noise_multiplier={noise_multiplier}."
        )
    given = {
        "noise_multiplier": noise_multiplier,
        "target_epsilon": target_epsilon,
        "target_delta": target_delta,
    }
    for name, value in given.items():
        if value is not None:
            check_number(name, value)
    if noise_multiplier == math.inf:
        raise ValueError("Expected noise_multiplier=inf to be finite: no training survives it.")
    if target_delta is not None and not 0 < target_delta < 1:
        raise ValueError(f"Expected target_delta={target_delta} in (0, 1).")
    if noise_multiplier is not None:
        return Mechanism(noise_multiplier, sample_rate, num_steps)
    if target_delta is None:
        raise ValueError("target_epsilon needs target_delta: choose it below 1 / num_records.")
    assert target_epsilon is not None
    return Mechanism.for_target(
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        sample_rate=sample_rate,
        num_steps=num_steps,
    )


def generators_of(
    seed: int | None, secure_mode: bool, device: torch.device
) -> tuple[Generator, Generator]:
    """The generators of the noise, on the model's device, and of batches, on the CPU."""
    if secure_mode:
        return SecureGenerator(device), SecureGenerator()
    noise, sampling = fresh_streams(seed)
    return torch.Generator(device).manual_seed(noise), torch.Generator().manual_seed(sampling)
