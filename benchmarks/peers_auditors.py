"""The auditors among the peers, and this package: each is called in its own environment.

A bound takes truth and scores of one run and gives a lower bound on epsilon.  Every package is
called with its defaults; what differs from them is said beside the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

DELTA, LEVEL = 1e-5, 0.95
Arrays = dict[str, np.ndarray]
Bound = Callable[[np.ndarray, np.ndarray], float]


def ours(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """This package."""
    from mico_competition.attacks import lira, loss_threshold, rmia
    from mico_competition.audit.gaussian import gaussian_bound
    from mico_competition.audit.one_run import one_run_bound
    from mico_competition.audit.one_run_fdp import one_run_fdp_bound
    from mico_competition.audit.threshold import threshold_bound

    def bound(function: Any) -> Bound:
        return lambda truth, scores: function(truth, scores, delta=DELTA, level=LEVEL).epsilon

    logit = a["target_logit"], a["shadow_logit"], a["member"]
    attacks = {
        "loss": lambda: {"loss": loss_threshold(-np.log(a["target_p"]))},
        "LiRA online": lambda: {"LiRA online": lira(*logit)},
        "LiRA offline": lambda: {"LiRA offline": lira(*logit, online=False)},
        "RMIA online": lambda: {"RMIA online": rmia(a["target_p"], a["shadow_p"], a["member"])},
    }
    bounds = {
        "threshold (Clopper-Pearson)": bound(threshold_bound),
        "one-run": bound(one_run_bound),
        "one-run f-DP": bound(one_run_fdp_bound),
        "Gaussian": bound(gaussian_bound),
    }
    return attacks, bounds


def jax_privacy(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """Lower bounds of jax_privacy.auditing."""
    from jax_privacy.auditing import CanaryScoreAuditor

    def bound(name: str) -> Bound:
        def found(truth: np.ndarray, scores: np.ndarray) -> float:
            auditor = CanaryScoreAuditor(scores[truth], scores[~truth])
            return float(getattr(auditor, name)(significance=1 - LEVEL, delta=DELTA))

        return found

    return {}, {
        "threshold (Clopper-Pearson)": bound("epsilon_clopper_pearson"),
        "one-run": bound("epsilon_one_run"),
        "one-run f-DP": bound("epsilon_one_run_fdp"),
        "Gaussian": bound("epsilon_from_gdp"),
    }


def opake(a: Arrays) -> tuple[dict[str, Any], dict[str, Bound]]:
    """Lower bounds of opake.auditing, from one run."""
    from opake.auditing import canary_scores, one_run
    from opake.auditing.types import CoinFlip

    def estimate(truth: np.ndarray, scores: np.ndarray) -> Any:
        every = np.arange(truth.size)
        coins = CoinFlip(truth.size, every, truth, every[truth], every[~truth], truth.size)
        return one_run(canary_scores(scores, canary_indices=every), coin_flip=coins)

    def plain(truth: np.ndarray, scores: np.ndarray) -> float:
        found = estimate(truth, scores).eps_delta()
        return float(found.epsilon_at(delta=DELTA, significance=1 - LEVEL))

    def gaussian(truth: np.ndarray, scores: np.ndarray) -> float:
        """Its default bound, on the coarsest grid that it takes: the default takes 8 seconds."""
        found = estimate(truth, scores).gdp(grid_size=1000)
        return float(found.epsilon_at(delta=DELTA, significance=1 - LEVEL))

    return {}, {"one-run": plain, "one-run f-DP": gaussian}
