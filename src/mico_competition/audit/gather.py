"""Scores to audit: from prediction files, or from an attack that runs without the audited labels.

A one-run bound needs guesses that do not depend on the guessed labels. Leaving one model out at a
time is not enough: each model's labels then help to attack all others, and two guesses that use
each other's labels are right or wrong together. So dev models are attacked with the train models,
and where there are none, one half of the train models is attacked with the other.
"""

from __future__ import annotations

import numpy as np

from mico_competition.attacks.problem import Attack
from mico_competition.audit.claims import claim_of
from mico_competition.audit.verdict import Scored
from mico_competition.competition.layout import challenge_folder_of
from mico_competition.competition.submission import read_phase
from mico_competition.competition.table import DISTINGUISHER, get_scenario
from mico_competition.evaluation.cross_fitting import holdout, make_task, run
from mico_competition.evaluation.custom import answer
from mico_competition.signals.source import Source
from mico_competition.support.files import PathLike


def scored_predictions(
    challenge_folder: PathLike, predictions: PathLike | None, *, phase: str
) -> list[Scored]:
    """The predictions of a phase whose solutions are in the challenge folder, by scenario.

    The caller must know that they were made without these solutions.

    Raises:
        ValueError: as `submission.read_phase`; as `claim_of`.
    """
    solutions, values = read_phase(challenge_folder, predictions, phase=phase)
    root = challenge_folder_of(challenge_folder).parent
    scenarios: dict[str, list[str]] = {}
    for folder in solutions:
        scenarios.setdefault(folder.split("/")[1], []).append(folder)
    claims = {
        name: claim_of([root / folder for folder in folders]) for name, folders in scenarios.items()
    }
    return [
        Scored(
            name,
            phase,
            "predictions",
            [np.asarray(solutions[folder]) == 1 for folder in folders],
            [np.asarray(values[folder], dtype=np.float64) for folder in folders],
            claims[name].claim,
            claims[name].source,
        )
        for name, folders in scenarios.items()
    ]


def scored_attack(source: Source, attack: Attack, *, seed: int = 0) -> Scored:
    """Run an attack that does not see the labels of the audited challenge points.

    Args:
        source: signals of one scenario's train models, and of its dev models if their seeds are
            available.
        attack: any attack.
        seed: for the halves, if there are train models only.

    Raises:
        ValueError: with fewer than four train models and no others; as `claim_of`; what the
            attack raises.
    """
    fleet = source.fleet
    phase = "dev" if len(fleet.rows("dev")) else "train"
    known = get_scenario(fleet.scenario).disclosure == DISTINGUISHER
    task = make_task(source, phase, known=known)
    if phase == "dev":
        places, scores = np.arange(len(task.targets)), run(task, attack)
    else:
        places, problem = holdout(task, seed=seed)
        scores = answer(attack, problem)
    claim = claim_of([fleet.folders[row].path for row in task.targets[places]])
    return Scored(
        fleet.scenario,
        phase,
        attack.name,
        list(task.truth[places]),
        list(scores),
        claim.claim,
        claim.source,
    )
