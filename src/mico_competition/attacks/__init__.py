"""Attacks: arrays in, membership scores out.  One file a family; numpy only, no files, no models.

An attack is a function of arrays.  Larger score = more likely a member, everywhere, and scores
of all models of a scenario are comparable with each other: predictions are pooled when scored.
"""

from mico_competition.attacks.threshold import loss_threshold

__all__ = ["loss_threshold"]
