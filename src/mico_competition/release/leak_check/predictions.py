"""Whether `<challenge>.predictions/`, beside a release, holds predictions and nothing else.

It is no part of a release, and no command publishes it; but it lies where a release is copied
from.  Numbers have room for whatever somebody hides in them: that they are predictions of an
attack cannot be checked, only that they are numbers, and not the truth itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import PREDICTION_FILE
from mico_competition.scoring.reading import read_values

Fault = tuple[str, str]


def predictions_faults(
    root: Path, challenge: str, models: Mapping[str, ModelFolder], hiding: Collection[str]
) -> Iterator[Fault]:
    """What is there beside predictions, and predictions that are the truth; paths and sentences.

    Args:
        root: holds the released challenge.
        challenge: its name.
        models: place -> trained model.
        hiding: places of models whose labels are withheld.
    """
    top = root / f"{challenge}.predictions"
    files = {f"{place}/{PREDICTION_FILE}": place for place in models}
    folders = {"/".join(place.split("/")[:depth]) for place in models for depth in (1, 2, 3)}
    if top.is_symlink():
        yield top.name, "is a link"
        return
    for parent, subfolders, names in os.walk(top):
        for path in (Path(parent, name) for name in sorted((*subfolders, *names))):
            place = path.relative_to(top).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) and place in folders:
                continue
            name = f"{top.name}/{place}"
            if not stat.S_ISREG(mode) or place not in files:
                yield name, "is no prediction of a model: do not publish it"
                continue
            labels = read_solution(models[files[place]].path) == 1
            values = read_values(str(path), len(labels))[0]
            if values is None:
                yield name, f"does not hold {len(labels)} numbers in [0, 1] and nothing else"
            elif files[place] in hiding and _separates(values, labels):
                yield name, "tells every label of the model without a mistake"


def _separates(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether all members have higher values than all others, or all lower ones."""
    members, others = values[labels], values[~labels]
    if not (members.size and others.size):
        return False
    return bool(members.min() > others.max() or members.max() < others.min())
