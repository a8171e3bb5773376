"""Scores a scenario many times with resampled models, for bootstrap intervals.

A resample draws models with replacement, and so gives each model a weight, the number of times that
it was drawn.  All counts that a score depends on are weighted sums of the models' counts, so the
predictions are sorted only once, and all resamples are scored by matrix products.  The results are
those of `metrics.score` on the repeated data: exactly for TPR at an FPR, and up to rounding in the
15th digit for other scores.  All sums are of whole numbers below 2**53, so they do not depend on
the order of additions.  Of many models, `many_models.py` gives the same results in less time.
"""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from .many_models import Points, points_are_faster
from .metrics import FPR_THRESHOLDS, FPR_UNIT, SCALARS, _checked

RATES = tuple(k / FPR_UNIT for k in FPR_THRESHOLDS)
_CELLS = 1_000_000
"""How many numbers a matrix of a chunk of resamples may have: this bounds the memory."""


class Counts:
    """The counts that each model contributes at each step down the sorted predictions.

    A step lowers the threshold to the next distinct value.  `positives[t, m]` counts the members
    that model m has at step t, and `positives_above[t, m]` those at step t or before;
    `negatives` and `negatives_above` count non-members.  Shape of each: (steps, models).
    """

    def __init__(self, truth: np.ndarray, step: np.ndarray, model: np.ndarray, models: int) -> None:
        self.models = models
        self.steps = int(step[-1]) + 1
        cells = step * self.models + model
        self.positives = self._table(cells[truth == 1])
        self.negatives = self._table(cells[truth == 0])
        # Whole numbers as float64: exact below 2**53, and multiplied by the fast BLAS.
        self.positives_above = np.cumsum(self.positives, axis=0)
        self.negatives_above = np.cumsum(self.negatives, axis=0)
        # A count of a resample is no more than all points, drawn as often as there are models.
        # float32 holds whole numbers up to 2**24, and is twice as fast.
        self.kind: Any = np.float32 if truth.size * self.models < 2**24 else np.float64

    def _table(self, cells: np.ndarray) -> np.ndarray:
        counts = np.bincount(cells, minlength=self.steps * self.models)
        return counts.reshape(self.steps, self.models).astype(float)


