"""The batches of a stack: those of S models in one tensor, padded to one length.

The batches of an epoch are padded and moved to the device together, since a GPU takes as long for
one small copy as for a large one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mico_competition.models.inputs import sent
from mico_competition.training.poisson_draws import BLOCK


class StackedBatch(Sequence[Tensor]):
    """The S logical batches of one step; as a sequence, those of each model without padding.

    Args:
        positions: int64[S, w], positions among each model's training records, 0 for padding.
        lengths: int64[S] on the same device, how many of a row are no padding.
        counts: the same numbers, known to the host.
    """

    def __init__(self, positions: Tensor, lengths: Tensor, counts: Sequence[int]) -> None:
        self.positions, self.lengths, self._counts = positions, lengths, counts

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, model):  # type: ignore[no-untyped-def]
        if isinstance(model, slice):
            return [self[s] for s in range(len(self))[model]]
        return self.positions[model, : self._counts[model]]

    def chunks(self, size: int, *, padded: bool = False) -> list[tuple[Tensor, Tensor]]:
        """The physical batches: positions int64[S, b], and bool[S, b], False for padding.

        Args:
            size: the most positions of each model, b <= size.
            padded: whether b is size in all of them, unless all batches are empty.
        """
        longest = max(self._counts)
        if padded and longest:
            width = -(-longest // size) * size
            missing = max(0, width - self.positions.shape[1])
            positions = nn.functional.pad(self.positions, (0, missing))[:, :width]
        else:
            positions = self.positions[:, :longest]
        columns = torch.arange(positions.shape[1], device=positions.device)
        counts = columns < self.lengths.unsqueeze(1)
        return list(zip(positions.split(size, 1), counts.split(size, 1)))


def as_stack(batches: Sequence[Tensor]) -> StackedBatch:
    """S index tensors on one device as a stack's batch."""
    if isinstance(batches, StackedBatch):
        return batches
    counts, device = [len(batch) for batch in batches], batches[0].device
    positions = nn.utils.rnn.pad_sequence(list(batches), batch_first=True)
    return StackedBatch(positions, torch.tensor(counts, device=device), counts)


def stacked_batches(
    steps: Iterable[Sequence[Tensor]], device: torch.device
) -> Iterator[StackedBatch]:
    """The same batches on `device`: those of an epoch in one copy, in blocks if they are many.

    Args:
        steps: for each step the batches of S models, int64[b] on the CPU.
        device: where they are wanted.
    """
    waiting, positions = list[Sequence[Tensor]](), 0
    for batches in steps:
        waiting.append(batches)
        positions += sum(map(len, batches))
        if positions >= BLOCK:
            yield from _padded(waiting, device)
            waiting, positions = [], 0
    yield from _padded(waiting, device)


def _padded(steps: Sequence[Sequence[Tensor]], device: torch.device) -> Iterator[StackedBatch]:
    """The batches of some steps, padded to the longest and moved together."""
    counts = [[len(batch) for batch in batches] for batches in steps]
    if not counts:
        return
    lengths = torch.tensor(counts)
    together = [batch for batches in steps for batch in batches]
    positions = nn.utils.rnn.pad_sequence(together, batch_first=True)
    positions = sent(positions.view(*lengths.shape, positions.shape[1]), device)
    lengths = sent(lengths, device)
    yield from map(StackedBatch, positions, lengths, counts)
