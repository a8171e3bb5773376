"""Checks the epsilon that training reports against a second accountant, Google's dp_accounting.

`accounting` uses Opacus' PRV accountant.  This module computes the same mechanism by privacy loss
distributions (PLD), with another library by other authors and another discretisation:
docs/METHODS.md, sections 8.3 and 8.6.  Training does not depend on it, and it imports the library
only when it computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from mico_competition.competition.table import SCENARIOS
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import resolve

# The relation between neighbouring datasets, and dp_accounting's name of it.
NEIGHBOURS = {"add_or_remove": "ADD_OR_REMOVE_ONE", "replace_one": "REPLACE_ONE"}

# The grid of privacy losses.  The cost of rounding up grows with its square and the number of
# steps: for 2022's scenarios 2e-4 adds at most 0.0002 to epsilon, and 1e-3 adds 0.004.
INTERVAL = 2e-4
SEARCH_INTERVAL = 1e-3

RENYI_ORDERS = [order / 10 for order in range(20, 110)] + [*range(11, 65), 128, 256]


@lru_cache(maxsize=256)
def pld_epsilon(
    mechanism: Mechanism,
    target_delta: float,
    *,
    value_discretization_interval: float = INTERVAL,
    neighbours: str = "add_or_remove",
) -> float:
    """Compute a rigorous upper bound of epsilon at `target_delta`: losses are rounded up only.

    Privacy loss distributions (Koskela, Jälkö and Honkela, AISTATS 2020, arXiv 1906.03049)
    discretised by "connect the dots" (Doroshenko et al., PoPETs 2022, arXiv 2207.04380,
    Algorithm 1) and composed by FFT.  For "add_or_remove" both directions are composed, each by
    itself, and the larger epsilon counts: the worse direction of one step need not be the worse
    one of many (Lebeda et al., arXiv 2405.20769).  For "replace_one" the pair is dp_accounting's:
    two records whose clipped gradients are opposite.

    Args:
        mechanism: a Poisson-subsampled Gaussian, composed with itself.
        target_delta: in (0, 1).
        value_discretization_interval: the grid of losses, > 0; a finer one is tighter and slower.
        neighbours: one of NEIGHBOURS.

    Returns:
        epsilon >= 0; infinite if no finite one has this delta.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(target_delta, neighbours, value_discretization_interval=value_discretization_interval)
    losses = _composed(mechanism, value_discretization_interval, neighbours, pessimistic=True)
    return float(losses.get_epsilon_for_delta(target_delta))


def delta_curves(
    mechanism: Mechanism, epsilons: np.ndarray, *, value_discretization_interval: float = INTERVAL
) -> tuple[np.ndarray, np.ndarray]:
    """Compute upper bounds of delta at each of `epsilons` for each direction separately.

    For subsampled mechanisms the two directions differ.  Together they give the whole trade-off
    curve: the first at a negative epsilon follows from the second at the positive one.

    Args:
        mechanism, value_discretization_interval: as in `pld_epsilon`.
        epsilons: float[k], each >= 0.

    Returns:
        `(member, nonmember)`, float64[k] each: the most by which P[S | record in] exceeds
        e^epsilon P[S | record out], over all sets S of outcomes, and the most by which
        P[S | record out] exceeds e^epsilon P[S | record in].

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(0.5, value_discretization_interval=value_discretization_interval)
    if not (epsilons >= 0).all():
        raise ValueError("Expected every epsilon >= 0.")
    losses = _composed(mechanism, value_discretization_interval, "add_or_remove", pessimistic=True)
    # The library's public method gives the larger of the two.  Its "remove" direction compares
    # outputs with the record to outputs without it.
    member, nonmember = (
        np.clip(pmf.get_delta_for_epsilon(epsilons), 0.0, 1.0)
        for pmf in (losses._pmf_remove, losses._pmf_add)
    )
    return member, nonmember


@lru_cache(maxsize=256)
def pld_epsilon_below(
    mechanism: Mechanism,
    target_delta: float,
    *,
    slack: float = 0.05,
    neighbours: str = "add_or_remove",
) -> float:
    """Compute a rigorous lower bound of epsilon, about `slack` below it: losses are rounded down.

    It uses "privacy buckets" (Meiser and Mohammadi, CCS 2018), because dp_accounting has no lower
    bound by connecting the dots.  Each step loses half an interval, so the interval is
    2 slack / num_steps; 2022's longest scenarios take 20 s.

    Args:
        mechanism: as in `pld_epsilon`.
        target_delta: in (0, 1).
        slack: > 0, how much the bound may lose by rounding.
        neighbours: one of NEIGHBOURS.

    Returns:
        epsilon >= 0.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(target_delta, neighbours, slack=slack)
    interval = 2 * slack / mechanism.num_steps
    losses = _composed(mechanism, interval, neighbours, pessimistic=False)
    return float(losses.get_epsilon_for_delta(target_delta))


@lru_cache(maxsize=256)
def rdp_epsilon(mechanism: Mechanism, target_delta: float) -> float:
    """Compute the upper bound of epsilon by Rényi divergences of orders 2 to 256: fast but loose.

    Source: Mironov, Talwar and Zhang, arXiv 1908.10530, as dp_accounting implements it.

    Raises:
        ValueError: if `target_delta` is out of range.
    """
    _check(target_delta)
    library = _library()
    step = library.PoissonSampledDpEvent(
        mechanism.sample_rate, library.GaussianDpEvent(mechanism.noise_multiplier)
    )
    accountant = library.rdp.RdpAccountant(RENYI_ORDERS).compose(step, mechanism.num_steps)
    return float(accountant.get_epsilon(target_delta))


