"""Whether trained models are whole, before anything is released of them: all faults at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mico_competition.layout import ModelFolder
from mico_competition.lengths import read_metadata
from mico_competition.nets.checkpoints import read_state
from mico_competition.progress import tracked
from mico_competition.solutions import read_solution
from mico_competition.tracks import METADATA_FILE, SEED_FILES, SOLUTION_FILE


def check_whole(models: Sequence[ModelFolder], *, progress: bool = True) -> None:
    """ValueError naming every file that is missing, empty or unreadable, of all models."""
    found = []
    for model in tracked(models, "Check", "model", show=progress):
        found += [f"  {fault}" for fault in list(_faults(model)) or _contradictions(model)]
    if found:
        raise ValueError(
            "\n".join(["Models are damaged: put back copies of them, or train them again.", *found])
        )


def _faults(model: ModelFolder) -> Iterator[str]:
    for names in (*model.task.weights, *SEED_FILES, SOLUTION_FILE, METADATA_FILE):
        paths = [model.path / n for n in names.split("|") if (model.path / n).is_file()]
        if not paths and names != METADATA_FILE:  # which models of 2022 do not have
            yield f"There is no {names.split('|')[0]} in {model.path}."
        elif paths and not paths[0].stat().st_size:
            yield f"{paths[0]} is empty."
        elif paths and names in (METADATA_FILE, model.task.weights[-1]):
            try:
                read_metadata(model.path) if names == METADATA_FILE else read_state(paths[0])
            except ValueError as error:
                yield str(error)


def _contradictions(model: ModelFolder) -> Iterator[str]:
    """Whether the files, each of which is sound, contradict each other."""
    try:
        read_solution(model.path)
    except ValueError as error:
        yield str(error)
