"""Faults of the draw of batches."""

from __future__ import annotations

import torch

from mico_competition.training import train


def _batches(patch, draw):
    """Another way to draw the batches of an epoch."""

    def faulty(num_records, *, sample_rate, num_steps, generator):
        yield from draw(num_records, sample_rate, num_steps, generator)

    patch.setattr(train, "poisson_batches", faulty)


def batches(draw):
    return lambda patch: _batches(patch, draw)


def _coins(n, q, generator):
    return torch.rand(n, generator=generator) < q


def _poisson(n, q, steps, generator):
    for _ in range(steps):
        yield _coins(n, q, generator).nonzero().squeeze(1)


def _shuffled(n, q, steps, generator):
    order = torch.randperm(n, generator=generator)
    yield from order.tensor_split(steps)


def _fixed(n, q, steps, generator):
    for _ in range(steps):
        yield torch.randperm(n, generator=generator)[: round(n * q)].sort().values


def _without_empty(n, q, steps, generator):
    for batch in _poisson(n, q, steps, generator):
        if len(batch):
            yield batch


def _redrawn(n, q, steps, generator):
    for _ in range(steps):
        batch = torch.empty(0, dtype=torch.long)
        while not len(batch):
            batch = _coins(n, q, generator).nonzero().squeeze(1)
        yield batch


def _pairs(n, q, steps, generator):
    """Records two by two: both are in a batch, or none."""
    for _ in range(steps):
        coins = _coins((n + 1) // 2, q, generator).repeat_interleave(2)[:n]
        yield coins.nonzero().squeeze(1)


def _two_together(n, q, steps, generator):
    for _ in range(steps):
        coins = _coins(n, q, generator)
        coins[1 % n] = coins[0]
        yield coins.nonzero().squeeze(1)


def _twice(n, q, steps, generator):
    for batch in _poisson(n, q, steps, generator):
        yield torch.cat([batch[:1], batch])


def _repeated(n, q, steps, generator):
    for _ in range(0, steps, 2):
        batch = _coins(n, q, generator).nonzero().squeeze(1)
        yield batch
        yield batch


def _alternating(n, q, steps, generator):
    last = torch.zeros(n, dtype=torch.bool)
    for _ in range(steps):
        coins = _coins(n, q / (1 - q), generator) & ~last
        last = coins
        yield coins.nonzero().squeeze(1)


def _restarted(n, q, steps, generator):
    yield from _poisson(n, q, steps, torch.Generator().manual_seed(5))


def _one_always(n, q, steps, generator):
    for _ in range(steps):
        coins = _coins(n, q, generator)
        coins[0] = True
        yield coins.nonzero().squeeze(1)


def _uneven(n, q, steps, generator):
    """As many records on average as there should be."""
    for _ in range(steps):
        coins = _coins(n, 1.1 * q, generator)
        coins[: n // 11] = False
        yield coins.nonzero().squeeze(1)


BATCHES = {
    "shuffled batches": batches(_shuffled),
    "batches of a fixed length": batches(_fixed),
    "empty batches left out": batches(_without_empty),
    "empty batches drawn again": batches(_redrawn),
    "records in pairs": batches(_pairs),
    "two records together": batches(_two_together),
    "a record twice in a batch": batches(_twice),
    "each batch twice": batches(_repeated),
    "no record twice running": batches(_alternating),
    "the same batches each epoch": batches(_restarted),
    "one record in every batch": batches(_one_always),
    "records a fifth too often": batches(
        lambda n, q, steps, generator: _poisson(n, 1.2 * q, steps, generator)
    ),
    "records a fifth too rarely": batches(
        lambda n, q, steps, generator: _poisson(n, 0.8 * q, steps, generator)
    ),
    "some records never, others more often": batches(_uneven),
}
