"""Checks the arguments of `PrivateTrainer`, and makes its mechanism and generators of them."""

from __future__ import annotations

import torch

from mico_competition.training.accounting import Mechanism
from mico_competition.training.dpsgd import Generator
from mico_competition.training.secure_random import SecureGenerator
from mico_competition.training.streams import fresh_streams


def check_counts(num_records: int, batch_size: int, epochs: int, physical: int) -> None:
    """Raise ValueError unless all are whole numbers in range."""
    counts = {
        "num_records": num_records,
        "batch_size": batch_size,
        "epochs": epochs,
        "max_physical_batch_size": physical,
    }
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"Expected {name}={value!r} to be a whole number of at least 1.")
    if batch_size > num_records:
        raise ValueError(f"Expected batch_size={batch_size} <= num_records={num_records}.")


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
