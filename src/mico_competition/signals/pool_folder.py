"""Opens a challenge folder for a pool: signals of the challenge points, and of all records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.table import DISTINGUISHER, get_scenario
from mico_competition.data.datasets import load_dataset
from mico_competition.signals.fleet import KNOWLEDGE
from mico_competition.signals.open_signals import open_signals
from mico_competition.signals.signals import Signals
from mico_competition.support.files import PathLike


def open_folder(
    folder: PathLike,
    scenario: str | None,
    dataset_dir: Any,
    *,
    records: np.ndarray | str,
    knowledge: str | None,
    download: bool,
    **options: Any,
) -> dict[str, Any]:
    """What a pool of a scenario is made of: its signals, and how they are opened at all records.

    Args:
        folder, scenario, dataset_dir, records, knowledge, download: as in `ModelPool.open`.
        options: of `open_signals`.

    Returns:
        The arguments of `ModelPool`.

    Raises:
        ValueError: if there is no such folder or scenario; as `open_signals`.
    """
    if not Path(folder).is_dir():
        raise ValueError(
            f"There is no folder {folder}: pass that of a challenge, such as purchase100."
        )
    if scenario is None:
        scenario = _only_scenario(folder)
    task = get_scenario(scenario).task
    data = dataset_dir
    if isinstance(dataset_dir, (str, Path)):
        data = load_dataset(task, dataset_dir, download)

    def at(chosen: np.ndarray | str) -> Signals:
        return open_signals(folder, scenario, data, records=chosen, knowledge=knowledge, **options)

    source = at(records)
    disclosed = KNOWLEDGE[knowledge] if knowledge else get_scenario(scenario).disclosure
    return {
        "source": source,
        "holds": "models",
        "wide": lambda: at("all"),
        "knows_training_sets": disclosed == DISTINGUISHER,
    }


def _only_scenario(folder: PathLike) -> str:
    there = sorted({model.scenario for model in walk_challenge(folder)})
    if len(there) != 1:
        names = ", ".join(there) or "none"
        raise ValueError(f"Expected scenario to name one of those in {folder}: {names}.")
    return there[0]