@lru_cache(maxsize=256)
def least_noise(
    mechanism: Mechanism, target_epsilon: float, target_delta: float, *, tolerance: float = 1e-4
) -> float:
    """Find the least noise multiplier, to within `tolerance`, whose PLD epsilon meets the target.

    Args:
        mechanism: gives the sampling rate and steps; the search starts at its noise multiplier.
        target_epsilon: finite, > 0.
        target_delta: in (0, 1).
        tolerance: > 0.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(target_delta, tolerance=tolerance)
    if not 0 < target_epsilon < math.inf:
        raise ValueError(f"Expected target_epsilon={target_epsilon} > 0 and finite.")

    from scipy.optimize import brentq

    def excess(noise_multiplier: float) -> float:
        tried = replace(mechanism, noise_multiplier=noise_multiplier)
        spent = pld_epsilon(tried, target_delta, value_discretization_interval=SEARCH_INTERVAL)
        return spent - target_epsilon

    # The strides are small because the grid of losses grows with 1 / sigma**2.
    low = high = mechanism.noise_multiplier
    while excess(high) > 0:
        low, high = high, 1.05 * high
    while excess(low) <= 0:
        low, high = low / 1.05, low
    return float(brentq(excess, low, high, xtol=tolerance / 4)) + tolerance / 2


@dataclass(frozen=True)
class Row:
    """A private scenario with the epsilons that both accountants compute for it.

    Attributes:
        scenario: the scenario's name.
        len_training: n.
        batch_size: L; the sampling rate is 1 / ceil(n / L).
        target_epsilon: the scenario's target.
        target_delta: the delta of all epsilons of this row.
        mechanism: the mechanism of a run with the scenario's settings.
    """

    scenario: str
    len_training: int
    batch_size: int
    target_epsilon: float
    target_delta: float
    mechanism: Mechanism

    @property
    def reported(self) -> float:
        """The epsilon in a model's metadata: the upper end of Opacus' PRV accountant."""
        return self.mechanism.epsilon(self.target_delta)

    @property
    def upper(self) -> float:
        """PLD, rounded up: the true epsilon is at most this."""
        return pld_epsilon(self.mechanism, self.target_delta)

    @property
    def lower(self) -> float:
        """PLD, rounded down: the true epsilon is at least this.  Slow."""
        return pld_epsilon_below(self.mechanism, self.target_delta)

    @property
    def difference(self) -> float:
        """By how much the reported epsilon exceeds the second accountant's upper bound."""
        return self.reported - self.upper

    @property
    def replace_one(self) -> float:
        """PLD, rounded up, when a record is replaced by another one."""
        return pld_epsilon(self.mechanism, self.target_delta, neighbours="replace_one")

    @property
    def rdp(self) -> float:
        """Rényi accounting's bound."""
        return rdp_epsilon(self.mechanism, self.target_delta)

    @property
    def least_noise(self) -> float:
        """The noise multiplier that would suffice if PLD accounting had to meet the target."""
        return least_noise(self.mechanism, self.target_epsilon, self.target_delta)


def private_rows() -> list[Row]:
    """A row for every private scenario, with the settings that a run of it has."""
    rows = []
    for scenario in SCENARIOS.values():
        if not scenario.private:
            continue
        settings = resolve({"scenario": scenario.name})
        mechanism = Mechanism.for_target(
            target_epsilon=settings.target_epsilon,
            target_delta=settings.target_delta,
            sample_rate=settings.sample_rate,
            num_steps=settings.num_steps,
        )
        rows.append(
            Row(
                scenario.name,
                settings.len_training,
                settings.batch_size,
                settings.target_epsilon,
                settings.target_delta,
                mechanism,
            )
        )
    return rows


def _composed(mechanism: Mechanism, interval: float, neighbours: str, *, pessimistic: bool) -> Any:
    """The privacy loss distribution of all steps of the mechanism."""
    library = _library()
    relation = getattr(library.NeighboringRelation, NEIGHBOURS[neighbours])
    one_step = library.pld.privacy_loss_distribution.from_gaussian_mechanism(
        mechanism.noise_multiplier,
        sampling_prob=mechanism.sample_rate,
        value_discretization_interval=interval,
        neighboring_relation=relation,
        pessimistic_estimate=pessimistic,
        use_connect_dots=pessimistic,
    )
    return one_step.self_compose(mechanism.num_steps)


def _check(target_delta: float, neighbours: str = "add_or_remove", **positive: float) -> None:
    """Raise ValueError, with name, value and range, if an argument is out of range."""
    if not 0 < target_delta < 1:
        raise ValueError(f"Expected target_delta={target_delta} in (0, 1).")
    if neighbours not in NEIGHBOURS:
        raise ValueError(
            f"Unknown neighbours {neighbours!r}: choose one of {', '.join(NEIGHBOURS)}."
        )
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"Expected {name}={value} > 0 and finite.")


def _library() -> Any:
    """Import dp_accounting with the parts that this module uses."""
    import dp_accounting
    import dp_accounting.pld.privacy_loss_distribution
    import dp_accounting.rdp

    return dp_accounting
