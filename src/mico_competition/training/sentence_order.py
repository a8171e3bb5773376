"""The order in which the sentences of a batch go through a model: the longest first.

A step sums over the records of its batch, so their order changes nothing but rounding and which
draw of dropout a record gets.  In the order of length, each physical batch needs no more positions
than its longest sentence has: in private batches of SST-2 a fifth of the 67 to which 2022 padded
all.  The longest come first, so the first physical batch of a step needs the most memory.

The host knows all lengths.  So batches of sentences stay on the host until their records are
wanted, and a step asks a GPU nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mico_competition.data.arrays import TokenDataset
from mico_competition.models.inputs import Data, sent
from mico_competition.models.padding import cut, ends, masks_padding

STEP = 8  # what numbers of positions are multiples of, where they are to be few

ANY = "any"
"""A physical batch has the positions of its longest sentence."""
FEW = "few"
"""The same, rounded up to a multiple of STEP: CUDA graphs are recorded for few lengths only."""
OWN = "own"
"""A sentence has a number of positions that depends on it alone: STEP, or twice or four times that
and so on.  Batches come in groups of one number.  In low precision, where rounding depends on the
shape of a batch, no record then changes what others add to a sum."""
ALL = "all"
"""All batches have all positions."""


class OrderedRecords:
    """Some records of a dataset, as a model takes them.

    Images, tables, and the sentences of models that may compute something else without their
    padding (`padding.masks_padding`) stay as they come.

    Args:
        model: what the records go through.
        data: the whole dataset.
        indices: int64[n], which records, on the device of the data.
        positions: how many positions a batch of sentences has: ANY, FEW, OWN or ALL.

    Attributes:
        ordered: whether `order` and `groups` change anything.
    """

    def __init__(self, model: nn.Module, data: Data, indices: Tensor, positions: str = ANY) -> None:
        self._data, self._indices = data, indices
        self._lengths: dict[str, Tensor] = {}  # of the records, by the type of the device
        if isinstance(data, TokenDataset) and masks_padding(model) and positions != ALL:
            mask = data.attention_mask
            lengths = _rounded(ends(mask[indices]), positions, mask.shape[1])
            self._lengths = {lengths.device.type: lengths, "cpu": lengths.cpu()}
        self.ordered = bool(self._lengths)

    def order(self, batch: Tensor) -> Tensor:
        """The same positions, int64[b] in 0..n-1, the longest sentence first; stable."""
        if not self.ordered:
            return batch
        lengths = self._lengths[batch.device.type][batch]
        return batch[lengths.argsort(descending=True, stable=True)]

    def groups(self, batch: Tensor) -> Sequence[Tensor]:
        """The same in groups of sentences with one number of positions; [batch] if it is empty."""
        batch = self.order(batch)
        if not self.ordered or not len(batch):
            return [batch]
        lengths = self._lengths[batch.device.type][batch]
        counts: list[int] = lengths.unique_consecutive(return_counts=True)[1].tolist()
        groups: Sequence[Tensor] = batch.split(counts)
        return groups

    def inputs(self, at: Tensor) -> Any:
        """The inputs at positions int64[b] on the data's device or on the host.

        Sentences are as long as the longest of them.
        """
        inputs = self._data.inputs(self._indices[sent(at, self._indices.device)])
        if isinstance(inputs, Tensor) or not self.ordered:
            return inputs
        return cut(inputs, int(self._lengths[at.device.type][at].max()))


def _rounded(lengths: Tensor, positions: str, most: int) -> Tensor:
    """The numbers of positions, at most `most`, of sentences of these lengths, int64[n]."""
    if positions == FEW:
        lengths = (lengths + STEP - 1) // STEP * STEP
    if positions == OWN:
        found = [STEP << doublings for doublings in range(most.bit_length())]
        bounds = torch.tensor(found, device=lengths.device)
        lengths = bounds[torch.bucketize(lengths, bounds)]
    return lengths.clamp_max(most)
