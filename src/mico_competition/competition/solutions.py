"""The truth of one model: solution.csv, held against the seed that it follows from.

Everything that scores, attacks or hands on what a trained model's folder says of its members
reads it here, so that a folder which contradicts itself is refused before a number is computed.
The scoring program on the platform has solutions alone, and reads them by `scoring.truth`.
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


def read_solution(folder: PathLike, *, count: int | None = None, mend: str = _AGAIN) -> np.ndarray:
    """int64[2m]: 1 for each challenge point of a model that is a member, 0 for others.

    Args:
        folder: the model's folder.
        count: 2m; by default what the metadata there say, or any number if they say nothing.
        mend: what to do where there is no solution, for the message.

    Raises:
        ValueError: if there is none; if it is not of zeros and ones, or not `count` of them; if
            it is not what seed_membership in the same folder gives.  Nothing of it is quoted.
    """
    path = Path(folder) / SOLUTION_FILE
    if not path.is_file():
        raise ValueError(f"There is no {SOLUTION_FILE} in {folder}: {mend}.")
    if count is None:
        m = Lengths.of(Path(folder)).len_challenge
        count = 2 * m if m else None
    # The faults are not shown: they quote the truth.
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
    """Raise what `read_solution` would, of a model whose solution is there."""
    if (Path(folder) / SOLUTION_FILE).exists():
        read_solution(folder, count=count)


def membership(seed: str, count: int, *, name: str = _SEED_FILE) -> np.ndarray:
    """int64[count], the labels that the text of a membership seed gives: the later half is in.

    Raises:
        ValueError: naming `name`, if it is no seed.
    """
    from mico_competition.competition.splits import (  # torch, which takes a second
        parse_seed,
        permutation,
    )

    labels = np.zeros(count, np.int64)
    labels[permutation(count, parse_seed(name, seed)).numpy()[count // 2 :]] = 1
    return labels
