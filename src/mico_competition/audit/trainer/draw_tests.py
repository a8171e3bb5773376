"""Tests of Poisson sampling: every record in every batch with probability q, independently.

`sampling_tests` tests rates and variances. This module tests which records are together in a batch,
which batches resemble each other, and the batches of sets so small that some are empty. Counts of
independent coins are binomial, so all p-values are exact except those of pooled lags and of how
evenly records are drawn, which are sums of hundreds of coins.

The mathematics is in docs/METHODS.md, section 10.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from mico_competition.audit.trainer.checks import binomial_spread
from mico_competition.audit.trainer.noise_tests import Finding, Worst, two_sided
from mico_competition.audit.trainer.observed import Participation

_RECORDS, _STEPS = 1500, 2500  # compared pair by pair, at most
_LAGS = 1000
_ENOUGH = 200  # expected successes above which the sum of coins is approximated
_SMALL = (1, 2, 5)  # records of the small sets
_DRAWS = 4000  # batches of each


def alike(drawn: Participation, q: float) -> Finding:
    """How much records vary in their numbers of batches, over the whole run."""
    found = Worst("records are in more or fewer batches than others by no more than chance")
    steps = len(drawn.drawn[0])
    counts = np.stack(
        [np.bincount(np.concatenate(one), minlength=drawn.records) for one in drawn.drawn]
    )
    if counts.size * steps * q * (1 - q) >= _ENOUGH:
        squares = float(np.square(counts - steps * q).sum())
        spread, freedom = binomial_spread(squares, counts.size, steps, q)
        law = stats.chi2(freedom)
        p = min(1.0, 2 * min(law.cdf(spread * freedom), law.sf(spread * freedom)))
        found.see(p, f"records' numbers of batches vary {spread:.3g} times as much as by chance")
    return found.finding()


def together(drawn: Participation, q: float, rng: np.random.Generator) -> Finding:
    """Records that are in batches, or together in batches, too often or too rarely."""
    found = Worst("records are in batches independently of each other and of other batches")
    if drawn.repeated:
        found.see(0.0, f"{drawn.repeated:,} batches have a record more than once")
    if q >= 1:
        return found.finding()
    steps = len(drawn.drawn[0])
    records = np.sort(rng.permutation(drawn.records)[:_RECORDS])
    coins = np.stack([_matrix(one, drawn.records)[:, records] for one in drawn.drawn])
    counts = coins.sum(axis=1)  # [S, records], of all steps
    found.see(_both_tails(counts, steps, q), "a record is in too many batches, or too few")
    lengths = np.array(drawn.lengths)
    found.see(_both_tails(lengths, drawn.records, q), "a batch is too long, or too short")
    coins = coins[:, :_STEPS].astype(np.float32)
    for of_model in coins:
        both = of_model.T @ of_model
        upper = np.triu_indices(len(both), 1)
        p = _both_tails(both[upper], len(of_model), q * q)
        found.see(p, "two records are together in batches too often, or too rarely")
        _lags(found, of_model, q)
    rows = coins.reshape(-1, len(records))[:_STEPS]
    both = rows @ rows.T
    p = _both_tails(both[np.triu_indices(len(both), 1)], len(records), q * q)
    found.see(p, "two batches have too many records in common, or too few")
    return found.finding()


def _matrix(batches: list[np.ndarray], records: int) -> np.ndarray:
    """bool[steps, records]."""
    coins = np.zeros((len(batches), records), dtype=bool)
    for row, batch in zip(coins, batches):
        row[batch] = True
    return coins


def _both_tails(counts: np.ndarray, trials: int, q: float) -> np.ndarray:
    """Two-sided p-values of binomial counts."""
    values, where = np.unique(np.asarray(counts).astype(np.int64), return_inverse=True)
    low, high = stats.binom.cdf(values, trials, q), stats.binom.sf(values - 1, trials, q)
    p_values: np.ndarray = np.minimum(1.0, 2 * np.minimum(low, high))[where]
    return p_values


def _lags(found: Worst, coins: np.ndarray, q: float) -> None:
    """Lags at which batches have too many or too few records in common, over the whole run.

    Products of two centred coins are uncorrelated, of mean 0 and variance (q (1 - q))^2.
    """
    steps, records = coins.shape
    centred = (coins - q) / math.sqrt(q * (1 - q))
    gram = centred @ centred.T
    lags = [
        lag for lag in range(1, min(steps, _LAGS)) if (steps - lag) * records * q * q >= _ENOUGH
    ]
    if lags:
        sums = np.array([np.trace(gram, lag) for lag in lags], dtype=np.float64)
        pairs = np.array([(steps - lag) * records for lag in lags])
        p = two_sided(sums / np.sqrt(pairs))
        lag = lags[int(p.argmin())]
        found.see(p, f"batches {lag} steps apart have too much in common, or too little")


def of_small_sets(
    draw: Callable[[int], Iterator[Tensor]], steps_per_epoch: int, q: float
) -> Finding:
    """The batches of an epoch of 1, 2 or 5 records, many of them empty.

    Args:
        draw: number of records -> the batches of an epoch, drawn anew at each call.
        steps_per_epoch: batches in an epoch.
        q: sampling probability.
    """
    found = Worst(
        "batches of very small sets, empty ones among them, are as often as they should be"
    )
    for records in _SMALL:
        counts = np.zeros(records + 1, dtype=np.int64)
        hits = np.zeros(records, dtype=np.int64)
        batches = 0
        for _ in range(max(1, math.ceil(_DRAWS / steps_per_epoch))):
            of_epoch: list[Any] = [batch.cpu().numpy() for batch in draw(records)]
            if len(of_epoch) != steps_per_epoch:
                what = f"an epoch of {records} records has {len(of_epoch)} batches"
                found.see(
                    0.0, f"{what}, and {steps_per_epoch} are claimed (are empty ones left out?)"
                )
            for batch in of_epoch:
                if len(np.unique(batch)) < len(batch):
                    found.see(0.0, "a batch has a record more than once")
                hits[np.unique(batch)] += 1
                counts[len(np.unique(batch))] += 1
            batches += len(of_epoch)
        expected = stats.binom.pmf(np.arange(records + 1), records, q)
        for length, (count, p) in enumerate(zip(counts, expected)):
            what = "are empty" if length == 0 else f"have {length} of {records} records"
            says = f"{count:,} of {batches:,} batches {what}, where {batches * p:,.0f} are expected"
            found.see(_both_tails(np.array([count]), batches, min(1.0, float(p))), says)
        found.see(
            _both_tails(hits, batches, q), f"a record of {records} is drawn too often or rarely"
        )
    return found.finding()
