"""Privacy accounting: the epsilon of a private run, and the noise multiplier for a target epsilon.

It uses Opacus' PRV accountant, and imports Opacus only when an epsilon is computed.  See
docs/METHODS.md, section 8.5 (formula 72).
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from unittest.mock import patch

from mico_competition.competition.rows import MOST_EPSILON
from mico_competition.support.progress import stage
from mico_competition.training.settings import Settings

# The accountant returns an upper bound, and the true epsilon lies at most twice this far below it
# (about once, where that was measured).  2022 used 0.1; small epsilons get a smaller error.
EPS_ERROR = 0.1
# A bound must be at least this many times its error.
LEAST_RATIO = 25

MOST_POINTS = 1e7  # of the accountant's grid, which then takes 10 s and 1 GB
_MOST_LOSS = 700.0
# The tail of a composed loss distribution has an error of about this many roundings a step.
_ROUNDINGS = 20


@dataclass(frozen=True)
class Mechanism:
    """A Poisson-subsampled Gaussian mechanism, composed `num_steps` times.

    Attributes:
        noise_multiplier: sigma > 0, the noise's standard deviation in units of max_grad_norm.
        sample_rate: q in (0, 1], the probability that a record is in a batch.
        num_steps: the number of steps, >= 1.

    Each bound is computed once.  It goes with the mechanism into another process, which then need
    not compute it.

    >>> run = Mechanism(noise_multiplier=1.1, sample_rate=0.01, num_steps=1000)
    >>> round(run.epsilon(target_delta=1e-5), 2)
    1.57
    """

    noise_multiplier: float
    sample_rate: float
    num_steps: int
    _computed: dict[float, tuple[float, float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def epsilon(self, target_delta: float) -> float:
        """Compute an upper bound of epsilon at `target_delta`, tight to 2 `eps_error`.

        The method composes privacy loss random variables numerically: Gopi, Lee and Wutschitz,
        NeurIPS 2021, arXiv 2106.02848.  The result is infinite if the bound cannot be computed.
        """
        return self._bound(target_delta)[0]

    def eps_error(self, target_delta: float) -> float:
        """The error of `epsilon`: EPS_ERROR, or less where epsilon is small."""
        return self._bound(target_delta)[1]

    def _bound(self, target_delta: float) -> tuple[float, float]:
        """The last of `_bounds`."""
        if target_delta not in self._computed:
            self._computed[target_delta] = list(self._bounds(target_delta))[-1]
        return self._computed[target_delta]

    def _bounds(self, target_delta: float) -> Iterator[tuple[float, float]]:
        """Ever tighter upper bounds of epsilon with their errors, until one is tight enough.

        Each has half the error of the previous one.  The sequence ends early if the next bound
        would need too large a grid; it ends in infinity if two bounds contradict each other, or
        if there is none.
        """
        error, low, high = EPS_ERROR, 0.0, math.inf
        while True:
            bound = _prv_epsilon(self, target_delta, error)
            if math.isinf(bound) and math.isfinite(high):
                return  # the grid is too large: the previous bound is the last
            if not low - 1e-9 <= bound or bound - 2 * error > high + 1e-9:
                yield math.inf, error
                return
            yield bound, error
            if bound >= LEAST_RATIO * error or math.isinf(bound) or bound < 1e-6:
                return
            low, high = max(low, bound - 2 * error), min(high, bound)
            error /= 2

    @classmethod
    @lru_cache(maxsize=256)
    def for_target(
        cls, *, target_epsilon: float, target_delta: float, sample_rate: float, num_steps: int
    ) -> Mechanism:
        """Find the mechanism with the least noise whose epsilon is at most `target_epsilon`.

        The search stops within 0.01 of the target (within 0.5 % of a target below 2).  The true
        epsilon is lower by about `eps_error`.

        Args:
            target_epsilon: in (0, 500].
            target_delta: in (0, 1).
            sample_rate: q in (0, 1].
            num_steps: the number of steps, >= 1.

        Raises:
            ValueError: if the accountant cannot compute an epsilon for these arguments.
        """
        _check_target(target_epsilon, target_delta, num_steps)
        tolerance = min(0.01, 0.005 * target_epsilon)
        low, high = 0.0, 20.0
        with stage(f"Noise for epsilon {target_epsilon:g}", unit="noise level") as shown:

            def spent(noise_multiplier: float) -> float:
                shown.update()
                tried = cls(noise_multiplier, sample_rate, num_steps)
                return tried._epsilon_near(target_epsilon, target_delta, tolerance)

            reached = spent(high)
            while reached > target_epsilon:
                high *= 2
                reached = spent(high)
                if high > 1e9:
                    raise ValueError(
                        f"No noise multiplier reaches target_epsilon={target_epsilon} at "
                        f"target_delta={target_delta} over {num_steps} steps: "
                        "choose a delta well below 1 / num_records, and else a larger epsilon."
                    )
            # Bounds jump where their error is halved, so none may lie within the tolerance.
            while target_epsilon - reached > tolerance and high - low > 1e-4 * high:
                middle = (low + high) / 2
                epsilon = spent(middle)
                if epsilon < target_epsilon:
                    high, reached = middle, epsilon
                else:
                    low = middle
        return cls(high, sample_rate, num_steps)

    def _epsilon_near(self, target: float, target_delta: float, tolerance: float) -> float:
        """`epsilon` if it is near the target, else a bound that lies on the same side of it."""
        bound = math.inf
        for bound, error in self._bounds(target_delta):
            if bound - 2 * error > target or target - bound > tolerance:
                break  # tighter bounds would lie on the same side
        return bound


def check_mechanism(settings: Settings, mechanism: Mechanism | None) -> None:
    """Check that a run with `mechanism`, which another process has computed, meets its target.

    Raises:
        ValueError: if the mechanism has another sampling rate or number of steps than the settings,
            if its epsilon is above their target, or if they train without privacy.
    """
    if mechanism is None:
        return
    if settings.disable_dp:
        raise ValueError(f"Expected no mechanism for a run without privacy, got {mechanism}.")
    rate, steps = settings.sample_rate, settings.num_steps
    if (mechanism.sample_rate, mechanism.num_steps) != (rate, steps):
        raise ValueError(
            f"Expected a mechanism with sample_rate={rate} and num_steps={steps}, as the settings "
            f"have them, got {mechanism}."
        )
    epsilon = mechanism.epsilon(settings.target_delta)
    if not epsilon <= settings.target_epsilon:
        raise ValueError(
            f"Expected a mechanism of epsilon {settings.target_epsilon} at most, got {mechanism} "
            f"of epsilon {epsilon}."
        )


def _check_target(target_epsilon: float, target_delta: float, num_steps: int) -> None:
    """Raise ValueError if the accountant cannot compute an epsilon near the target."""
    if not 0 < target_epsilon <= MOST_EPSILON:
        raise ValueError(
            f"Expected target_epsilon={target_epsilon} in (0, {MOST_EPSILON:g}]: it is the "
            "budget of the whole training; above that the accountant overflows, and epsilon "
            "guarantees little."
        )
    if not 0 < target_delta < 1:
        raise ValueError(f"Expected target_delta={target_delta} in (0, 1).")
    least = _ROUNDINGS * num_steps * sys.float_info.epsilon
    if target_delta < least:
        raise ValueError(
            f"Expected target_delta={target_delta} >= {least:.1e} over {num_steps} steps: below "
            "that the accountant's rounding errors count. Raise it, or take fewer steps."
        )
    error = min(EPS_ERROR, target_epsilon / 10)
    points = _grid_points(target_epsilon + 3, error, target_delta, num_steps)
    if points > MOST_POINTS:
        most = max(1, int(num_steps * (MOST_POINTS / points) ** 2))
        raise ValueError(
            f"Expected num_steps={num_steps} <= {most} for epsilon {target_epsilon:g}: the "
            "accountant would need too large a grid. Take fewer epochs, larger batches, or "
            "a larger epsilon."
        )


def _grid_points(largest_loss: float, error: float, target_delta: float, num_steps: int) -> float:
    """The number of points of the grid on which Opacus composes losses up to `largest_loss`."""
    mesh = error / math.sqrt(num_steps * math.log(12_000 / target_delta) / 2)
    return 2 * largest_loss / mesh


@cache
def _kept(renyi_divergence: Callable[[float, float, float], float]) -> Callable[..., float]:
    """Opacus' Rényi divergence, computed once for the same arguments.

    Opacus computes it four times for one bound, and again for the next tighter bound.
    """
    return lru_cache(maxsize=4096)(renyi_divergence)


@lru_cache(maxsize=1024)
def _prv_epsilon(mechanism: Mechanism, target_delta: float, error: float) -> float:
    """Opacus' upper bound of epsilon; infinite where it cannot be computed within limits."""
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis import rdp
    from opacus.accountants.analysis.prv import (
        PoissonSubsampledGaussianPRV,
        compute_safe_domain_size,
    )

    sigma, q, steps = mechanism.noise_multiplier, mechanism.sample_rate, mechanism.num_steps
    if target_delta < _ROUNDINGS * steps * sys.float_info.epsilon:
        return math.inf
    with warnings.catch_warnings(), patch.object(rdp, "_compute_rdp", _kept(rdp._compute_rdp)):
        # Integrating a truncated PRV warns of round-off that its error bound already counts.
        warnings.simplefilter("ignore")
        try:
            largest = compute_safe_domain_size(
                [PoissonSubsampledGaussianPRV(q, sigma)], [steps], error, target_delta / 1000
            )
            points = _grid_points(largest, error, target_delta, steps)
            if not largest < _MOST_LOSS or points > MOST_POINTS:
                return math.inf
            accountant = PRVAccountant()
            accountant.history = [(sigma, q, steps)]
            bound = float(accountant.get_epsilon(delta=target_delta, eps_error=error))
        except (RuntimeError, ValueError):  # its own checks of the grid
            return math.inf
    return bound if math.isfinite(bound) else math.inf
