"""What participants may see of trained models: a whitelist from the table, never "all but".

Also what the scoring program needs: the tree of one phase's solutions, which stays at home.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mico_competition.layout import ModelFolder, PathLike, walk_challenge, write_text, written_aside
from mico_competition.lengths import read_metadata
from mico_competition.tracks import (
    METADATA_FILE,
    SOLUTION_FILE,
    disclosed_files,
    get_challenge,
    get_phase,
    get_scenario,
)

NOT_TRAINED = "name the folder that `mico train --output_dir` was given."

# Keys of metadata.json that are the same for every model of a scenario, and so tell nothing
# of one.  Results are not among them: they are computed from what a model was (not) trained on.
PUBLIC_METADATA = (
    "format",
    "scenario",
    "task",
    "len_dataset",
    "len_training",
    "len_challenge",
    "settings",
    "privacy",
    "sampler",
)


def release(root: PathLike, challenge: str, to: PathLike) -> int:
    """Write the participants' tree of `challenge`; gives the number of models.

    Args:
        root: holds `<challenge>/<scenario>/<phase>/model_<i>`, as training wrote them.
        challenge: name of the challenge.
        to: folder that `<challenge>/...` is made in; it must not have that folder yet.

    Raises:
        ValueError: if a model lacks a file that participants are to get, or the place is taken.
    """
    get_challenge(challenge)
    destination = _free(Path(to) / challenge)
    models = walk_challenge(Path(root) / challenge, mend=NOT_TRAINED)
    with written_aside(destination) as aside:
        for model in models:
            _release_model(model, aside / model.place)
    return len(models)


def write_reference(root: PathLike, challenge: str, phase: str, to: PathLike) -> int:
    """Write the scoring program's `ref` tree: the solutions of one phase; gives their number."""
    destination = _free(Path(to) / challenge)
    models = walk_challenge(
        Path(root) / challenge, phases=[get_phase(phase).name], mend=NOT_TRAINED
    )
    with written_aside(destination) as aside:
        for model in models:
            _copy(model, SOLUTION_FILE, aside / model.place)
    return len(models)


def _free(path: Path) -> Path:
    if path.exists():
        raise ValueError(f"{path} exists already: remove it or choose another folder.")
    return path


def _release_model(model: ModelFolder, folder: Path) -> None:
    scenario = get_scenario(model.scenario)
    for name in (*_weights(model), *disclosed_files(scenario, model.phase)):
        _copy(model, name, folder)
    metadata = public_metadata(read_metadata(model.path))
    if metadata:
        write_text(folder / METADATA_FILE, json.dumps(metadata, indent=2) + "\n")


def public_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """The part of a model's metadata that says nothing of its own members."""
    return {name: metadata[name] for name in PUBLIC_METADATA if name in metadata}


def _weights(model: ModelFolder) -> list[str]:
    """The files that hold the model; of alternatives ("a|b"), the first that is there."""
    found = []
    for alternatives in model.task.weights:
        names = alternatives.split("|")
        found.append(next((n for n in names if (model.path / n).is_file()), names[0]))
    return found + [name for name in model.task.companions if (model.path / name).is_file()]


def _copy(model: ModelFolder, name: str, folder: Path) -> None:
    if not (model.path / name).is_file():
        raise ValueError(f"There is no {name} in {model.path}: train the model again.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.path / name, folder / name)
