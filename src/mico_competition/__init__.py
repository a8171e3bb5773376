"""Membership inference attacks and differential privacy, measured against each other.

The names below are those that participants use; each is imported at its first use, so that
`import mico_competition` and `mico --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mico_competition.competition.challenge import ChallengeDataset
    from mico_competition.data.datasets import (
        load_cifar10,
        load_digits,
        load_purchase100,
        load_sst2,
    )
    from mico_competition.models.architectures import CNN, MLP, load_model

__version__ = "0.1.0"

__all__ = [
    "CNN",
    "ChallengeDataset",
    "MLP",
    "load_cifar10",
    "load_digits",
    "load_model",
    "load_purchase100",
    "load_sst2",
]

_HOME = {
    "CNN": "models.architectures",
    "MLP": "models.architectures",
    "ChallengeDataset": "competition.challenge",
    "load_cifar10": "data.datasets",
    "load_digits": "data.datasets",
    "load_model": "models.architectures",
    "load_purchase100": "data.datasets",
    "load_sst2": "data.datasets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
