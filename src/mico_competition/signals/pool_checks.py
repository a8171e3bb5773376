"""Checks of the arrays that a pool is made of: each mistake gets a sentence with its fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mico_competition.signals.fleet import HIDDEN, MEMBER, NONMEMBER

_ROUNDING = 2e-3  # by which the sum of a row of probabilities may differ from 1
_HALF_ROUNDING = 2e-2  # the same for numbers of 16 bits
LARGEST = 1e12  # beyond, squares and differences of float64 lose what tells models apart
_NEGATIVE_ZERO = -1e-4  # losses just below 0 are rounding errors of a loss of 0


def as_array(name: str, values: Any) -> np.ndarray:
    """A tensor, table, list or array as an array of numbers.

    Raises:
        ValueError: if the values are ragged or are not numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        array: np.ndarray = values.numpy()
        return array
    if isinstance(values, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in values):
        values = [as_array(name, value) for value in values]
    try:
        array = np.ma.filled(values, np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)
        if array.dtype == object:
            array = array.astype(np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {name} to be an array of numbers, got {type(values).__name__}: "
            f"{str(error).rstrip('.')}."
        ) from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Expected {name} to hold numbers, got dtype {array.dtype}.")
    return array


def check_membership(membership: Any, models: int, records: int) -> np.ndarray:
    """int8[models, records]: MEMBER, NONMEMBER, or HIDDEN where the membership is not known.

    Raises:
        ValueError: on another shape or other values; if the mask has no member, or no non-member.
    """
    try:
        array = as_array("membership", membership)
    except ValueError as error:
        raise ValueError(
            f"{error} If these are the indices of each model's members, make the mask: "
            "membership[model, indices] = True."
        ) from error
    wanted = f"membership of shape [models, records] = ({models}, {records})"
    if array.shape != (models, records):
        fix = f"one row for each of the {models} models, one column for each record"
        if array.shape == (records, models):
            fix = "this mask is [records, models], so pass membership.T"
        elif models == 1 and array.shape == (records,):
            fix = "for a single model, pass membership[None]"
        elif array.ndim == 2 and array.shape[0] == models:
            fix = f"there are {records} records, and the mask covers {array.shape[1]}"
        raise ValueError(f"Expected {wanted}, got {array.shape}: {fix}.")
    if array.dtype == bool:
        known = array.astype(np.int8)
    else:
        hidden = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
        other = ~hidden & (array != MEMBER) & (array != NONMEMBER) & (array != HIDDEN)
        if other.any():
            raise ValueError(
                "Expected membership to hold True for a member, False for a non-member, and -1 or "
                f"NaN where it is not known, got {array[other][0].item()}."
            )
        known = np.where(hidden, HIDDEN, array).astype(np.int8)
    stated = known[known != HIDDEN]
    if len(stated) and (stated == stated[0]).all():
        kind, other_kind = ("member", "non-member") if stated[0] else ("non-member", "member")
        raise ValueError(
            f"Expected members and non-members, but in membership every record is a {kind}: add "
            f"records that are a {other_kind} of some model."
        )
    return known


def check_labels(labels: Any, records: int, classes: int | None = None) -> np.ndarray:
    """int64[records], the class of each record.

    Raises:
        ValueError: on another shape, on fractions, and on labels outside 0..classes - 1.
    """
    array = _numbers_of_classes(labels)
    if array.ndim == 2 and array.shape[0] == records:
        fix = "labels.ravel()" if array.shape[1] == 1 else "labels.argmax(1)"
        kind = "a column" if array.shape[1] == 1 else "one-hot rows"
        raise ValueError(
            f"Expected labels of shape [records] = ({records},), got {array.shape}: these look "
            f"like {kind}, so pass {fix}."
        )
    if array.shape != (records,):
        raise ValueError(
            f"Expected labels of shape [records] = ({records},), one for each record, got "
            f"{array.shape}."
        )
    whole = array.astype(np.int64) if np.isfinite(array).all() else np.full(records, -1)
    if not np.array_equal(whole, array):
        raise ValueError("Expected labels to be whole numbers 0, 1, 2, ..., got fractions or NaN.")
    if records and (whole.min() < 0 or (classes is not None and whole.max() >= classes)):
        top = "..." if classes is None else str(classes - 1)
        fix = "count classes from 0"
        if classes is not None and whole.min() == 1 and whole.max() == classes:
            fix = "they count from 1, so pass labels - 1"
        raise ValueError(
            f"Expected labels in 0..{top}, one of the {classes or ''} classes of the models, got "
            f"{whole.min()}..{whole.max()}: {fix}.".replace("  ", " ")
        )
    return whole


def _numbers_of_classes(labels: Any) -> np.ndarray:
    """Labels as an array; ValueError with the fix for the names of classes."""
    try:
        return as_array("labels", labels)
    except ValueError as error:
        raise ValueError(
            f"{error} If these are names of classes, pass "
            "np.unique(labels, return_inverse=True)[1]."
        ) from error


