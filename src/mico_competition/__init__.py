"""Membership inference attacks and differential privacy, measured against each other.

The names below are the package's own; each is imported at its first use, so that
`import mico_competition` and `mico --help` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Three lists of the same names: this one for type checkers and editors, `__all__` and `_HOME`.
# tests/test_public_api.py holds them equal.
if TYPE_CHECKING:
    from mico_competition.attacks.catalogue import list_attacks
    from mico_competition.attacks.scores.lira import lira
    from mico_competition.attacks.scores.rmia import rmia
    from mico_competition.audit.claims import PrivacyClaim
    from mico_competition.audit.epsilon_bounds import EpsilonBounds, epsilon_bounds
    from mico_competition.audit.limits import tpr_limit
    from mico_competition.audit.own_trainer import TrainerAudit, audit_trainer
    from mico_competition.competition.challenge import ChallengeDataset
    from mico_competition.data.datasets import (
        load_cifar10,
        load_digits,
        load_purchase100,
        load_sst2,
    )
    from mico_competition.evaluation.attack_result import AttackResult
    from mico_competition.evaluation.front_door import attack, evaluate
    from mico_competition.evaluation.results import Results
    from mico_competition.models.architectures import CNN, MLP, load_model
    from mico_competition.scoring.metrics import score
    from mico_competition.shadows.train_shadows import train_shadows
    from mico_competition.signals.pool import ModelPool
    from mico_competition.training.accounting import Mechanism
    from mico_competition.training.private_trainer import PrivateTrainer

__version__ = "0.1.0"

__all__ = [
    "AttackResult",
    "CNN",
    "ChallengeDataset",
    "EpsilonBounds",
    "MLP",
    "Mechanism",
    "ModelPool",
    "PrivacyClaim",
    "PrivateTrainer",
    "Results",
    "TrainerAudit",
    "attack",
    "audit_trainer",
    "epsilon_bounds",
    "evaluate",
    "lira",
    "list_attacks",
    "load_cifar10",
    "load_digits",
    "load_model",
    "load_purchase100",
    "load_sst2",
    "rmia",
    "score",
    "tpr_limit",
    "train_shadows",
]

_HOME = {
    "AttackResult": "evaluation.attack_result",
    "CNN": "models.architectures",
    "ChallengeDataset": "competition.challenge",
    "EpsilonBounds": "audit.epsilon_bounds",
    "MLP": "models.architectures",
    "Mechanism": "training.accounting",
    "ModelPool": "signals.pool",
    "PrivacyClaim": "audit.claims",
    "PrivateTrainer": "training.private_trainer",
    "Results": "evaluation.results",
    "TrainerAudit": "audit.own_trainer",
    "attack": "evaluation.front_door",
    "audit_trainer": "audit.own_trainer",
    "epsilon_bounds": "audit.epsilon_bounds",
    "evaluate": "evaluation.front_door",
    "lira": "attacks.scores.lira",
    "list_attacks": "attacks.catalogue",
    "load_cifar10": "data.datasets",
    "load_digits": "data.datasets",
    "load_model": "models.architectures",
    "load_purchase100": "data.datasets",
    "load_sst2": "data.datasets",
    "rmia": "attacks.scores.rmia",
    "score": "scoring.metrics",
    "tpr_limit": "audit.limits",
    "train_shadows": "shadows.train_shadows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
