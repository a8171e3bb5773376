"""Attacks: functions from signals of models to membership scores.

The names below are functions of arrays, for your own attacks; each is imported at its first use.
The built-in attacks of the command line are in `attacks.registry`. Larger score = more likely a
member, everywhere, and scores of all models of a scenario are comparable with each other:
predictions are pooled when scored.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mico_competition.attacks.scores.bavaria import bavaria
    from mico_competition.attacks.scores.calibration import WINNER_2023, calibrate, winner_2023
    from mico_competition.attacks.scores.empirical_bayes import eb_likelihood_ratio
    from mico_competition.attacks.scores.lira import lira, lira_multivariate
    from mico_competition.attacks.scores.quantile import quantile_regression
    from mico_competition.attacks.scores.reference import out_reference
    from mico_competition.attacks.scores.rmia import rmia
    from mico_competition.attacks.scores.threshold import loss_threshold
    from mico_competition.attacks.unit_interval import to_unit
    from mico_competition.attacks.winners.first_principles import first_principles

__all__ = [
    "WINNER_2023",
    "bavaria",
    "calibrate",
    "eb_likelihood_ratio",
    "first_principles",
    "lira",
    "lira_multivariate",
    "loss_threshold",
    "out_reference",
    "quantile_regression",
    "rmia",
    "to_unit",
    "winner_2023",
]

_HOME = {
    "WINNER_2023": "mico_competition.attacks.scores.calibration",
    "bavaria": "mico_competition.attacks.scores.bavaria",
    "calibrate": "mico_competition.attacks.scores.calibration",
    "eb_likelihood_ratio": "mico_competition.attacks.scores.empirical_bayes",
    "first_principles": "mico_competition.attacks.winners.first_principles",
    "lira": "mico_competition.attacks.scores.lira",
    "lira_multivariate": "mico_competition.attacks.scores.lira",
    "loss_threshold": "mico_competition.attacks.scores.threshold",
    "out_reference": "mico_competition.attacks.scores.reference",
    "quantile_regression": "mico_competition.attacks.scores.quantile",
    "rmia": "mico_competition.attacks.scores.rmia",
    "to_unit": "mico_competition.attacks.unit_interval",
    "winner_2023": "mico_competition.attacks.scores.calibration",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
