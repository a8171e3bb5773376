"""The order in which the sentences of a batch go through a model: the longest first.

A step sums over the records of its batch, so their order changes nothing but rounding and which
draw of dropout a record gets.  In the order of length, each physical batch needs no more positions
than its longest sentence has: in private batches of SST-2 a fifth of the 67 to which 2022 padded
all.  The longest come first, so the first physical batch of a step needs the most memory.

The host knows all lengths.  So batches of sentences stay on the host until their records are
wanted, and a step asks a GPU nothing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mico_competition.data.arrays import TokenDataset
from mico_competition.models.inputs import Data, sent
from mico_competition.models.padding import cut, ends, masks_padding


class OrderedRecords:
    """Some records of a dataset, as a model takes them.

    Images, tables, and the sentences of models that may compute something else without their
    padding (`padding.masks_padding`) stay as they come.

    Args:
        model: what the records go through.
        data: the whole dataset.
        indices: int64[n], which records, on the device of the data.
        multiple: what the number of positions of a batch is a multiple of; from the length of the
            data's sentences on, each batch has all positions.

    Attributes:
        ordered: whether `order` changes anything.
    """

    def __init__(self, model: nn.Module, data: Data, indices: Tensor, multiple: int = 1) -> None:
        self._data, self._indices, self._multiple = data, indices, multiple
        self._lengths: dict[str, Tensor] = {}  # of the records, by the type of the device
        if isinstance(data, TokenDataset) and masks_padding(model):
            lengths = ends(data.attention_mask[indices])
            self._lengths = {lengths.device.type: lengths, "cpu": lengths.cpu()}
        self.ordered = bool(self._lengths)

    def order(self, batch: Tensor) -> Tensor:
        """The same positions, int64[b] in 0..n-1, the longest sentence first; stable."""
        if not self.ordered:
            return batch
        lengths = self._lengths[batch.device.type][batch]
        return batch[lengths.argsort(descending=True, stable=True)]

    def inputs(self, at: Tensor) -> Any:
        """The inputs at positions int64[b] on the data's device or on the host.

        Sentences are as long as the longest of them.
        """
        inputs = self._data.inputs(self._indices[sent(at, self._indices.device)])
        if isinstance(inputs, Tensor) or not self.ordered:
            return inputs
        return cut(inputs, int(self._lengths[at.device.type][at].max()), self._multiple)
