"""The baseline, end to end: every model of a challenge folder, its points' losses, predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mico_competition.attacks import loss_threshold
from mico_competition.competition.layout import ModelFolder, predictions_folder, walk_challenge
from mico_competition.competition.submission import write_prediction
from mico_competition.competition.table import PHASE_NAMES
from mico_competition.models.inputs import Data, prepare
from mico_competition.models.tokenizer_files import tokenizer_bytes
from mico_competition.signals import challenge_losses
from mico_competition.support.files import PathLike

Attack = Callable[[np.ndarray], np.ndarray]
Load = Callable[[str], Any]


def attack_challenge(
    challenge_folder: PathLike,
    load: Load,
    *,
    attack: Attack = loss_threshold,
    predictions: PathLike | None = None,
    phases: Sequence[str] = PHASE_NAMES,
    scenarios: Sequence[str] | None = None,
    device: torch.device | None = None,
    progress: bool = True,
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
        progress: whether to show how far it is (see `mico_competition.support.progress`).

    Returns:
        The number of models attacked.

    Raises:
        ValueError: as `walk_challenge`; if there are no models of one of `scenarios`.
    """
    target = predictions or predictions_folder(challenge_folder)
    groups: dict[str, list[ModelFolder]] = {}
    for model in walk_challenge(challenge_folder, phases=list(phases)):
        groups.setdefault(model.scenario, []).append(model)
    chosen = list(groups) if scenarios is None else list(dict.fromkeys(scenarios))
    for name in chosen:
        if name not in groups:
            raise ValueError(f"There are no models of {name} in {challenge_folder}.")
    prepared: dict[tuple[str, Any], Data] = {}
    for models in map(groups.__getitem__, chosen):
        data = _data_of(models[0], load, prepared)
        scores = attack(challenge_losses(models, data, device=device, progress=progress))
        for model, row in zip(models, scores):
            write_prediction(model.prediction_in(target), row)
    return sum(len(groups[name]) for name in chosen)


def _data_of(model: ModelFolder, load: Load, prepared: dict[tuple[str, Any], Data]) -> Data:
    """The task's data, loaded and (for text) tokenised once for all scenarios of a task."""
    key = (model.task.name, tokenizer_bytes(model.path))
    if key not in prepared:
        tokenizer = model.path if model.task.text else None
        prepared[key] = prepare(model.task.name, load(model.task.name), tokenizer)[0]
    return prepared[key]
