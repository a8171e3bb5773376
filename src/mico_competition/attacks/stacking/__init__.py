"""Attacks that are trained on shadow models: networks, features of gradients, stacks (torch)."""

import numpy as np

from mico_competition.attacks.problem import Attack, Problem
from mico_competition.attacks.stacking.neural import neural as _neural
from mico_competition.attacks.stacking.stacking import stack as _stack
from mico_competition.attacks.winners.suri import suri as _suri

__all__ = ["ATTACKS"]


def _query_stack(problem: Problem) -> np.ndarray:
    """The black-box stack with all its queries, the slope among them."""
    return _stack(problem, queries=("resample", "slope"))


ATTACKS: tuple[Attack, ...] = (
    Attack.named("neural", _neural),
    Attack.named("suri", _suri),
    Attack.named("stack", _stack),
    Attack.named("query-stack", _query_stack),
)
