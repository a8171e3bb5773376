"""Checks that trained models are complete and undamaged before a release, listing all faults."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import METADATA_FILE, SEED_FILES, SOLUTION_FILE
from mico_competition.models.checkpoints import read_state
from mico_competition.support.progress import tracked


def check_whole(models: Sequence[ModelFolder]) -> None:
    """Raise ValueError with all files of all models that are missing, empty or unreadable."""
    found: list[str] = []
    seen: dict[str, ModelFolder] = {}
    for model in tracked(models, "Check", "model"):
        found += [f"  {fault}" for fault in list(_faults(model, seen)) or _contradictions(model)]
    if found:
        raise ValueError(
            "\n".join(["Models are damaged: put back copies of them, or train them again.", *found])
        )


def constant_weight(state: Mapping[str, Tensor]) -> str | None:
    """Describe a weight matrix with one constant value, which training cannot have produced.

    Only tensors named "weight" are checked, because a buffer such as a mask may be constant.
    """
    for name, value in state.items():
        weight = name.rpartition(".")[2] == "weight" and value.is_floating_point()
        if weight and value.ndim > 1 and len(value) > 1:
            first = value.flatten()[0]
            if (value == first).all():
                return f"all {value.numel()} values of {name} are {float(first):g}"
    return None


def _faults(model: ModelFolder, seen: dict[str, ModelFolder]) -> Iterator[str]:
    for names in (*model.task.weights, *SEED_FILES, SOLUTION_FILE, METADATA_FILE):
        paths = [model.path / n for n in names.split("|") if (model.path / n).is_file()]
        if not paths and names != METADATA_FILE:  # models of 2022 have no metadata
            yield f"There is no {names.split('|')[0]} in {model.path}."
        elif paths and not paths[0].stat().st_size:
            yield f"{paths[0]} is empty."
        elif paths and names in (METADATA_FILE, model.task.weights[-1]):
            try:
                if names == METADATA_FILE:
                    read_metadata(model.path)
                else:
                    yield from _faults_of_weights(model, read_state(paths[0]), paths[0], seen)
            except ValueError as error:
                yield str(error)


def _faults_of_weights(
    model: ModelFolder, state: Mapping[str, Tensor], path: Path, seen: dict[str, ModelFolder]
) -> Iterator[str]:
    """Weights that are not finite, are constant, or are those of another model in `seen`."""
    if not all(value.isfinite().all() for value in state.values()):
        yield f"{path} has weights that are not finite."
    constant = constant_weight(state)
    if constant is not None:
        yield f"{path} holds no trained model: {constant}."
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)};".encode())
        digest.update(value.detach().float().contiguous().numpy().data)
    other = seen.setdefault(digest.hexdigest(), model)
    if other is not model:
        yield f"{path} has the same weights as {other.path}: one of them is a copy."


def _contradictions(model: ModelFolder) -> Iterator[str]:
    """Contradictions between files that are valid by themselves."""
    try:
        read_solution(model.path)
    except ValueError as error:
        yield str(error)
