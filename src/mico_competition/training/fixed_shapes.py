"""Physical batches of one fixed length, so that a GPU repeats the same kernels in every step.

A logical batch has another length in every step.  Here its last physical batch is padded by its
own first record, which then counts with weight 0: the sum, the noise and the division are those of
the batch without padding.  A batch that is longer than expected takes more physical batches, and an
empty one is a step of noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_GROUP = 64
DEVIATIONS = 6.0  # by which a batch may exceed its expected length before it is split


def physical_batches(batch: Tensor | Sequence[Tensor], size: int) -> Sequence[Tensor]:
    """Split a logical batch into physical batches of at most `size`; an empty one is one part.

    The batch may come in groups, of which no two share a physical batch.
    """
    groups = [batch] if isinstance(batch, Tensor) else batch
    return [part for group in groups for part in (group.split(size) if len(group) else (group,))]


def fixed_length(expected_batch_size: int, most: int) -> int:
    """The fixed length of physical batches: few logical batches are longer.

    It is at most 6 standard deviations of a Poisson batch above the expected length.

    Args:
        expected_batch_size: L >= 1, the expected length rounded down.
        most: the most examples that may go through the model at once, >= 1.
    """
    mean = expected_batch_size + 1
    return min(most, math.ceil(mean + DEVIATIONS * math.sqrt(mean)))


def group_length(length: int) -> int:
    """The fixed length for a batch in groups, each of which ends with a padded physical batch.

    It depends on no record: a quarter of the length for a batch in one piece, and LEAST_GROUP
    examples at least, so that a pass is no smaller than it must be.
    """
    return min(length, max(LEAST_GROUP, -(-length // 4)))


def padded(batch: Tensor, length: int) -> Tensor:
    """Repeat the first record of a batch, int64[b] with 1 <= b <= length, up to a length."""
    return torch.cat([batch, batch[:1].expand(length - len(batch))])
