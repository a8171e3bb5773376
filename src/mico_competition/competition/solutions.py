"""Reads a model's solution.csv, and checks it against the seed from which it follows.

All code that needs the members of a trained model reads them here, so that a folder which
contradicts itself is refused.  The scoring program on a platform has no seeds, and reads solutions
by `scoring.truth`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mico_competition.competition.lengths import Lengths
from mico_competition.competition.table import SOLUTION_FILE
from mico_competition.scoring.reading import read_values
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import SEED_LIMIT, read_limited_text

_SEED_FILE = "seed_membership"
_AGAIN = "put back a copy of the folder, fetch it again, or train the model again"


def read_solution(folder: PathLike, *, count: int | None = None, fix: str = _AGAIN) -> np.ndarray:
    """Read the labels of a model's challenge points: 1 for a member, 0 for a non-member.

    Args:
        folder: the model's folder.
        count: 2m; by default that of the metadata, or any number if they do not say it.
        fix: what the user can do if there is no solution, for the message.

    Returns:
        int64[2m], in the order of the challenge points.

    Raises:
        ValueError: if there is no solution, if it is not `count` zeros and ones, or if it
            contradicts seed_membership in the same folder.  The message quotes no label.
    """
    path = Path(folder) / SOLUTION_FILE
    if not path.is_file():
        raise ValueError(f"There is no {SOLUTION_FILE} in {folder}: {fix}.")
    if count is None:
        m = Lengths.of(Path(folder)).len_challenge
        count = 2 * m if m else None
    # The faults are not passed on, because they quote labels.
    values, faults = read_values(os.path.realpath(path), count)
    if faults or values is None or not np.isin(values, (0, 1)).all():
        number = f"{count} values" if count else "values"
        raise ValueError(f"{path} is not one line of {number}, each 0 or 1: {_AGAIN}.")
    labels = values.astype(np.int64)
    seed = Path(folder) / _SEED_FILE
    if seed.is_file():
        text = read_limited_text(seed, SEED_LIMIT, "a seed")
        if not np.array_equal(labels, membership(text, len(labels), name=str(seed))):
            raise ValueError(
                f"{SOLUTION_FILE} in {folder} is not what its {_SEED_FILE} gives, so one of the "
                f"two was changed: {_AGAIN}."
            )
    return labels


def check_solution(folder: PathLike, *, count: int | None = None) -> None:
    """Raise the errors of `read_solution`, if the folder holds a solution."""
    if (Path(folder) / SOLUTION_FILE).exists():
        read_solution(folder, count=count)


def membership(seed: str, count: int, *, name: str = _SEED_FILE) -> np.ndarray:
    """The labels, int64[count], that the text of a membership seed gives.

    Members are the later half of the seed's permutation.

    Raises:
        ValueError: naming `name`, if the text is not a seed.
    """
    from mico_competition.competition.splits import (  # torch, which takes a second
        parse_seed,
        permutation,
    )

    labels = np.zeros(count, np.int64)
    labels[permutation(count, parse_seed(name, seed)).numpy()[count // 2 :]] = 1
    return labels
