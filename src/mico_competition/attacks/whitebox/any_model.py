"""The white-box attack on any model: the decoder of MLPs if possible, else that of all layers."""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.problem import Problem
from mico_competition.attacks.whitebox.layers.attack import best_layers
from mico_competition.attacks.whitebox.mlp.mlp_layers import linear_pair
from mico_competition.attacks.whitebox.mlp.pipeline import best


def whitebox(problem: Problem) -> np.ndarray:
    """float64[t, k], log odds of membership.

    Raises:
        ValueError: as `best` of MLPs, as `best_layers` of other models.
    """
    model = problem.source.load(int(problem.shadows[0]))
    return best(problem) if linear_pair(model) is not None else best_layers(problem)
