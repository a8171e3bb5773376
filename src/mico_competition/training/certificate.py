"""The privacy claim of a private run, as values for JSON, and the digest of its weights."""

from __future__ import annotations

import hashlib
import math
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mico_competition.training.accounting_check import INTERVAL, pld_epsilon

if TYPE_CHECKING:
    from mico_competition.training.private_trainer import PrivateTrainer

SLACK = 0.002  # by how much the second accountant, which rounds up, may exceed 1 + epsilon
INTERVALS = [INTERVAL, INTERVAL / 4, INTERVAL / 16, INTERVAL / 64]  # of its grid
_SOFTWARE = ("mico_competition", "torch", "opacus", "transformers", "peft")


def describe_claim(trainer: PrivateTrainer, epsilon: float, delta: float) -> dict[str, Any]:
    """The certificate of a trainer: see `PrivateTrainer.certificate`."""
    second = _second_opinion(trainer, epsilon, delta)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    return {
        "claim": (
            f"The trained weights are ({epsilon:.4g}, {delta:.4g})-differentially private with "
            "respect to adding or removing one record."
        ),
        "epsilon": epsilon,
        "delta": delta,
        "neighbouring_relation": "add or remove one record",
        "mechanism": "Poisson-subsampled Gaussian, composed",
        "accountant": "PRV (Gopi, Lee and Wutschitz, 2021), an upper bound",
        "accountant_error": trainer.spent().eps_error(delta) if trainer.steps_taken else 0.0,
        "second_accountant": "PLD (dp_accounting), an upper bound",
        "second_accountant_epsilon": second,
        "noise_multiplier": trainer.noise_multiplier,
        "max_grad_norm": trainer.max_grad_norm,
        "sample_rate": trainer.sample_rate,
        "steps": trainer.steps_taken,
        "planned_steps": trainer.num_steps,
        "num_records": trainer.num_records,
        "expected_batch_size": trainer.num_records // trainer.steps_per_epoch,
        "secure_mode": trainer.secure_mode,
        "precision": trainer.precision,
        "trained_parameters": sum(p.numel() for p in trained),
        "frozen_parameters": sum(
            p.numel() for p in trainer.model.parameters() if not p.requires_grad
        ),
        "weights_sha256": weights_digest(trainer.model),
        "not_covered": (
            "Losses and other values seen during training, the choice of hyperparameters, frozen "
            "weights, and whatever else was computed from the records."
        ),
        "versions": {name: version for name in _SOFTWARE if (version := _version(name))},
    }


def _second_opinion(trainer: PrivateTrainer, epsilon: float, delta: float) -> float:
    """The epsilon by another library; ValueError if it is above the claim, or there is no claim."""
    if not math.isfinite(epsilon):
        raise ValueError(
            f"The accountant finds no finite epsilon at delta={delta} for {trainer!r}: choose "
            "another delta, still below 1 / num_records, or train with more noise."
        )
    if not trainer.steps_taken:
        return 0.0
    most, before = epsilon + SLACK * (1 + epsilon), math.inf
    for interval in INTERVALS:  # over very many steps, a coarse grid adds more than SLACK
        second = pld_epsilon(trainer.spent(), delta, value_discretization_interval=interval)
        if second <= most:
            return second
        if before - second < second - most:
            break  # a still finer grid gains less than this one did
        before = second
    raise ValueError(
        f"Two accountants disagree: epsilon is {epsilon:.4g} by PRV and {second:.4g} by PLD at "
        f"delta={delta}, so there is no certificate. Please report it."
    )


@torch.no_grad()
def weights_digest(model: nn.Module) -> str:
    """The SHA-256, in hex, of the names and values of the trained parameters."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            values = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {list(parameter.shape)} {parameter.dtype}\n".encode())
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
