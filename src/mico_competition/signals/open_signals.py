"""From a challenge folder to signals: reads the fleet, prepares the data, opens the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.table import PHASE_NAMES, get_scenario
from mico_competition.data.arrays import TextDataset
from mico_competition.data.datasets import load_dataset
from mico_competition.models.inputs import prepare
from mico_competition.models.text_models import read_config
from mico_competition.models.tokenizer_files import tokenizer_bytes
from mico_competition.signals.fleet import Fleet, read_fleet
from mico_competition.signals.signals import Signals
from mico_competition.support.files import PathLike

# What a text model's folder says of its architecture; another task's is in `models`, not in files.
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
)


def open_signals(
    challenge_folder: PathLike,
    scenario: str,
    data: Any = ".",
    *,
    records: np.ndarray | str = "challenge",
    phases: Sequence[str] = PHASE_NAMES,
    models: Sequence[int] | None = None,
    knowledge: str | None = None,
    download: bool = False,
    **options: Any,
) -> Signals:
    """Signals of the models of `scenario` below a challenge folder.

    Args:
        challenge_folder: `.../purchase100`, as downloaded, released or trained.
        scenario: its name.
        data: the folder that datasets are in, or the task's whole dataset.
        records, phases, models, knowledge: as in `read_fleet`.
        download: fetch the dataset if it is not there.
        options: as in `Signals`: cache, device, progress, runner.

    Raises:
        ValueError: as `read_fleet` and `Signals`; or if a text model has no tokenizer, or
            another one than the rest, or is of another size.
    """
    task = get_scenario(scenario).task
    if isinstance(data, (str, Path)):
        data = load_dataset(task, data, download)
    fleet = read_fleet(
        challenge_folder,
        scenario,
        data,
        records=records,
        phases=phases,
        models=models,
        knowledge=knowledge,
    )
    if isinstance(data, TextDataset):
        data = _tokenised(fleet, data)
    return Signals(fleet, data, **options)


def _tokenised(fleet: Fleet, data: TextDataset) -> Any:
    """Sentences as the fleet's models take them, by the tokenizer beside their weights."""
    _refuse_other_sizes(fleet.folders)
    found = {tokenizer_bytes(folder.path): folder for folder in reversed(fleet.folders)}
    first, *others = reversed(found.values())
    if others:
        raise ValueError(
            f"{first.place} and {others[0].place} have different tokenizers: signals are of one, "
            "so take models of one fleet."
        )
    try:
        return prepare(first.task.name, data, first.path)[0]
    except ValueError as error:
        raise ValueError(
            f"{first.place} has no tokenizer of use, and sentences cannot be read without: put "
            f"that of its base model beside its weights. ({error})"
        ) from error


def _refuse_other_sizes(folders: Sequence[ModelFolder]) -> None:
    """ValueError if the models are not all of the first one's architecture."""
    first, *others = folders
    expected = _sizes(first)
    for folder in others:
        for name, size in _sizes(folder).items():
            if size != expected[name]:
                raise ValueError(
                    f"{first.place} and {folder.place} are of different architectures ({name} "
                    f"{expected[name]} and {size}): shadow models must be as their targets are, "
                    "so take models of one fleet."
                )


def _sizes(folder: ModelFolder) -> dict[str, Any]:
    """By the configuration beside the weights, with what it leaves out at its default."""
    config = read_config(folder.task, folder.path)
    return {name: getattr(config, name, None) for name in _SIZES}
