"""Runs an attack on a challenge folder, as a participant does, and writes the predictions.

`attack_challenge` takes a function of each model's own losses, `attack_folder` a named attack,
which may need shadow models and any signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mico_competition.attacks import loss_threshold, to_unit
from mico_competition.attacks.problem import Attack
from mico_competition.competition.layout import ModelFolder, predictions_folder, walk_challenge
from mico_competition.competition.submission import write_prediction
from mico_competition.competition.table import DISTINGUISHER, PHASE_NAMES, get_scenario
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.evaluation.evaluate import DEFAULTS, Options, guard
from mico_competition.models.inputs import Data, prepare
from mico_competition.models.tokenizer_files import tokenizer_bytes
from mico_competition.signals import challenge_losses
from mico_competition.signals.source import Source
from mico_competition.support.files import PathLike
from mico_competition.support.progress import stage

if TYPE_CHECKING:
    import torch

Open = Callable[..., Source]  # (scenario, phases) -> signals


def attack_challenge(
    challenge_folder: PathLike,
    load: Callable[[str], Any],
    *,
    attack: Callable[[np.ndarray], np.ndarray] = loss_threshold,
    predictions: PathLike | None = None,
    phases: Sequence[str] = PHASE_NAMES,
    scenarios: Sequence[str] | None = None,
    device: torch.device | None = None,
) -> int:
    """Write the predictions of a loss attack for every model of a challenge folder.

    Args:
        challenge_folder: holds the challenge's scenarios, as downloaded or released.
        load: takes a task's name and gives its whole dataset (`load_cifar10()` and the like).
        attack: takes losses float64[models, 2m] of one scenario, gives scores in [0, 1] of the
            same shape; larger = more likely a member.
        predictions: folder to write to; by default `<challenge>.predictions` beside the folder.
        phases: phases to attack.
        scenarios: by default all that the folder holds.
        device: where models run; by default the CPU.

    Returns:
        The number of models attacked.

    Raises:
        ValueError: as `walk_challenge`; if there are no models of one of `scenarios`.
    """
    target = predictions or predictions_folder(challenge_folder)
    groups = _by_scenario(challenge_folder, scenarios, phases)
    prepared: dict[tuple[str, Any], Data] = {}
    count = sum(map(len, groups.values()))
    with stage("Attack", count, "model") as shown:
        for models in groups.values():
            data = _data_of(models[0], load, prepared)
            scores = attack(challenge_losses(models, data, device=device))
            for model, row in zip(models, scores):
                write_prediction(model.prediction_in(target), row)
            shown.update(len(models))
    return count


def _by_scenario(
    challenge_folder: PathLike,
    scenarios: Sequence[str] | None,
    phases: Sequence[str] = PHASE_NAMES,
) -> dict[str, list[ModelFolder]]:
    """The models of each scenario, of all or of `scenarios`; ValueError if one has none."""
    groups: dict[str, list[ModelFolder]] = {}
    for model in walk_challenge(challenge_folder, phases=list(phases)):
        groups.setdefault(model.scenario, []).append(model)
    for name in scenarios or ():
        if name not in groups:
            raise ValueError(f"There are no models of {name} in {challenge_folder}.")
    return groups if scenarios is None else {name: groups[name] for name in scenarios}


def _data_of(
    model: ModelFolder, load: Callable[[str], Any], prepared: dict[tuple[str, Any], Data]
) -> Data:
    """The task's data, loaded and (for text) tokenised once for all scenarios of a task."""
    key = (model.task.name, tokenizer_bytes(model.path))
    if key not in prepared:
        tokenizer = model.path if model.task.text else None
        prepared[key] = prepare(model.task.name, load(model.task.name), tokenizer)[0]
    return prepared[key]


def attack_folder(
    challenge_folder: PathLike,
    attack: Attack,
    open_source: Open,
    *,
    predictions: PathLike | None = None,
    phases: Sequence[str] = PHASE_NAMES,
    scenarios: Sequence[str] | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Write the predictions of a shadow-model attack for the models of a challenge folder.

    Dev and final models are attacked with the train models as shadows; each train model with the
    other train models, as `mico evaluate` does.  Scores of all models of a phase are mapped into
    [0, 1] by one map.

    Args:
        challenge_folder: holds the challenge's scenarios, with their train models unless the
            attack needs no shadows.
        attack: any.
        open_source: (scenario, phases) -> the signals of these models at the union of their
            challenge points; "train" is among the phases if there are train models.
        predictions: folder to write to; by default `<challenge>.predictions` beside the folder.
        phases: phases to predict; a phase without models is left out.
        scenarios: by default all scenarios in the folder.
        options: folds, and whether to run the leakage check.

    Returns:
        The number of models attacked.

    Raises:
        ValueError: if a scenario has no models, or no train models although the attack needs
            shadows; if there are no models of these phases; what the attack or the leakage check
            raises.
    """
    target = predictions or predictions_folder(challenge_folder)
    groups: dict[str, dict[str, list[ModelFolder]]] = {}
    for name, models in _by_scenario(challenge_folder, scenarios).items():
        groups[name] = {}
        for model in models:
            groups[name].setdefault(model.phase, []).append(model)
        _check(name, groups[name], attack)
    count = sum(len(models.get(phase, ())) for models in groups.values() for phase in phases)
    if not count:
        raise ValueError(f"{challenge_folder} holds no models of phases {', '.join(phases)}.")
    with stage("Attack", count, "model") as shown:
        for name in groups:
            wanted = [phase for phase in phases if phase in groups[name]]
            if not wanted:
                continue
            opened = tuple(p for p in PHASE_NAMES if p in {"train", *wanted} and p in groups[name])
            source = open_source(name, opened)
            for phase in wanted:
                rows = _predict(source, phase, attack, options)
                for model, row in zip(groups[name][phase], rows):
                    write_prediction(model.prediction_in(target), row)
                shown.update(len(rows))
    return count


def _check(scenario: str, phases: dict[str, list[ModelFolder]], attack: Attack) -> None:
    if attack.least_shadows and not phases.get("train"):
        raise ValueError(
            f"Attack {attack.name} needs the train models of {scenario}, which are its shadows: "
            "put them beside the others, or take `threshold`, which needs none."
        )


def _predict(source: Source, phase: str, attack: Attack, options: Options) -> list[np.ndarray]:
    """Predictions of all models of a phase, in their order."""
    known = get_scenario(source.fleet.scenario).disclosure == DISTINGUISHER
    task = make_task(source, phase, known=known, scored=False)
    guard(task, attack, options)
    return to_unit(run(task, attack, folds=options.folds, seed=options.seed))
