"""Shared by all shadow-model attacks: checked inputs, and moments of IN and OUT shadows.

Shapes are the same everywhere. `shadow` is float[models, points]: the signal of every shadow model
at every point; `is_member` is bool[models, points]: which of them trained on it. `target` is
float[points], or float[targets, points] when several models are attacked on the same points. Points
of different models (each has its own challenge points) may also be concatenated.

If a target is itself one of the shadows, `target_index` names its row, and its own terms are
subtracted: an attack must never see the label that it predicts.

The mathematics is in docs/METHODS.md, sections 2.1 and 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

BLOCK = 1 << 20  # numbers in one block: bounds temporary arrays to some 10 MB each
LEAK_SAMPLE = 256  # points compared in the search for a target among its own shadows


@dataclass(frozen=True)
class Inputs:
    """Checked arrays; `own` is the row of `shadow` that each target is, int[like target]."""

    target: np.ndarray
    shadow: np.ndarray
    is_member: np.ndarray
    own: np.ndarray | None = None


@dataclass(frozen=True)
class Moments:
    """Counts, means and sums of squared deviations of IN and OUT shadows.

    Each is float[points], or of the target's shape if targets are left out. An empty group has mean
    0 and sum 0: check the count first, or use `groups.shrunk`.
    """

    n_in: np.ndarray
    n_out: np.ndarray
    mean_in: np.ndarray
    mean_out: np.ndarray
    ss_in: np.ndarray
    ss_out: np.ndarray

    @property
    def n(self) -> np.ndarray:
        """Number of shadows."""
        count: np.ndarray = self.n_in + self.n_out
        return count

    @property
    def mean_all(self) -> np.ndarray:
        """Mean over all shadows."""
        mean: np.ndarray = (self.n_in * self.mean_in + self.n_out * self.mean_out) / self.n
        return mean

    @property
    def ss_all(self) -> np.ndarray:
        """Sum of squared deviations of all shadows from their common mean."""
        between = self.n_in * self.n_out / self.n * (self.mean_in - self.mean_out) ** 2
        squares: np.ndarray = self.ss_in + self.ss_out + between
        return squares


def check_inputs(
    target: np.ndarray,
    shadow: np.ndarray,
    is_member: np.ndarray,
    target_index: int | np.ndarray | None = None,
) -> Inputs:
    """The arrays of an attack, checked: shapes, finite signals, and no target among its shadows.

    Args:
        target: float[points] or float[targets, points].
        shadow: float[models, points].
        is_member: bool[models, points] (0 and 1 will do).
        target_index: the row of `shadow` that each target is: one int, int[targets], or
            int[points] if points of several targets are concatenated.

    Raises:
        ValueError: naming the array and the fix.
    """
    target, shadow = np.asarray(target), np.asarray(shadow)
    if shadow.ndim != 2 or shadow.shape[0] == 0 or shadow.shape[1] == 0:
        raise ValueError(
            f"Expected shadow of shape [models, points], at least one each, got {shadow.shape}."
        )
    if target.ndim not in (1, 2) or target.shape[-1] != shadow.shape[1] or target.size == 0:
        raise ValueError(
            f"Expected target of shape [{shadow.shape[1]}] or [targets, {shadow.shape[1]}], "
            f"one number for each point of shadow, got {target.shape}."
        )
    is_member = check_mask(is_member, shadow.shape)
    for name, array in (("target", target), ("shadow", shadow)):
        check_finite(name, array)
    own = None
    if target_index is not None:
        own = _own_rows(target, shadow, target_index)
    else:
        _refuse_leak(target, shadow)
    return Inputs(target.astype(np.float64), shadow, is_member, own)


def check_finite(name: str, array: np.ndarray) -> None:
    """ValueError for signals that are not finite numbers."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Expected {name} to hold real numbers, got dtype {array.dtype}.")
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"Expected finite signals, got {int(bad.sum())} NaN or infinite in {name}, first at "
            f"{first}: leave out the model or repair the signal (see transforms.py)."
        )


def check_varies(varies: bool) -> None:
    """ValueError for signals that do not vary between models."""
    if not varies:
        raise ValueError(
            "Expected signals that vary between shadow models, got constant ones: is it one model "
            "many times, or a saturated signal (transforms.py: take the stable logit)?"
        )


