"""Attacks that are trained on shadow models: networks, features of gradients, stacks (torch)."""

import numpy as np

from mico_competition.evaluation.problem import Attack, Problem
from mico_competition.learned.neural import neural as _neural
from mico_competition.learned.stack import stack as _stack
from mico_competition.learned.suri import suri as _suri
from mico_competition.learned.table import LEAST

__all__ = ["ATTACKS"]


def _query_stack(problem: Problem) -> np.ndarray:
    """The black-box stack with all its queries, the slope among them."""
    return _stack(problem, queries=("resample", "slope"))


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "neural",
        "neural network on outputs, losses and their standard scores",
        "Shokri et al. 2017; Salem et al. 2019; Nasr et al. 2019",
        _neural,
        leaves_one_out=False,
        least_shadows=LEAST,
    ),
    Attack(
        "suri",
        "gradients, neighbours and walks of the CIFAR-10 runner-up",
        "A. Suri, My submission to the MICO Challenge, 2023",
        _suri,
        leaves_one_out=False,
        white_box=True,
        least_shadows=LEAST,
    ),
    Attack(
        "stack",
        "black-box stack: all logit signals, kriging, resampled records",
        "ours (findings, 4.1 and 4.5)",
        _stack,
        leaves_one_out=False,
        least_shadows=LEAST,
    ),
    Attack(
        "query-stack",
        "the stack and the slope along the whitened record, by black-box queries",
        "ours",
        _query_stack,
        leaves_one_out=False,
        least_shadows=LEAST,
    ),
)
