"""Which shadow model is trained on which record: a random mask with balanced columns."""

from __future__ import annotations

import math

import numpy as np

_COLUMNS = 1 << 14  # columns drawn at a time, which bounds memory; changing it changes all masks


def balanced_membership(
    count: int, records: int, fraction: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Draw which of `count` shadow models are trained on which of `records` records.

    A random `fraction` of the shadow models hold each record, as in Carlini et al. ("Membership
    Inference Attacks From First Principles", 2022, section VI-A).

    - With a fraction of 0.5, models come in pairs: the second is trained on what the first is not.
      Pairs are independent of each other, and exactly half of the models hold each record. An odd
      model is trained on a random half.
    - With another fraction for which count * fraction is a whole number k, exactly k models hold
      each record. If it is not whole, each record has one of the two whole numbers beside it, at
      random, and their mean is count * fraction, up to the rounding of
      count * fraction * records.
    - All training sets have the same size, or two sizes that differ by one.

    Rows that are balanced together are not independent: if exactly k models hold each record, the
    other rows tell who holds it. `mico.evaluate` therefore leaves out both models of a pair when it
    attacks one. With other fractions it cannot, and warns: some attacks then seem better than they
    are.

    Args:
        count: the number of shadow models, at least 2.
        records: the number of records, at least `count`.
        fraction: the share of the records in each training set, in (0, 1).
        seed: a whole number >= 0; the same arguments give the same mask.

    Returns:
        bool[count, records], True where the shadow model (row) is trained on the record (column).

    Raises:
        ValueError: if an argument is out of range, or if no shadow model, or every one, would hold
            some record.

    Example:
        >>> mask = balanced_membership(count=4, records=10, fraction=0.5, seed=1)
        >>> mask.sum(axis=0).tolist()  # models that hold each record
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
        >>> mask.sum(axis=1).tolist()  # records in each training set
        [5, 5, 5, 5]
    """
    _check(count, records, fraction, seed)
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    if fraction == 0.5:
        return _pairs(count, records, generator)
    total = round(count * records * fraction)
    in_column = _shares(total, records, generator)
    if in_column.min() < 1 or in_column.max() >= count:
        least = math.ceil(1 / min(fraction, 1 - fraction))
        raise ValueError(
            f"Expected each record in at least one of the {count} shadow models and out of at "
            f"least one, which fraction={fraction} does not allow: train at least {least} shadow "
            "models, or give a fraction nearer to 0.5."
        )
    mask = np.zeros((count, records), bool)
    for start in range(0, records, _COLUMNS):
        part = slice(start, start + _COLUMNS)
        ranks = generator.random((count, len(in_column[part]))).argsort(axis=0).argsort(axis=0)
        mask[:, part] = ranks < in_column[part]
    _level_rows(mask, _shares(total, count, generator), generator)
    return mask


def _pairs(count: int, records: int, generator: np.random.Generator) -> np.ndarray:
    """bool[count, records]: random halves, each followed by its complement."""
    mask = np.zeros((count, records), bool)
    for row in range(0, count, 2):
        size = records // 2 + int(generator.integers(1 + records % 2))
        mask[row, generator.permutation(records)[:size]] = True
        mask[row + 1 : row + 2] = ~mask[row]
    return mask


def _shares(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """int[parts]: `total` in equal shares, of which a random choice is larger by one."""
    shares = np.full(parts, total // parts)
    shares[generator.permutation(parts)[: total % parts]] += 1
    return shares


def _level_rows(mask: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> None:
    """Give the rows of `mask` these sizes: members move within their columns, in place."""
    excess = mask.sum(axis=1) - sizes
    while excess.any():
        heavy, light = excess.argmax(), excess.argmin()
        moves = min(excess[heavy], -excess[light])
        movable = np.flatnonzero(mask[heavy] & ~mask[light])
        moved = generator.choice(movable, moves, replace=False)
        mask[heavy, moved], mask[light, moved] = False, True
        excess[heavy] -= moves
        excess[light] += moves


def _check(count: int, records: int, fraction: float, seed: int) -> None:
    for name, value, least in (("count", count, 2), ("records", records, 2), ("seed", seed, 0)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(f"Expected {name}={value!r} to be a whole number of at least {least}.")
    if not isinstance(fraction, (int, float, np.number)) or not 0 < fraction < 1:
        raise ValueError(
            f"Expected fraction={fraction!r} in (0, 1): the share of the records in each training "
            "set."
        )
    if records < count:
        raise ValueError(
            f"Expected at least as many records as shadow models, got {records} records for "
            f"{count} shadow models."
        )
