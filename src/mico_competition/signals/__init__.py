"""Signals: what each model outputs at each record, as arrays for attacks; cached on disk."""

from mico_competition.signals.fleet import HIDDEN, MEMBER, NONMEMBER, Fleet, read_fleet, truth
from mico_competition.signals.forward import challenge_losses, losses
from mico_competition.signals.open_signals import open_signals
from mico_competition.signals.signals import SIGNALS, Signals

__all__ = [
    "HIDDEN",
    "MEMBER",
    "NONMEMBER",
    "SIGNALS",
    "Fleet",
    "Signals",
    "challenge_losses",
    "losses",
    "open_signals",
    "read_fleet",
    "truth",
]
