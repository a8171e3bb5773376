"""The former home of `mico_competition.attacks.problem`, which older attack files import."""

from mico_competition.attacks.problem import Attack, Gathered, Problem
from mico_competition.signals.source import Source

__all__ = ["Attack", "Gathered", "Problem", "Source"]
