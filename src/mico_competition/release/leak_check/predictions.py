"""Checks that `<challenge>.predictions/`, beside a release, holds nothing but predictions.

The folder is not part of a release, and no command publishes it, but it may be copied together with
the release.  The check can only tell that it holds numbers and not the labels themselves; anything
may be hidden in the digits of numbers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import comb
from pathlib import Path

import numpy as np

from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import PREDICTION_FILE
from mico_competition.scoring.reading import read_values

Fault = tuple[str, str]

_CHANCE = 1e-6


def predictions_faults(
    root: Path, challenge: str, models: Mapping[str, ModelFolder], hiding: Collection[str]
) -> Iterator[Fault]:
    """Find other files among the predictions, and predictions that give the labels away.

    Args:
        root: the folder with the released challenge.
        challenge: the name of the challenge.
        models: the trained models by `<scenario>/<phase>/model_<i>`.
        hiding: those of them whose labels are withheld.

    Yields:
        (path, sentence) of each fault.
    """
    top = root / f"{challenge}.predictions"
    files = {f"{relative_path}/{PREDICTION_FILE}": relative_path for relative_path in models}
    folders = {
        "/".join(relative_path.split("/")[:depth])
        for relative_path in models
        for depth in (1, 2, 3)
    }
    if top.is_symlink():
        yield top.name, "is a link"
        return
    hidden: list[int] = []  # m of each model whose labels are withheld
    separated: dict[str, bool] = {}  # whether predictions without a mistake are zeros and ones
    for parent, subfolders, names in os.walk(top):
        for path in (Path(parent, name) for name in sorted((*subfolders, *names))):
            relative_path = path.relative_to(top).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) and relative_path in folders:
                continue
            name = f"{top.name}/{relative_path}"
            if not stat.S_ISREG(mode) or relative_path not in files:
                yield name, "is not a prediction of a model: do not publish it"
                continue
            labels = read_solution(models[files[relative_path]].path) == 1
            values = read_values(str(path), len(labels))[0]
            if values is None:
                yield name, f"does not hold {len(labels)} numbers in [0, 1] and nothing else"
            elif files[relative_path] in hiding:
                hidden.append(len(labels) // 2)
                if _separates(values, labels):
                    separated[name] = set(values) <= {0.0, 1.0}
    by_chance = not _is_unlikely(len(separated), hidden)
    for name, plain in separated.items():
        if plain or not by_chance:
            yield name, "reveals every label of the model without a mistake"


def _is_unlikely(count: int, hidden: Sequence[int]) -> bool:
    """Whether guessing separates so many models' points with a chance below one in a million.

    Of few points, some model's are separated by luck: of 2 x 7, one model in 1,716.
    """
    one = 2 / comb(2 * min(hidden), min(hidden)) if hidden else 1.0
    return comb(len(hidden), count) * one**count < _CHANCE


def _separates(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether all members have higher values than all non-members, or all lower ones."""
    members, others = values[labels], values[~labels]
    if not (members.size and others.size):
        return False
    return bool(members.min() > others.max() or members.max() < others.min())
