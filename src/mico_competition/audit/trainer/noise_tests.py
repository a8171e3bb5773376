"""Tests of the noise added to clipped sums: independent and Gaussian in every coordinate.

Each test gives the smallest of its p-values, multiplied by their number (Bonferroni), and describes
the finding. The null hypothesis is rows of independent standard normal numbers; its distributions
are exact, or normal for sums of thousands of numbers. See docs/METHODS.md, section 10.3 (formulas
88 and 89).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import ndtr

from mico_competition.audit.trainer.recording import NoiseRows

_MOST = 400_000  # numbers of a parameter in the test of distribution
_SPACED = 50_000  # numbers in the test of spacings; more would show float32's own grid
_LONGEST = 2000  # numbers of two parameters that are compared
_MATRICES = 40  # rows whose matrices' singular values are computed


@dataclass(frozen=True)
class Finding:
    """The most striking finding of a test.

    Attributes:
        p: its p-value, corrected for the number of tests.
        says: the finding, in a clause.
        else_says: the clause if the p-value is not small.
    """

    p: float
    says: str
    else_says: str


class Worst:
    """The most striking of several findings."""

    def __init__(self, says: str) -> None:
        self.count, self.p, self.says, self.else_says = 0, 1.0, says, says

    def see(self, p: float | np.ndarray, says: str, count: int | None = None) -> None:
        """Add a p-value, or several that count as `count` tests; by default as their number."""
        values = np.atleast_1d(p).ravel()
        self.count += len(values) if count is None else count
        if not len(values):
            return
        at = int(np.nanargmin(values))
        if values[at] < self.p:
            self.p, self.says = float(values[at]), says

    def finding(self) -> Finding:
        """The finding with its corrected p-value."""
        return Finding(min(1.0, self.p * max(1, self.count)), self.says, self.else_says)


def two_sided(z: np.ndarray) -> np.ndarray:
    """The two-sided p-value of standard normal numbers."""
    p_value: np.ndarray = 2 * ndtr(-np.abs(z))
    return p_value


def matrix_of(rows: NoiseRows, *, standardised: bool) -> np.ndarray:
    """float32[rows, kept]; if standardised, each row has standard deviation 1."""
    values = np.stack(rows.values)
    if not standardised:
        return values
    matrix: np.ndarray = values / np.sqrt(np.mean(np.square(values), axis=1, keepdims=True))
    return matrix


def too_little(rows: NoiseRows) -> Finding:
    """Less noise than claimed: in a step, in a block of coordinates, or in a single coordinate.

    Blocks are tested in every row and, like coordinates, over all rows and over those of each
    model.
    """
    found = Worst("in no step, block or coordinate is there less noise than claimed")
    squares, sizes = np.stack(rows.squares), rows.block_sizes
    names, models = np.array(rows.block_names), np.array(rows.model)
    for name in rows.kept:
        mine = names == name
        in_step = stats.chi2.cdf(squares[:, mine].sum(axis=1), sizes[mine].sum())
        step = rows.step[int(in_step.argmin())]
        found.see(in_step, f"{name} has too little noise in step {step:,}")
    for row, of_row in enumerate(squares):
        in_block = stats.chi2.cdf(of_row, sizes)
        says = f"a block of {names[int(in_block.argmin())]} has too little noise"
        found.see(in_block, f"{says} in step {rows.step[row]:,}")
    single = np.square(np.stack(rows.values))
    groups = [models == model for model in np.unique(models)]
    for which in [np.ones(len(rows), dtype=bool), *(groups if len(groups) > 1 else [])]:
        count = int(which.sum())
        of_blocks = stats.chi2.cdf(squares[which].sum(axis=0), count * sizes)
        found.see(of_blocks, f"a block of {names[int(of_blocks.argmin())]} has too little noise")
        of_each = stats.chi2.cdf(single[which].sum(axis=0, dtype=np.float64), count)
        owner = _owner(rows, int(of_each.argmin()))
        found.see(of_each, f"a coordinate of {owner} has too little noise")
    return found.finding()


def _owner(rows: NoiseRows, column: int) -> str:
    return next(name for name, part in rows.kept.items() if part.start <= column < part.stop)


def distribution(rows: NoiseRows, z: np.ndarray, rng: np.random.Generator) -> Finding:
    """Departures from the Gaussian distribution: its shape, its tails, or a grid."""
    found = Worst("the noise is distributed as a Gaussian")
    for name, part in rows.kept.items():
        _shape(found, f"the noise of {name}", _some(z[:, part], _MOST, rng))
    _shape(found, "the noise", _some(z, 10 * _MOST, rng))
    return found.finding()


def _some(z: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """float64, a bounded number of the values, evenly spread, each at most once."""
    stride = -(-z.size // most)
    return z.ravel()[int(rng.integers(stride)) :: stride].astype(np.float64)


def _shape(found: Worst, what: str, values: np.ndarray) -> None:
    n = len(values)
    if n < 50:
        return
    ordered = np.sort(values)
    uniform = ndtr(ordered)
    ranks = np.arange(1, n + 1)
    distance = max(np.max(ranks / n - uniform), np.max(uniform - (ranks - 1) / n))
    found.see(stats.kstwo.sf(distance, n), f"{what} is no Gaussian (Kolmogorov and Smirnov)")
    largest = max(-ordered[0], ordered[-1])
    inside = n * math.log1p(-2 * ndtr(-largest))  # log P[all lie within the largest]
    found.see(math.exp(inside), f"{what} is cut off at {largest:.2f} deviations")
    found.see(-math.expm1(inside), f"{what} has a number {largest:.2f} deviations out")
    for edge in (2.0, 3.0, 4.0):
        outside = int(n - np.searchsorted(ordered, edge) + np.searchsorted(ordered, -edge))
        q = 2 * ndtr(-edge)
        p = min(1.0, 2 * min(stats.binom.cdf(outside, n, q), stats.binom.sf(outside - 1, n, q)))
        found.see(p, f"{what} has {outside:,} of {n:,} numbers beyond {edge:g} deviations")
    if n >= 100_000:  # then sums of third and fourth powers are normal
        moments = np.array([np.mean(values**3), np.mean(values**4) - 3])
        z = moments / np.sqrt(np.array([15, 96]) / n)
        found.see(
            two_sided(z), f"{what} has a skewness and kurtosis of {z[0]:.1f}, {z[1]:.1f} errors"
        )
    few = values[:: max(1, n // _SPACED)][:_SPACED]
    gaps = np.diff(ndtr(np.sort(few))) * len(few)
    # Spacings of uniform numbers are exponential; that they sum to 1 makes the test conservative.
    distance = _exponential_distance(gaps)
    found.see(stats.kstwo.sf(distance, len(gaps)), f"{what} lies on a grid, or has equal numbers")


def _exponential_distance(gaps: np.ndarray) -> float:
    cdf, n = -np.expm1(-np.sort(gaps)), len(gaps)
    ranks = np.arange(1, n + 1)
    return float(max(np.max(ranks / n - cdf), np.max(cdf - (ranks - 1) / n)))


def across_steps(rows: NoiseRows, z: np.ndarray) -> Finding:
    """Correlated rows: of different steps, or of different models."""
    found = Worst("the noise of no two steps or models is correlated")
    resemblance(found, z, [f"step {s:,} of model {m}" for s, m in zip(rows.step, rows.model)])
    for name, part in rows.kept.items():  # the noise of a single parameter may repeat, too
        if part.stop - part.start >= 32:
            labels = [f"{name} in step {s:,} of model {m}" for s, m in zip(rows.step, rows.model)]
            resemblance(found, z[:, part], labels)
    for one, other in _neighbours(rows):
        # A random stream that is shifted from one step to the next, or overlaps.
        _shifted(found, z[one], z[other])
    return found.finding()


def resemblance(found: Worst, z: np.ndarray, labels: Sequence[str]) -> None:
    """The inner products of all pairs of rows, each over the norm of one: standard normal."""
    lengths = np.linalg.norm(z, axis=1)
    count = len(z) * (len(z) - 1) // 2
    for start in range(0, len(z), 1000):
        gram = (z[start : start + 1000] @ z.T).astype(np.float64) / np.maximum(lengths, 1e-9)
        gram[np.arange(len(z)) <= np.arange(start, start + len(gram))[:, None]] = 0
        i, j = divmod(int(np.abs(gram).argmax()), gram.shape[1])
        p = float(two_sided(gram[i, j]))
        found.see(p, f"the noise of {labels[start + i]} and of {labels[j]} is correlated", 0)
    found.count += count


def _neighbours(rows: NoiseRows) -> Iterator[tuple[list[int], list[int]]]:
    """Rows of a model with those of its next kept step."""
    for model in sorted(set(rows.model)):
        mine = [i for i, m in enumerate(rows.model) if m == model]
        if len(mine) > 1:
            yield mine[:-1], mine[1:]


def _shifted(found: Worst, one: np.ndarray, other: np.ndarray) -> None:
    n = one.shape[1]
    size = 1 << (2 * n - 1).bit_length()
    total = np.zeros(size)
    for a, b in zip(one, other):
        total += np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)
    lags = np.concatenate([np.arange(n), np.arange(-n + 1, 0)])
    sums = np.concatenate([total[:n], total[size - n + 1 :]])
    overlap = (n - np.abs(lags)) * len(one)
    enough = overlap >= 10_000
    if enough.any():
        p = two_sided(sums[enough] / np.sqrt(overlap[enough]))
        found.see(p, "one step's noise is the one before's, shifted")


def within_a_step(rows: NoiseRows, z: np.ndarray) -> Finding:
    """Correlated coordinates of one row: a random stream that starts again, or equal rows."""
    found = Worst("no two coordinates of a step's noise are correlated")
    n = z.shape[1]
    size = 1 << (2 * n - 1).bit_length()
    total, squares = np.zeros(n), np.zeros(n)
    for row in z:
        of_row = np.fft.irfft(np.square(np.abs(np.fft.rfft(row, size))), size)[:n]
        total += of_row
        squares += np.square(of_row)
    overlap = n - np.arange(n)
    enough = (overlap * len(z) >= 20_000) & (np.arange(n) > 0)
    lags = np.flatnonzero(enough)
    if len(lags):
        p = two_sided(total[lags] / np.sqrt(overlap[lags] * len(z)))
        found.see(p, f"numbers {lags[int(p.argmin())]:,} places apart are correlated")
    enough &= overlap >= 2000
    lags = np.flatnonzero(enough)
    if len(lags):
        p = stats.chi2.sf(squares[lags] / overlap[lags], len(z))
        found.see(p, f"numbers {lags[int(p.argmin())]:,} places apart depend on each other")
    for name, part in rows.kept.items():
        means = z[:, part].sum(axis=1, dtype=np.float64) / math.sqrt(part.stop - part.start)
        found.see(two_sided(means), f"the noise of {name} has a part in common")
        p = stats.chi2.sf(np.square(means).sum(), len(means))
        found.see(p, f"the noise of {name} has a part in common")
    return found.finding()


def across_parameters(rows: NoiseRows, z: np.ndarray) -> Finding:
    """Parameters with correlated first numbers, from random streams that start alike."""
    found = Worst("the noise of no two parameters is correlated")
    names = list(rows.kept)
    for i, one in enumerate(names):
        for other in names[:i]:
            a, b = rows.kept[one], rows.kept[other]
            count = min(a.stop - a.start, b.stop - b.start, _LONGEST)
            x, y = z[:, a.start : a.start + count], z[:, b.start : b.start + count]
            both = np.einsum("ij,ij->i", x, y, dtype=np.float64)
            lengths = np.maximum(np.einsum("ij,ij->i", x, x, dtype=np.float64), 1e-12)
            says = f"{one} and {other} have noise that is correlated"
            found.see(two_sided(both.sum() / math.sqrt(lengths.sum())), says)
            found.see(stats.chi2.sf((both**2 / lengths).sum(), len(z)), says)
    return found.finding()


def spectrum(rows: NoiseRows, z: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> Finding:
    """Noise of too few dimensions, in a parameter or over steps.

    The largest singular value of a matrix [r, c] of independent normal numbers is above
    sqrt(r) + sqrt(c) + t with a probability of exp(-t^2 / 2) at most (Davidson and Szarek 2001).
    """
    found = Worst("the noise has as many dimensions as it should have")

    def see(matrix: np.ndarray, says: str) -> None:
        over = float(np.linalg.norm(matrix, 2)) - sum(map(math.sqrt, matrix.shape))
        found.see(math.exp(-(max(0.0, over) ** 2) / 2), says)

    see(z, "the noise of many steps lies in few dimensions")
    chosen = np.linspace(0, len(z) - 1, min(len(z), _MATRICES)).astype(int)
    for name, part in rows.kept.items():
        shape = shapes.get(name, ())
        if len(shape) < 2:
            continue
        columns = math.prod(shape[1:])
        lines = (part.stop - part.start) // columns
        if lines < 2:
            continue
        for row in np.unique(chosen):
            flat = z[row, part.start : part.start + lines * columns]
            see(flat.reshape(lines, columns), f"{name} has noise of few dimensions")
    return found.finding()
