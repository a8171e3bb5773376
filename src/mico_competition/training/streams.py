"""The independent random streams of a training run: for initialisation, batches and noise.

Splits have seeds of their own, which are part of a challenge (`competition.splits`).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from mico_competition.competition.splits import Seeds
from mico_competition.training.secure_random import Generator, SecureGenerator
from mico_competition.training.settings import Settings


@dataclass(frozen=True)
class Streams:
    """The seeds of a run's random streams.

    They are derived from one train_seed by SHA-256, so that all streams differ, or drawn from the
    operating system.
    """

    initialisation: int
    sampling: int
    noise: int

    @classmethod
    def of(cls, train_seed: int | None, seeds: Seeds) -> Streams:
        """The streams of `train_seed` for a model with these splits; fresh ones if it is None.

        The streams depend on the splits, so that models trained with the same train_seed do not
        share their noise, which would cancel in the difference of two models.
        """
        root = f"{train_seed}/{seeds.challenge!r}/{seeds.training!r}/{seeds.membership!r}"
        if train_seed is None:
            root = secrets.token_hex(16)
        names = ("initialisation", "sampling", "noise")
        digests = (hashlib.sha256(f"{root}/{name}".encode()).digest() for name in names)
        return cls(*(int.from_bytes(digest[:8], "big") >> 1 for digest in digests))


def fresh_streams(seed: int | None) -> tuple[int, int]:
    """Seeds for the noise and for the batches of a run of one's own, from `seed` or at random."""
    root = secrets.token_hex(16) if seed is None else str(seed)
    digests = (hashlib.sha256(f"{root}/{name}".encode()).digest() for name in ("noise", "sampling"))
    noise, sampling = (int.from_bytes(digest[:8], "big") >> 1 for digest in digests)
    return noise, sampling


@contextmanager
def seeded(streams: Streams, *, deterministic: bool) -> Iterator[None]:
    """Seed torch for initialisation and dropout inside this block; restore the state afterwards."""
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
    """The generator of one stream: torch's with `seed`, or in secure mode one without a seed."""
    if settings.secure_mode:
        return SecureGenerator(device)
    return torch.Generator(device).manual_seed(seed)


def sampling_of(settings: Settings, streams: Streams) -> Generator:
    """The generator that draws batches.

    It is on the CPU, because a GPU would wait for the CPU several times a draw; so a seed gives the
    same batches on each device.
    """
    return generator_of(settings, streams.sampling, torch.device("cpu"))
