"""The winner of 2023: for each scenario the signal and the formula that he chose.

He chose them by their scores on the train models for which he reported results; here targets are
left out of their own shadow models, as a check of every attack ensures
(`evaluation.leakage_check`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mico_competition.attacks.scores.calibration import WINNER_2023, winner_2023
from mico_competition.competition.table import DISTINGUISHER, get_scenario
from mico_competition.signals.fleet import OWN

if TYPE_CHECKING:
    from mico_competition.attacks.problem import Problem


def winner_2023_attack(problem: Problem) -> np.ndarray:
    """float64[t, k], by the signal and the formula of the problem's scenario."""
    signal, formula = winners_choice(problem.source.fleet.scenario)
    return problem.gather(signal).score(winner_2023, formula=formula)


def winners_choice(scenario: str) -> tuple[str, str]:
    """The winner's (signal, formula) for a scenario.

    Scenarios that 2022 did not have take those of Purchase-100 with as much privacy.
    """
    if scenario in WINNER_2023:
        return WINNER_2023[scenario]
    if scenario == OWN:
        raise ValueError(
            "The winner of 2023 chose a formula for each scenario of a competition: on your own "
            "models, take one of his formulas, such as calibrate-loss-midpoint."
        )
    row = get_scenario(scenario)
    if row.disclosure == DISTINGUISHER:
        level = "ddp"
    elif not row.private:
        level = "inf"
    else:  # the nearer of 2022's two, by ratio
        level = "hi" if row.target_epsilon**2 > 10 * 4 else "lo"
    return WINNER_2023[f"purchase100_{level}"]
