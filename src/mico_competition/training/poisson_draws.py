"""Draws Poisson batches: those of an epoch at once, or one after another, each to be used once.

`poisson_batches` draws each record independently with probability `sample_rate`, as Opacus'
`UniformWithReplacementSampler` does.  `PoissonDraws` hands such batches out one by one.  The
accountant counts steps on batches that were drawn at random.  So a batch is handed out, then
used; it cannot be used twice, replaced or left out, and no batch is drawn before the last one was
used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from mico_competition.models.inputs import sent
from mico_competition.training.secure_random import Generator, SecureGenerator

# Batches are drawn, and moved to a device, in blocks of about this many positions (8 MB).
BLOCK = 2**20


def poisson_batches(
    num_records: int,
    *,
    sample_rate: float,
    num_steps: int,
    generator: Generator,
) -> Iterator[torch.Tensor]:
    """Draw Poisson batches: each holds each record independently with probability `sample_rate`.

    torch's generators draw many batches at once, so after the first one the generator's state is
    that after all batches of its block.  The batches depend on `num_steps` as well as on the seed.

    Args:
        num_records: n, the number of records.
        sample_rate: q in (0, 1].
        num_steps: the number of batches.
        generator: the generator that draws them, on the CPU.

    Yields:
        int64[b] on the CPU, the sorted positions of a batch's records in 0..n-1.  A batch may be
        empty; it still counts as a step.
    """
    if isinstance(generator, SecureGenerator):
        for _ in range(num_steps):
            yield generator.bernoulli(num_records, sample_rate).nonzero().squeeze(1)
        return
    block = max(1, int(BLOCK / (1 + num_records * sample_rate)))
    for start in range(0, num_steps, block):
        yield from _drawn(num_records, sample_rate, min(block, num_steps - start), generator)


def _drawn(
    num_records: int, sample_rate: float, num_steps: int, generator: torch.Generator
) -> Sequence[torch.Tensor]:
    """Draw `num_steps` Poisson batches together; see `poisson_batches`.

    The coins of all steps and records are one row of steps * n independent coins, of which those of
    step s are at s * n to s * n + n - 1.
    """
    if sample_rate >= 1:
        return [torch.arange(num_records) for _ in range(num_steps)]
    heads = _heads(num_steps * num_records, sample_rate, generator)
    ends = torch.searchsorted(heads, torch.arange(1, num_steps + 1) * num_records)
    lengths = ends.diff(prepend=ends.new_zeros(1)).tolist()
    parts: Sequence[torch.Tensor] = heads.remainder_(num_records).split(lengths)
    return parts


def _heads(count: int, probability: float, generator: torch.Generator) -> torch.Tensor:
    """The sorted places in 0..count-1 where independent coins show heads, int64.

    It draws the gaps between them, which are geometric (Devroye, Non-Uniform Random Variate
    Generation, 1986, chapter X.2), so the cost grows with the heads and not with the coins.  The
    gap behind the last place is dropped: coins have no memory.
    """
    expected = count * probability
    size = math.ceil(expected + 6 * math.sqrt(expected)) + 8
    last, parts = -1, list[torch.Tensor]()
    while last < count:
        uniform = torch.rand(size, generator=generator, dtype=torch.float64)
        gaps = uniform.neg_().log1p_().div_(math.log1p(-probability)).floor_().add_(1)
        # Sums of whole numbers, so they are exact; a gap beyond the last coin need not be longer.
        parts.append(gaps.clamp_(max=count + 1).long().cumsum(0).add_(last))
        last = int(parts[-1][-1])
    places = torch.cat(parts) if len(parts) > 1 else parts[0]
    return places[: int(torch.searchsorted(places, count))]


def moved(batches: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """The same batches on `device`: a GPU gets those of an epoch in one copy, in blocks if large.

    Their lengths stay known to the host, which does not wait for the copy.
    """
    if device.type == "cpu":
        yield from batches
        return
    waiting, positions = list[torch.Tensor](), 0
    for batch in batches:
        waiting.append(batch)
        positions += len(batch)
        if positions >= BLOCK:
            yield from _in_one_copy(waiting, device)
            waiting, positions = [], 0
    yield from _in_one_copy(waiting, device)


def _in_one_copy(batches: list[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
    if not batches:
        return []
    together, lengths = torch.cat(batches), [len(batch) for batch in batches]
    parts: Sequence[torch.Tensor] = sent(together, device).split(lengths)
    return parts


class PoissonDraws:
    """The batches of one run.

    Args:
        num_records: n >= 1.
        sample_rate: q in (0, 1].
        num_steps: the number of batches of the whole run.
        generator: draws them, on the CPU.

    Attributes:
        used: the number of batches that were trained on.
        waiting: int64[b], the batch that was drawn and not yet used; None if there is none.
    """

    def __init__(
        self, num_records: int, *, sample_rate: float, num_steps: int, generator: Generator
    ) -> None:
        self.num_records, self.sample_rate = num_records, sample_rate
        self.num_steps, self.generator = num_steps, generator
        self.used = 0
        self.waiting: torch.Tensor | None = None

    def batches(self, count: int | None) -> Iterator[torch.Tensor]:
        """Yield the next `count` batches (by default all that remain), each to be used at once."""
        left = self.num_steps - self.used
        if not left:
            raise ValueError(
                f"All {self.num_steps} planned steps have been taken: for a longer run, make a "
                "trainer with more epochs."
            )
        for _ in range(left if count is None else min(count, left)):
            if self.waiting is None:
                (self.waiting,) = poisson_batches(
                    self.num_records,
                    sample_rate=self.sample_rate,
                    num_steps=1,
                    generator=self.generator,
                )
            number = self.used
            yield self.waiting.clone()  # which the caller may change in place
            if self.used != number + 1:
                raise ValueError(
                    f"Batch {number + 1} was drawn, but trainer.step was called on it "
                    f"{self.used - number} times: call it once on every batch, also on one that is "
                    "empty, since the accountant counts each."
                )

    def check(self, rows: int) -> torch.Tensor:
        """The batch that waits for its step; ValueError if it cannot be these rows."""
        if self.waiting is None:
            raise ValueError(
                "No batch waits for a step: call step once on each batch of trainer.batches(). The "
                "privacy claim covers only batches that the trainer draws."
            )
        if rows != len(self.waiting):
            raise ValueError(
                f"Expected the {len(self.waiting)} examples of the batch that trainer.batches() "
                f"gave, got {rows}: pass inputs[batch] and targets[batch]."
            )
        return self.waiting

    def use(self) -> None:
        """Count the waiting batch as used."""
        self.used += 1
        self.waiting = None

    def state_dict(self) -> dict[str, Any]:
        """The number of batches, the waiting one, and the state of the generator."""
        return {"used": self.used, "waiting": self.waiting, "generator": state_of(self.generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        waiting = state["waiting"]
        self.used, self.waiting = int(state["used"]), None if waiting is None else waiting.cpu()
        restore(self.generator, state["generator"])


Generators = Generator | Sequence[Generator]


def state_of(generator: Generators) -> Any:
    """The state of a generator, or a list of states; None for a secure one, which is not saved."""
    if isinstance(generator, Sequence):
        return [state_of(each) for each in generator]
    return None if isinstance(generator, SecureGenerator) else generator.get_state()


def restore(generator: Generators, state: Any) -> None:
    """Set what `state_of` gave; a secure generator goes on with numbers of its own."""
    if isinstance(generator, Sequence):
        for each, own in zip(generator, state, strict=True):
            restore(each, own)
    elif state is not None and not isinstance(generator, SecureGenerator):
        generator.set_state(state.cpu())  # torch.load may have moved it