def check_mask(is_member: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The membership mask as bool, of the shape of the shadows."""
    is_member = np.asarray(is_member)
    if is_member.shape != shape:
        raise ValueError(
            f"Expected is_member of shape {shape}, one mark for each shadow model and point, "
            f"got {is_member.shape}."
        )
    if is_member.dtype != bool:
        if not np.isin(is_member, (0, 1)).all():
            raise ValueError("Expected is_member to hold True and False (or 1 and 0) only.")
        is_member = is_member.astype(bool)
    return is_member


def _own_rows(target: np.ndarray, shadow: np.ndarray, index: int | np.ndarray) -> np.ndarray:
    """`target_index` broadcast to the target's shape, and checked against the signals."""
    rows = np.asarray(index)
    if rows.dtype.kind not in "iu" or (rows < 0).any() or (rows >= len(shadow)).any():
        raise ValueError(f"Expected target_index in 0..{len(shadow) - 1}, got {index}.")
    if target.ndim == 2 and rows.shape == target.shape[:1]:
        rows = rows[:, None]
    elif rows.ndim and rows.shape != target.shape:
        raise ValueError(
            f"Expected target_index to be one int or one a target, got shape {rows.shape} for "
            f"target {target.shape}."
        )
    rows = np.broadcast_to(rows, target.shape)
    if len(shadow) < 2:
        raise ValueError("Expected at least one shadow model beside the target, got none.")
    own = shadow[rows, np.arange(shadow.shape[1])].astype(np.float64)
    scale = np.abs(own).max()
    if not np.allclose(target, own, rtol=1e-3, atol=1e-3 * scale):
        raise ValueError(
            "Expected target to equal the rows of shadow that target_index names; the signals "
            "differ: is the index shifted, or another transform applied?"
        )
    return rows


def _refuse_leak(target: np.ndarray, shadow: np.ndarray) -> None:
    """ValueError for a target with the signals of a shadow: its label would be an input."""
    step = -(-shadow.shape[1] // LEAK_SAMPLE)
    seen, asked = shadow[:, ::step], np.atleast_2d(target)[:, ::step]
    if seen.shape[1] < 10:
        return  # too few points to tell a copy from a coincidence
    if seen.dtype != asked.dtype and seen.dtype.kind == asked.dtype.kind == "f":
        coarser = min(seen.dtype, asked.dtype, key=lambda dtype: dtype.itemsize)
        with np.errstate(over="ignore"):  # the same number in two precisions
            seen, asked = seen.astype(coarser), asked.astype(coarser)
    for row, signals in enumerate(asked):
        equal = seen == signals
        # Saturated signals are equal in many models, or have few values; those of a copy do not.
        alone = equal.sum(axis=0) == 1
        if alone.mean() > 0.5 and len(np.unique(signals[alone])) >= 10:
            model = int(equal.sum(axis=1).argmax())
            raise ValueError(
                f"Expected no target among its own shadows; target {row} equals shadow {model}: "
                "take it out of shadow, or name it in target_index."
            )


def blocks(models: int, points: int) -> Iterator[slice]:
    """Slices of the points such that models x slice has fewer than BLOCK numbers."""
    step = max(1, BLOCK // models)
    return (slice(start, min(start + step, points)) for start in range(0, points, step))


def masked_moments(shadow: np.ndarray, is_member: np.ndarray) -> Moments:
    """Moments of IN and OUT shadows at each point, by products with the mask, in two passes.

    Args:
        shadow: float[models, points], finite.
        is_member: bool[models, points].
    """
    models, points = shadow.shape
    out = {field.name: np.empty(points) for field in fields(Moments)}
    for cols in blocks(models, points):
        x = shadow[:, cols].astype(np.float64)
        weight = is_member[:, cols].astype(np.float64)
        groups = {"in": weight, "out": 1.0 - weight}
        means = {}
        for name, w in groups.items():
            count = w.sum(axis=0)
            means[name] = np.einsum("mp,mp->p", w, x) / np.maximum(count, 1.0)
            out[f"n_{name}"][cols] = count
            out[f"mean_{name}"][cols] = means[name]
        x -= np.where(is_member[:, cols], means["in"], means["out"])
        for name, w in groups.items():
            # Corrects for the rounding of the mean (Chan et al.'s two-pass sums).
            rest = np.einsum("mp,mp->p", w, x) / np.maximum(out[f"n_{name}"][cols], 1.0)
            out[f"mean_{name}"][cols] += rest
            squares = np.einsum("mp,mp,mp->p", w, x, x) - out[f"n_{name}"][cols] * rest**2
            out[f"ss_{name}"][cols] = np.maximum(squares, 0.0)
    return Moments(**out)


def moments_of(inputs: Inputs) -> Moments:
    """Moments of the shadows, with each target left out if `target_index` is given."""
    moments = masked_moments(inputs.shadow, inputs.is_member)
    if inputs.own is None:
        return moments
    columns = np.arange(inputs.shadow.shape[1])
    x = inputs.shadow[inputs.own, columns].astype(np.float64)
    seen = inputs.is_member[inputs.own, columns]
    n_in, mean_in, ss_in = _remove(inputs, moments, x, seen, group=True)
    n_out, mean_out, ss_out = _remove(inputs, moments, x, ~seen, group=False)
    return Moments(n_in, n_out, mean_in, mean_out, ss_in, ss_out)


def _remove(
    inputs: Inputs, moments: Moments, x: np.ndarray, gone: np.ndarray, group: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and squares of a group without `x` where `gone` (Welford's step, reversed)."""
    name = "in" if group else "out"
    n, mean, ss = (getattr(moments, f"{kind}_{name}") for kind in ("n", "mean", "ss"))
    left = n - gone
    step = np.where(gone, x - mean, 0.0)
    new_mean = np.where(left > 0, mean - step / np.maximum(left, 1.0), 0.0)
    new_ss = np.where(left > 1, ss - step**2 * n / np.maximum(left, 1.0), 0.0)
    # Removing an outlier leaves a difference of two large numbers: compute the sums again.
    doubtful = gone & (left > 0) & (new_ss <= 1e-4 * ss)
    assert inputs.own is not None
    rows, columns = inputs.own[doubtful], np.broadcast_to(np.arange(x.shape[-1]), x.shape)[doubtful]
    exact_mean, exact_ss = np.empty(len(rows)), np.empty(len(rows))
    for part in blocks(len(inputs.shadow), len(rows)):
        kept = inputs.is_member[:, columns[part]] == group
        kept[rows[part], np.arange(kept.shape[1])] = False
        values = inputs.shadow[:, columns[part]].astype(np.float64)
        exact_mean[part] = np.where(kept, values, 0.0).sum(axis=0) / kept.sum(axis=0)
        exact_ss[part] = (np.where(kept, values - exact_mean[part], 0.0) ** 2).sum(axis=0)
    new_mean[doubtful], new_ss[doubtful] = exact_mean, exact_ss
    return left, new_mean, np.maximum(new_ss, 0.0)
