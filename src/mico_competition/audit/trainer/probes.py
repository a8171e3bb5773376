"""Batches of one record, and of few, with known noise: how far a record moves the sum at most.

The trainer steps on the same number of empty batches first, with the same random streams. The
difference of two released gradients is then the clipped sum, up to rounding. For one record it must
not exceed C, however long its gradient is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mico_competition.audit.trainer.canaries import (
    LENGTH,
    AuditSet,
    RecordCanaries,
    make_record_canaries,
)
from mico_competition.data.arrays import TokenDataset
from mico_competition.models.inputs import Data

LENGTHS = (0.0, 1e-3, 0.5, 0.999, 1.001, 2.0, 1e3, 1e8, 1e24)
"""Norms of Dirac canaries' gradients, over C; the square of the last overflows float32."""

_OVERFLOWS = 1e15  # such a gradient may be clipped to zero, as its norm is infinite
_FACTORS = (0.0, 1e2, 1e4, 1e6)  # factors of real records' inputs: all-zero, and very long
_REAL, _CANARIES = 4, 6
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Probes:
    """The records and batches of probes.

    Attributes:
        audit_set: the records.
        lengths: float[m], of Dirac canaries' gradients; the first are in the set.
        batches: positions, one list a step; the first is empty.
        regular: whether, in each batch, every clipped gradient must be exact.
    """

    audit_set: AuditSet
    lengths: Tensor
    batches: Sequence[Tensor]
    regular: Sequence[bool]


def probes_of(
    data: Data, classes: int, dirac: int, generator: torch.Generator, *, largest_batch: int
) -> Probes:
    """Real records, record canaries, all-zero and very long records, and Dirac canaries.

    Args:
        data: the dataset.
        classes: K >= 2.
        dirac: m, the number of Dirac canaries that the model has weights for, if that is enough.
        generator: draws records.
        largest_batch: the largest number of records in a batch.
    """
    dirac = max(dirac, len(LENGTHS))
    order = torch.randperm(len(data), generator=generator)
    made = make_record_canaries(data, order[_REAL:], _CANARIES, classes, generator)
    records = _with_extremes(data, made)
    audit_set = AuditSet(
        data,
        order[:_REAL],
        records,
        torch.ones(len(records), dtype=torch.bool),
        torch.arange(dirac) < len(LENGTHS),
    )
    positions = torch.arange(len(audit_set), device=audit_set.labels.device)
    lengths = torch.tensor([*LENGTHS, *[LENGTH] * (dirac - len(LENGTHS))])
    own = lengths.to(positions.device)[audit_set.canary_at.clamp(min=0)]
    overflows = (audit_set.canary_at >= 0) & (own > _OVERFLOWS)
    usual = positions[~overflows]
    several = [part for part in usual.split(max(1, largest_batch)) if len(part) > 1]
    batches = [positions[:0], *usual.split(1), *several, *(part[1:] for part in several)]
    last = list(positions[overflows].split(1))
    regular = [True] * len(batches) + [False] * len(last)
    return Probes(audit_set, lengths, [*batches, *last], regular)


def _with_extremes(data: Data, made: RecordCanaries) -> RecordCanaries:
    """Record canaries, and a record times each of _FACTORS; for text, the former only."""
    if isinstance(data, TokenDataset):
        return made
    rows: Any = data.inputs(torch.zeros(len(_FACTORS), dtype=torch.long, device=data.labels.device))
    factors = torch.tensor(_FACTORS, device=rows.device).view(-1, *([1] * (rows.ndim - 1)))
    labels = data.labels[:1].expand(len(_FACTORS))
    return RecordCanaries(
        torch.cat([made.inputs, rows * factors]),
        torch.cat([made.labels, labels]),
        (*made.kinds, *("all-zero" if not factor else "very long" for factor in _FACTORS)),
    )


class Given:
    """An epoch of given batches; each model of a stack begins at a different one.

    Called as `train.epoch_of` is, once an epoch and model.
    """

    def __init__(self, batches: Sequence[Tensor], models: int) -> None:
        self._batches, self._models, self._calls = batches, models, 0

    def __call__(self, *_: Any) -> Iterator[Tensor]:
        """The batches, from the next one on."""
        start = self._calls % self._models
        self._calls += 1
        return iter([*self._batches[start:], *self._batches[:start]])


def empty_epoch(device: torch.device, steps: int) -> Given:
    """An epoch of empty batches."""
    return Given([torch.empty(0, dtype=torch.long, device=device)] * steps, 1)


def farthest(length: np.ndarray, allowed: np.ndarray, single: np.ndarray) -> tuple[float, bool]:
    """How far a single record moved the sum at most, over C, and whether this is too far.

    Args:
        length: float[rows], norms of released gradients without their noise.
        allowed: float[rows], the tolerance for rounding.
        single: bool[rows], which batches are of one record.
    """
    over = np.where(single, length - 1 - allowed, -np.inf)
    at = int(over.argmax())
    return float(length[at]), bool(over[at] > _TOLERANCE)