def check_outputs(name: str, outputs: Any, labels: Any) -> np.ndarray:
    """float[models, records, classes], logits or probabilities, finite.

    Raises:
        ValueError: on another shape, and on NaN or infinite values.
    """
    array = as_array(name, outputs)
    records = np.shape(labels)[0] if np.ndim(labels) else 0
    if 0 in array.shape:
        raise ValueError(f"Expected {name} of at least one model and record, got {array.shape}.")
    if array.ndim != 3 or array.shape[1] != records or array.shape[2] < 2:
        fix = f"{records} records have labels"
        if array.ndim == 2 and array.shape[0] == records:
            fix = f"for a single model, pass {name}[None]"
        elif array.ndim == 2 and name == "probabilities":
            fix = "for those of the true class alone, ModelPool.from_losses takes -np.log of them"
        elif array.ndim == 2:
            fix = "if these are losses of the true class, ModelPool.from_losses takes them"
        elif array.ndim == 3 and array.shape[2] == 1:
            fix = "for a model with one output z, pass the two columns 0 and z"
        elif array.ndim == 3 and array.shape[0] == records:
            fix = f"these are [records, models, classes], so pass {name}.swapaxes(0, 1)"
        raise ValueError(
            f"Expected {name} of shape [models, records, classes], got {array.shape}: {fix}."
        )
    for row, values in enumerate(array):
        check_rows(f"{name} of model {row}", values)
    return array


def check_rows(what: str, values: np.ndarray) -> None:
    """ValueError if one model's outputs float[records, ...] are not finite, or beyond `LARGEST`."""
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"Expected finite {what}, got NaN or infinite values at {int((~finite).sum())} of "
            f"{len(values)} records, first at record {int(np.argmin(finite))}: leave the model "
            "out, or repair its outputs."
        )
    most = np.abs(values).reshape(len(values), -1).max(axis=1, initial=0)
    if most.size and float(most.max()) > LARGEST:
        raise ValueError(
            f"Expected {what} of at most {LARGEST:g} in size, got {most.max():.4g} at record "
            f"{int(most.argmax())}: such a model has diverged, so leave it out."
        )


def look_like_probabilities(rows: np.ndarray) -> bool:
    """Whether all rows float[records, classes] are probability distributions."""
    inside = rows.min() >= 0 and rows.max() <= 1 + _ROUNDING
    return bool(inside and (np.abs(rows.sum(axis=1, dtype=np.float64) - 1) < 1e-4).all())


def check_logits(what: str, rows: np.ndarray) -> None:
    """ValueError for probabilities that are given as the logits of one model."""
    if look_like_probabilities(rows):
        raise ValueError(
            f"Expected {what} to be logits, but every row is non-negative and sums to 1: these are "
            "probabilities, which ModelPool.from_probabilities takes (or pass np.log of them)."
        )


def check_probabilities(what: str, rows: np.ndarray) -> None:
    """ValueError for other numbers than the class probabilities of one model."""
    slack = _HALF_ROUNDING if rows.dtype.itemsize < 4 else _ROUNDING
    sums = rows.sum(axis=1, dtype=np.float64)
    if rows.min() < -slack or rows.max() > 1 + slack or np.abs(sums - 1).max() > slack:
        worst = int(np.abs(sums - 1).argmax())
        raise ValueError(
            f"Expected {what} in [0, 1] and of sum 1 over the classes, got values in "
            f"[{rows.min():.3g}, {rows.max():.3g}] and a sum of {sums[worst]:.3g} at record "
            f"{worst}: if these are logits, ModelPool.from_logits takes them."
        )


def check_losses(losses: Any) -> np.ndarray:
    """float[models, records], losses of the true class in nats, at least 0.

    Raises:
        ValueError: on another shape, on negative losses, and on NaN or infinite values.
    """
    array = as_array("losses", losses)
    if 0 in array.shape:
        raise ValueError(f"Expected losses of at least one model and record, got {array.shape}.")
    if array.ndim != 2:
        fix = "for a single model, pass losses[None]" if array.ndim == 1 else "one loss each"
        if array.ndim == 3:
            fix = "if these are logits, ModelPool.from_logits takes them"
        raise ValueError(f"Expected losses of shape [models, records], got {array.shape}: {fix}.")
    for row, values in enumerate(array):
        check_rows(f"losses of model {row}", values)
    if array.min() < _NEGATIVE_ZERO:
        fix = "a cross-entropy is never negative"
        if array.max() <= 0:
            fix = "these look like negative losses (log p_y), so pass -losses"
        raise ValueError(f"Expected losses of 0 or more, got {array.min():.4g}: {fix}.")
    at_least_0: np.ndarray = np.maximum(array, 0)
    return at_least_0


def smallest(values: np.ndarray) -> float:
    """The smallest positive number in an array; infinity if there is none."""
    positive = values[values > 0]
    return float(positive.min()) if positive.size else float("inf")
