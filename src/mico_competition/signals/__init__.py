"""Models x points -> arrays: what attacks work on (torch; the slow half of an attack)."""

from mico_competition.signals.fleet import HIDDEN, MEMBER, NONMEMBER, Fleet, read_fleet, truth
from mico_competition.signals.forward import challenge_losses, losses

__all__ = [
    "HIDDEN",
    "MEMBER",
    "NONMEMBER",
    "Fleet",
    "challenge_losses",
    "losses",
    "read_fleet",
    "truth",
]
