"""The joint decode: the coefficients of all records' updates in a model's weights.

The trace of a record also contains other records; a ridge estimate over all records cancels these.
Its kernel is N x N, dense and never formed: a product with it is two matrix products of N x D x H.
Ours: docs/METHODS.md, sections 6.4 and 6.5 (formulas 42 to 47).

All ridges are solved together, by conjugate gradients that stop at a residual. Preconditioners are
left out, since each would need a solve for every ridge: on 19,732 baskets at ridge 0.1 the diagonal
takes as many steps as none (25), blocks of classes more (29), Kronecker factors on the weights'
side as many (25).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mico_competition.attacks.whitebox.mlp.mlp_layers import TINY
from mico_competition.support.cpus import multiplies_bfloat16

TOLERANCE = 0.03  # relative residual at which a solve stops
STEPS = 400  # maximal steps; 197,324 records on 76,800 weights take 46 at ridge 0.1
LARGE = 2**30  # multiplications of a matrix product, from which bfloat16 is worth its rounding
SOLVED = 1e-6  # share of the tolerance at which a shift is finished, while smaller ones continue

_log = logging.getLogger(__name__)


@dataclass
class Solves:
    """The convergence of solves for many models, for one warning about all of them.

    Attributes:
        count: the number of solves.
        short: those that did not converge.
        worst: the largest relative residual among these.
        ridge: the largest ridge that did not converge.
        steps: the largest number of products with a matrix.
        tolerance: of the last solve.
    """

    count: int = 0
    short: int = 0
    worst: float = 0.0
    ridge: float = 0.0
    steps: int = 0
    tolerance: float = TOLERANCE

    def add(self, residuals: dict[float, float], steps: int, tolerance: float) -> None:
        """Add a solve with the residual of each ridge."""
        missed = {r: residual for r, residual in residuals.items() if not residual <= tolerance}
        self.count += 1
        self.tolerance = tolerance
        self.steps = max(self.steps, steps)
        if missed:
            self.short += 1
            self.worst = max(self.worst, *missed.values())
            self.ridge = max(self.ridge, *missed)

    def warn(self, what: str) -> None:
        """Log a warning if any solve of `what` did not converge."""
        if self.short:
            _log.warning(
                "%s did not converge for %d of %d models: after %d steps the relative residual is "
                "up to %.2g, not %g, at ridges up to %g. Scores are valid, but weaker than they "
                "could be.",
                what,
                self.short,
                self.count,
                self.steps,
                self.worst,
                self.tolerance,
                self.ridge,
            )


def compact(rows: Tensor, width: int) -> Tensor:
    """Rows float32[N, D] for many products with [N, width]: bfloat16 if that takes less time.

    It does if the product is large and the processor has bfloat16. Products are then off by half a
    percent, less than the residual at which solves stop.
    """
    small = rows.numel() * width < LARGE
    return rows if small or not multiplies_bfloat16(rows.device) else rows.bfloat16()


@dataclass(frozen=True)
class Kernel:
    """K, by its factors; symmetric and positive semidefinite.

    Attributes:
        white: float[N, D], whitened inputs.
        directions: float[N, H], the other factor.
        beside: the kernel of another layer, which is added.
    """

    white: Tensor
    directions: Tensor
    beside: Kernel | None = None

    def __call__(self, c: Tensor) -> Tensor:
        """float32[N], K c."""
        scaled = (self.directions * c[:, None]).to(self.white.dtype)
        own = self.inner(scaled.T @ self.white)
        return own if self.beside is None else own + self.beside(c)

    def inner(self, weights: Tensor) -> Tensor:
        """float32[N], white_i^T weights^T directions_i, for weights float[H, D] of this layer."""
        seen = self.white @ weights.to(self.white.dtype).T
        return (seen * self.directions).sum(1, dtype=torch.float32)

    def fast(self) -> Kernel:
        """The kernel for many products, its factors as `compact` stores them."""
        white = compact(self.white, self.directions.shape[1])
        beside = self.beside and self.beside.fast()
        return Kernel(white, self.directions.to(white.dtype), beside)

    def scaled(self, spread: Tensor) -> Callable[[Tensor], Tensor]:
        """c -> S K S c, S the diagonal of `spread` float32[N]."""
        return lambda c: spread * self(spread * c)

    def standardised(self) -> Kernel:
        """The kernel with directions scaled so that the mean of its diagonal is 1."""
        return self.divided(self.diagonal.mean().clamp_min(TINY).sqrt())

    def divided(self, by: Tensor) -> Kernel:
        """The kernel with all directions divided by a number."""
        beside = self.beside and self.beside.divided(by)
        return Kernel(self.white, self.directions / by, beside)

    @property
    def diagonal(self) -> Tensor:
        """float32[N], K_ii."""
        squares = [
            torch.linalg.vecdot(rows, rows).float() for rows in (self.white, self.directions)
        ]
        own: Tensor = squares[0] * squares[1]
        return own if self.beside is None else own + self.beside.diagonal


def solve_shifted(
    matrix: Callable[[Tensor], Tensor],
    right: Tensor,
    shifts: Sequence[float],
    tolerance: float = TOLERANCE,
    steps: int = STEPS,
    strict: bool = False,
    solves: Solves | None = None,
) -> Tensor:
    """float32[len(shifts), N], (matrix + shift I)^-1 right for every shift, for the cost of one.

    Conjugate gradients of one Krylov space serve all shifts (Jegerlehner, "Krylov space solvers
    for shifted linear systems", hep-lat/9612014, 1996).

    Args:
        matrix: x -> matrix x, symmetric and positive semidefinite.
        right: float32[N].
        shifts: > 0.
        tolerance: the residual's norm over the right side's at which the smallest shift, and so
            all, count as solved.
        steps: the maximal number of products with the matrix.
        strict: whether it is an error if a shift does not converge.
        solves: records each solve.

    Raises:
        ValueError: if a shift is not above 0, or the right side is not finite; if `strict` and
            the tolerance is not reached.
    """
    if not shifts or not all(0 < shift < float("inf") for shift in shifts):
        raise ValueError(f"Expected ridges > 0, got {list(shifts)}.")
    if not bool(torch.isfinite(right).all()):
        raise ValueError("Expected finite traces, got NaN or infinite ones: is a model broken?")
    base = min(shifts)
    over = torch.tensor([shift - base for shift in shifts], dtype=torch.float64)
    solution = torch.zeros(len(shifts), len(right), dtype=right.dtype, device=right.device)
    search = right.repeat(len(shifts), 1)
    residual, direction = right.clone(), right.clone()
    squared = start = float(right.double() @ right.double())
    # Each shift's residual is a multiple of the smallest one's: `factor`, and the previous one.
    factor, before = torch.ones_like(over), torch.ones_like(over)
    length_before, ratio_before, taken = 1.0, 0.0, 0
    while taken < steps and squared > tolerance**2 * start:
        taken += 1
        product = matrix(direction) + base * direction
        length = squared / float(direction.double() @ product.double())
        residual = residual - length * product
        squared_next = float(residual.double() @ residual.double())
        ratio = squared_next / squared
        # A converged shift stops before its factor underflows.
        live = torch.nonzero(factor**2 * squared > (SOLVED * tolerance) ** 2 * start)[:, 0]
        now, last = factor[live], before[live]
        bent = length * ratio_before * (last - now) + last * length_before * (
            1 + over[live] * length
        )
        after = now * last * length_before / bent
        solution[live] += (length * after / now).to(search)[:, None] * search[live]
        search[live] = (
            after.to(search)[:, None] * residual
            + (ratio * (after / now) ** 2).to(search)[:, None] * search[live]
        )
        direction = residual + ratio * direction
        before[live], factor[live] = now, after
        length_before, ratio_before, squared = length, ratio, squared_next
    if solves is not None:
        relative = (squared / max(start, 1e-300)) ** 0.5
        residuals = (factor.abs() * relative).tolist()
        solves.add(dict(zip(shifts, residuals)), taken, tolerance)
    if strict and not squared <= tolerance**2 * start:
        raise ValueError(
            f"The joint decode did not converge in {steps} steps: take a larger ridge."
        )
    return solution


def joint_decode(
    kernel: Kernel,
    trace: Tensor,
    ridges: Sequence[float],
    solves: Solves | None = None,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """float32[len(ridges), N], c = (K + ridge I)^-1 T for each ridge.

    Args:
        kernel: of one model.
        trace: float32[N], its first-layer trace, in the kernel's scale.
        ridges: > 0; the noise relative to the mean square of c.
        solves: records each solve.
        tolerance: as in `solve_shifted`.
    """
    return solve_shifted(kernel.fast(), trace, ridges, tolerance, solves=solves)


def decode_with_prior(
    kernel: Kernel,
    trace: Tensor,
    mean: Tensor,
    spread: Tensor,
    ridges: Sequence[float],
    information: Sequence[float] | None = None,
    solves: Solves | None = None,
) -> Tensor:
    """float32[len(ridges), N]: c for the prior mean_j +- spread_j of c_j, instead of 0 +- 1.

    Solves (S K S + ridge I) c' = S (T - K mean), S = diag(spread). mean + spread c' is the
    posterior mean; the result is the evidence of the data about each c_i without its own prior (but
    with those of the others): mean + (spread^2 + 1 / iota_i) c' / spread, iota_i the information
    on c_i. It does not depend on whether the record's own membership is known.

    Args:
        kernel: of one model.
        trace: float32[N].
        mean: float32[N], prior means of c.
        spread: float32[N], prior standard deviations, > 0, in units in which the noise is ridge.
        ridges: > 0.
        information: iota_i / K_ii for each ridge, as `information_of` measures it; None means that
            without interference, 1 / ridge.
        solves: records each solve.
    """
    if not bool((spread > 0).all()):
        raise ValueError("Expected prior spreads > 0: a record that is certain cannot be decoded.")
    kernel = kernel.fast()
    left = trace - kernel(mean)
    solved = solve_shifted(kernel.scaled(spread), spread * left, ridges, solves=solves)
    per_ridge = [1 / ridge for ridge in ridges] if information is None else information
    diagonal = kernel.diagonal.clamp_min(1e-6)
    parts = [own * (spread + 1 / (k * diagonal * spread)) for k, own in zip(per_ridge, solved)]
    return mean + torch.stack(parts)


def information_of(
    kernel: Kernel, spread: Tensor, ridges: Sequence[float], seed: int = 0
) -> list[float]:
    """iota_i / K_ii for each ridge, on average: the information on c_i despite interference.

    With M = (S K S + ridge I)^-1, M_ii = 1 / (ridge (1 + spread_i^2 iota_i)) (the matrix
    inversion lemma); the trace of M is estimated with one random vector of signs (Hutchinson,
    Communications in Statistics 18, 1989) and iota_i / K_ii, taken as equal for all, solved for.
    """
    kernel = kernel.fast()
    generator = torch.Generator().manual_seed(seed)
    signs = (torch.randint(0, 2, (len(spread),), generator=generator) * 2 - 1).to(spread)
    power = (spread**2 * kernel.diagonal).double()
    out = []
    for ridge, own in zip(ridges, solve_shifted(kernel.scaled(spread), signs, ridges)):
        mean = float((signs * own).double().mean()) * ridge  # bounds of 1 / (1 + spread_i^2 iota_i)
        low, high = 0.0, 1 / ridge  # no information, no interference
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _mean_left(power, middle) > mean else (low, middle)
        out.append(max(high, 1e-9))
    return out


def _mean_left(power: Tensor, information: float) -> float:
    """Mean of 1 / (1 + spread_i^2 iota_i), the remaining share of the prior variance."""
    return float((1 / (1 + power * information)).mean())
