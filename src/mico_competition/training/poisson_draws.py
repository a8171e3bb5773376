"""Draws the batches of a private run one after another, each to be trained on exactly once.

The accountant counts steps on batches that were drawn at random.  So a batch is handed out, then
used; it cannot be used twice, replaced or left out, and no batch is drawn before the last one was
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mico_competition.training.dpsgd import Generator, poisson_batches
from mico_competition.training.secure_random import SecureGenerator


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


def state_of(generator: Generator) -> torch.Tensor | None:
    """The state of a generator; None for a secure one, which must not be saved."""
    return None if isinstance(generator, SecureGenerator) else generator.get_state()


def restore(generator: Generator, state: torch.Tensor | None) -> None:
    """Set the state of a generator; a secure one goes on with numbers of its own."""
    if state is not None and not isinstance(generator, SecureGenerator):
        generator.set_state(state.cpu())  # torch.load may have moved it
