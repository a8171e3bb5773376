"""Attacks: arrays in, membership scores out.  One file a family; numpy only, no files, no models.

An attack is a function of arrays.  Larger score = more likely a member, everywhere, and scores
of all models of a scenario are comparable with each other: predictions are pooled when scored.
"""

from mico_competition.attacks.scores.bavaria import bavaria
from mico_competition.attacks.scores.calibration import WINNER_2023, calibrate, winner_2023
from mico_competition.attacks.scores.empirical_bayes import eb_likelihood_ratio
from mico_competition.attacks.scores.entropy import negative_entropy, negative_modified_entropy
from mico_competition.attacks.scores.first_principles import first_principles
from mico_competition.attacks.scores.lira import lira, lira_multivariate
from mico_competition.attacks.scores.quantile import quantile_regression
from mico_competition.attacks.scores.reference import out_reference, reference_difference
from mico_competition.attacks.scores.rmia import rmia
from mico_competition.attacks.scores.threshold import loss_threshold
from mico_competition.attacks.to_unit import to_unit

__all__ = [
    "WINNER_2023",
    "bavaria",
    "calibrate",
    "eb_likelihood_ratio",
    "first_principles",
    "lira",
    "lira_multivariate",
    "loss_threshold",
    "negative_entropy",
    "negative_modified_entropy",
    "out_reference",
    "quantile_regression",
    "reference_difference",
    "rmia",
    "to_unit",
    "winner_2023",
]