def _in_order(
    solutions: Sequence[Any], predictions: Sequence[Any]
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The truth, the step and the model of all points, from the highest prediction down."""
    truth, values = _checked(
        np.concatenate([np.asarray(part) for part in solutions]),
        np.concatenate([np.asarray(part) for part in predictions]),
    )
    model = np.repeat(np.arange(len(solutions)), [len(part) for part in solutions])
    order = np.argsort(values, kind="mergesort")[::-1]
    truth, values, model = truth[order], values[order], model[order]
    return truth, np.append(0, np.cumsum(values[1:] != values[:-1])), model


def draw_weights(models: int, resamples: int, seed: int) -> np.ndarray:
    """How often each model is drawn, as floats of shape (resamples, models)."""
    # random_sample is the one stream that is the same in every numpy and on every system.
    drawn = np.floor(np.random.RandomState(seed).random_sample((resamples, models)) * models)
    cells = (drawn + models * np.arange(resamples)[:, None]).astype(np.int64)
    return np.bincount(cells.ravel(), minlength=resamples * models).reshape(-1, models) * 1.0


def _limits(negatives: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """The smallest number of false positives whose rate is not below each rate.

    It uses the same division and comparison as `metrics.score`, including rounding.
    """
    limit: np.ndarray = np.ceil(rates * negatives[:, None])
    limit += limit / negatives[:, None] < rates
    limit -= (limit - 1) / negatives[:, None] >= rates
    return limit


class _Rates:
    """Reads the true positive rates of resamples just below given false positive rates."""

    def __init__(self, counts: Counts, rates: Sequence[float]) -> None:
        self.counts, self.rates = counts, np.asarray(rates, dtype=float)
        # False positives grow at these steps only.
        self.grows = np.flatnonzero((counts.negatives > 0).any(axis=1))
        self.ties = bool((counts.positives.any(axis=1) & counts.negatives.any(axis=1)).any())
        self.kind = counts.kind
        self.above = np.ascontiguousarray(counts.negatives_above[self.grows].T, dtype=self.kind)

    def read(self, weights: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
        """The rates of a chunk of resamples, shape (resamples, rates)."""
        false_positives = weights.astype(self.kind) @ self.above
        limits = _limits(negatives, self.rates).astype(self.kind)
        too_far = [row.searchsorted(limit) for row, limit in zip(false_positives, limits)]
        # The last step that is still below the limit is the one before the first that is not.
        upper = self.grows[np.stack(too_far)]
        found = self._true_positives(weights, upper - 1)
        if self.ties:
            self._step_back(weights, upper, found)
        rates: np.ndarray = found / positives[:, None]
        return rates

    def _true_positives(self, weights: np.ndarray, step: np.ndarray) -> np.ndarray:
        above = self.counts.positives_above[np.maximum(step, 0)]
        return np.where(step < 0, 0, np.einsum("brm,bm->br", above, weights))

    def _step_back(self, weights: np.ndarray, upper: np.ndarray, found: np.ndarray) -> None:
        """Skip the points that `roc_curve` does not list, which `score` therefore ignores.

        `roc_curve` drops a point if the steps before and after it are equal in both counts.  That
        affects the score only if these steps hold members, so where members and non-members tie.
        """
        counts = self.counts
        row, column = np.indices(upper.shape).reshape(2, -1)
        step, above = upper.ravel() - 1, found.ravel().copy()
        after = self._counts_at(weights[row], upper.ravel())
        active = np.flatnonzero((after[0] > 0) & (step >= 0))
        while active.size:
            here = self._counts_at(weights[row[active]], step[active])
            absent = (here[0] == 0) & (here[1] == 0)  # no drawn model has this value
            equal = (here[0] == after[0][active]) & (here[1] == after[1][active])
            before = np.maximum(step[active] - 1, 0)
            reached = np.einsum("bm,bm->b", counts.negatives_above[before], weights[row[active]])
            reached += np.einsum("bm,bm->b", counts.positives_above[before], weights[row[active]])
            # The first point is always listed.
            dropped = equal & ~absent & (step[active] > 0) & (reached > 0)
            above[active[dropped]] -= here[0][dropped]
            step[active] -= 1
            active = active[(dropped | absent) & (step[active] >= 0)]
        found[row, column] = above

    def _counts_at(self, weights: np.ndarray, step: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """The members and non-members of each resample at one step."""
        return (
            np.einsum("bm,bm->b", self.counts.positives[step], weights),
            np.einsum("bm,bm->b", self.counts.negatives[step], weights),
        )


class _Advantage:
    """Computes the advantage, the largest difference of the two rates, of resamples."""

    def __init__(self, counts: Counts) -> None:
        # For any weights, the difference is largest after a step with a member and before one with
        # a non-member: from any other step, one step further or back does not decrease it.
        gains = (counts.positives[:-1] > 0).any(axis=1) & (counts.negatives[1:] > 0).any(axis=1)
        above, below = counts.positives_above[:-1][gains].T, counts.negatives_above[:-1][gains].T
        # If each model has as many members as non-members, one difference of counts is enough.
        self.even = np.array_equal(counts.positives_above[-1], counts.negatives_above[-1])
        self.kind = counts.kind if self.even else np.float64
        table = above - below if self.even else np.concatenate([above, -below])
        self.table = np.ascontiguousarray(table, dtype=self.kind)

    def read(self, weights: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
        """The advantages of a chunk of resamples."""
        # tpr - fpr with a common denominator, in whole numbers, so that it is exact.
        if self.even:
            lead = weights.astype(self.kind) @ self.table
            common = positives
        else:
            both = [weights * negatives[:, None], weights * positives[:, None]]
            lead = np.concatenate(both, axis=1) @ self.table
            common = positives * negatives
        advantages: np.ndarray = lead.max(axis=1, initial=0) / common
        return advantages


def _pairs(counts: Counts) -> np.ndarray:
    """Twice the number of ordered pairs (member of m, non-member of k), ties count half: [m, k]."""
    below = counts.negatives_above[-1] - counts.negatives_above
    pairs: np.ndarray = counts.positives.T @ (2 * below + counts.negatives)
    return pairs


def check_models(solutions: Sequence[Any], predictions: Sequence[Any]) -> None:
    """Raise ValueError unless both hold one flat sequence for each model, of equal lengths."""
    if not len(solutions) or len(solutions) != len(predictions):
        raise ValueError(
            "Expected solutions and predictions of the same models, got %d and %d of them: pass "
            "one array a model, in one order." % (len(solutions), len(predictions))
        )
    for i, (solution, prediction) in enumerate(zip(solutions, predictions)):
        if np.ndim(solution) != 1 or np.shape(solution) != np.shape(prediction):
            raise ValueError(
                "Expected one prediction for each challenge point of model number %d, got shapes "
                "%s and %s: pass two flat arrays of one length."
                % (i, np.shape(prediction), np.shape(solution))
            )


def resample_scores(
    solutions: Sequence[Any],
    predictions: Sequence[Any],
    *,
    resamples: int,
    seed: int = 0,
    rates: Sequence[float] = (),
) -> Tuple[Dict[str, np.ndarray], np.ndarray]:
    """Score a scenario for `resamples` draws of its models with replacement.

    Args:
        solutions: for each model, a flat sequence of 0 (non-member) and 1 (member).
        predictions: for each model, a sequence of finite numbers of the same length.
        resamples: the number of draws, >= 1, each of as many models as there are.
        seed: a whole number from 0 to 2**32 - 1; equal seeds draw equally.
        rates: more false positive rates, in (0, 1], at which to read the true positive rate.

    Returns:
        `(scores, curves)`: a dict from each of `metrics.SCALARS` to an array of shape
        (resamples,), and an array of shape (resamples, len(rates)).  A draw without members or
        without non-members has no scores and is left out: then there are fewer rows.

    Raises:
        ValueError: the two do not match, or are no truth and predictions: see `metrics.score`.

    Source: Davison & Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    check_models(solutions, predictions)
    models = len(solutions)
    truth, step, model = _in_order(solutions, predictions)
    weights = draw_weights(models, resamples, seed)
    positives, negatives = (
        weights @ np.bincount(model[truth == k], minlength=models) for k in (1, 0)
    )
    weights = weights[(positives > 0) & (negatives > 0)]
    if not len(weights):
        return {key: np.zeros(0) for key in SCALARS}, np.zeros((0, len(rates)))
    read = RATES + tuple(rates)
    if points_are_faster(models, int(step[-1]) + 1, step.size, len(weights)):
        points = Points(truth, step, model)
        area, lead, curves = points.scores(weights, np.asarray(read, dtype=float), _limits)
    else:
        area, lead, curves = _by_table(Counts(truth, step, model, models), weights, read)
    scores = dict(zip(SCALARS, (area, lead, (1 + lead) / 2) + tuple(curves.T)))
    return scores, curves[:, len(RATES) :]


def _by_table(
    counts: Counts, weights: np.ndarray, rates: Sequence[float]
) -> Tuple[np.ndarray, ...]:
    """The AUC, the advantage and the TPR below each rate of each resample, many at a time."""
    at_rates, advantage, pairs = _Rates(counts, rates), _Advantage(counts), _pairs(counts)
    parts: List[Tuple[np.ndarray, ...]] = []
    chunk = max(1, _CELLS // counts.steps)
    for start in range(0, len(weights), chunk):
        some = weights[start : start + chunk]
        positives, negatives = some @ counts.positives_above[-1], some @ counts.negatives_above[-1]
        area = ((some @ pairs) * some).sum(axis=1) / (2 * positives * negatives)
        lead = advantage.read(some, positives, negatives)
        parts.append((area, lead, at_rates.read(some, positives, negatives)))
    return tuple(np.concatenate(part) for part in zip(*parts))
