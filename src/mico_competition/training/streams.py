"""The random streams of a run: initialisation, batches and noise, each its own.

Splits are not among them: their seeds are part of a challenge (`splits`), these never are.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from mico_competition.competition.splits import Seeds
from mico_competition.training.dpsgd import Generator
from mico_competition.training.secure_random import SecureGenerator
from mico_competition.training.settings import Settings


@dataclass(frozen=True)
class Streams:
    """Seeds of the independent random streams of a run.

    They are derived from one train_seed by SHA-256, so that no two streams are the same one, or
    drawn from the operating system.
    """

    initialisation: int
    sampling: int
    noise: int

    @classmethod
    def of(cls, train_seed: int | None, seeds: Seeds) -> Streams:
        """The streams of `train_seed` for a model with these splits; fresh ones if it is None.

        The splits count, so that models trained with one train_seed do not share their noise:
        two of them could otherwise be subtracted, noise and all.
        """
        root = f"{train_seed}/{seeds.challenge!r}/{seeds.training!r}/{seeds.membership!r}"
        if train_seed is None:
            root = secrets.token_hex(16)
        names = ("initialisation", "sampling", "noise")
        digests = (hashlib.sha256(f"{root}/{name}".encode()).digest() for name in names)
        return cls(*(int.from_bytes(digest[:8], "big") >> 1 for digest in digests))


@contextmanager
def seeded(streams: Streams, *, deterministic: bool) -> Iterator[None]:
    """Initialisation and dropout come from the run's own stream; the caller's state comes back."""
    devices = list(range(torch.cuda.device_count()))
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(streams.initialisation)
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def generator_of(settings: Settings, seed: int, device: torch.device) -> Generator:
    """The generator of one random stream: torch's from `seed`, or one that nobody can repeat."""
    if settings.secure_mode:
        return SecureGenerator(device)
    return torch.Generator(device).manual_seed(seed)
