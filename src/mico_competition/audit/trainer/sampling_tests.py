"""Direct tests of sampling: rates, independence, and the lengths of batches.

The accountant assumes that every record is in every batch with probability q, independently of
everything else. Shuffled epochs train as well, but the proof does not cover them. The statistics
are in docs/METHODS.md, section 10.2 (formula 87).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mico_competition.audit.trainer.canary_run import Observed
from mico_competition.audit.trainer.checks import (
    ALARM,
    NOTE,
    PASS,
    ROUNDING,
    Check,
    Measured,
    binomial_variance,
    chi_square_tails,
    rate,
)
from mico_competition.training.accounting import Mechanism

POWER = 0.9
"""The power of the test with `canaries_for_sampling` canaries."""


def check_rate(seen: Observed, mechanism: Mechanism, level: float) -> Check:
    """How often records are in batches."""
    q, batches = mechanism.sample_rate, seen.participation.lengths
    found = rate(sum(batches), seen.participation.records * len(batches), level)
    says = f"records are in {found.value:.4g} of batches, and sample_rate={q:.4g} is claimed"
    verdict = ALARM if found.above(q) else NOTE if found.below(q) else PASS
    return Check("sample rate", verdict, says, q, found)


def check_sampling(seen: Observed, mechanism: Mechanism, level: float) -> Check:
    """Whether a record is drawn by independent coins: the variance of its batches in an epoch.

    Under shuffling every record is in one batch an epoch, and the variance is 0.
    """
    q, steps, histogram = (
        mechanism.sample_rate,
        seen.participation.epoch_steps,
        seen.participation.histogram,
    )
    squares = histogram @ np.square(np.arange(len(histogram)) - q * steps)
    found = binomial_variance(float(squares), int(histogram.sum()), steps, q, level)
    return _coins("sampling", "a record's number of batches in an epoch", "shuffled", found)


def check_lengths(seen: Observed, mechanism: Mechanism, level: float) -> Check:
    """Whether records are drawn independently of each other: the variance of batches' lengths."""
    q, records = mechanism.sample_rate, seen.participation.records
    lengths = np.array(seen.participation.lengths)
    squares = float(np.square(lengths - q * records).sum())
    found = binomial_variance(squares, len(lengths), records, q, level)
    return _coins("batch lengths", "the length of a batch", "of fixed length", found)


def _coins(name: str, what: str, otherwise: str, found: Measured) -> Check:
    """A check of a variance against that of Poisson batches."""
    says = f"{what} varies {found.value:.3g} times as much as with Poisson batches"
    if found.below(0.5):
        says += f": batches are {otherwise}"
    verdict = ALARM if found.below(1) or found.above(1) else PASS
    return Check(name, verdict, says, 1.0, found)


def check_sampling_unseen(seen: Observed, mechanism: Mechanism, level: float) -> Check:
    """`check_sampling` for an attacker who sees noisy gradients, not the batches.

    The sum of a canary's coordinate over an epoch of T steps has variance T (sigma^2 + q (1 - q))
    with Poisson batches, and T sigma^2 with shuffled ones. The difference may be too small for the
    number of canaries; `canaries_needed` in the detail would suffice.
    """
    sigma, q = mechanism.noise_multiplier, mechanism.sample_rate
    count = max(1, seen.dirac.epochs)
    value = (
        seen.dirac.epoch_squares
        / count
        / (seen.participation.epoch_steps * (sigma**2 + q * (1 - q)))
    )
    few, many = chi_square_tails(count, level)
    found = Measured(value, value * count / many, value * count / few, level)
    needed = canaries_for_sampling(mechanism, seen.participation.epochs, level)
    canaries = len(seen.dirac.let_in)
    # The least variance that shuffled batches leave: a lower one is another fault.
    shuffled = sigma**2 / (sigma**2 + q * (1 - q))
    alarm = found.below(1) and found.high > shuffled * (1 - ROUNDING)
    says = f"canaries' noisy gradients vary {value:.4f} times as much as with Poisson batches"
    if needed > canaries:
        says += f" (it takes {needed:,.0f} canaries to see shuffled batches there)"
    return Check(
        "sampling, unseen",
        ALARM if alarm else PASS,
        says,
        1.0,
        found,
        {"canaries_needed": float(needed)},
    )


def canaries_for_sampling(mechanism: Mechanism, epochs: int, level: float) -> float:
    """Canaries whose noisy gradients tell shuffled batches with probability POWER.

    Half of them are let in, and each gives one number in each epoch. The variance of N normal
    numbers has a relative deviation of sqrt(2 / N).

    Args:
        mechanism: sigma and q.
        epochs: of the run, >= 1.
        level: of the two-sided interval that must exclude 1.

    Returns: A whole number; infinite at q = 1, where the two do not differ.
    """
    sigma, q = mechanism.noise_multiplier, mechanism.sample_rate
    lacking = q * (1 - q) / (sigma**2 + q * (1 - q))
    if lacking == 0:
        return math.inf
    reach = stats.norm.ppf((1 + level) / 2) + (1 - lacking) * stats.norm.ppf(POWER)
    return float(math.ceil(2 * 2 * (reach / lacking) ** 2 / epochs))
