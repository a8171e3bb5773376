"""Opens the signals of a challenge folder: reads its models, prepares the data, opens the cache."""

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

# What makes up a text model's architecture; those of other tasks are in `models`, not in files.
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
    """Open the signals of the models of `scenario` in a challenge folder.

    Args:
        challenge_folder: `.../purchase100`, as downloaded, released or trained.
        scenario: the scenario's name.
        data: the folder that holds the datasets, or the task's whole dataset.
        records, phases, models, knowledge: as in `read_fleet`.
        download: fetch the dataset if it is not in that folder.
        options: as in `Signals`: cache, device, runner, base_model.

    Returns:
        The signals; nothing is computed before an attack reads them.

    Raises:
        ValueError: as `read_fleet` and `Signals`; or if a text model has no tokenizer, or a
            tokenizer or an architecture that differs from those of the other models.
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
    """The sentences, tokenised by the tokenizer beside the models' weights."""
    _refuse_other_sizes(fleet.folders)
    tokenizers = {tokenizer_bytes(folder.path): folder for folder in reversed(fleet.folders)}
    first, *others = reversed(tokenizers.values())
    if others:
        raise ValueError(
            f"{first.relative_path} and {others[0].relative_path} have different tokenizers: all "
            "models must share one, so take models of one fleet."
        )
    try:
        return prepare(first.task.name, data, first.path)[0]
    except ValueError as error:
        raise ValueError(
            f"{first.relative_path} has no usable tokenizer, without which it cannot read "
            f"sentences: put that of its base model beside its weights. ({error})"
        ) from error


def _refuse_other_sizes(folders: Sequence[ModelFolder]) -> None:
    """Raise ValueError if a model's architecture is not that of the first."""
    first, *others = folders
    expected = _sizes(first)
    for folder in others:
        for name, size in _sizes(folder).items():
            if size != expected[name]:
                raise ValueError(
                    f"{first.relative_path} and {folder.relative_path} have different "
                    f"architectures ({name} {expected[name]} and {size}): shadow models must have "
                    "that of their targets, so take models of one fleet."
                )


def _sizes(folder: ModelFolder) -> dict[str, Any]:
    """The sizes that the configuration beside the weights gives, defaults included."""
    config = read_config(folder.task, folder.path)
    return {name: getattr(config, name, None) for name in _SIZES}
