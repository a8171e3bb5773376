"""Scores the resamples of many models one after the other, from the points themselves.

`resampling.py` has a table with a column for each model, and multiplies it by the weights of many
resamples at a time.  That is fast for some dozens of models, but its time and memory grow with the
number of models times the number of distinct predictions.  Here they grow with the number of
points, and the results are the same to the last digit, because all sums are of whole numbers.
"""

from typing import Any, List, Tuple

import numpy as np

PASS, POINT = 1_000_000, 60
"""A resample from points, and each of its points, take as long as so many multiplications."""


def points_are_faster(models: int, steps: int, points: int, resamples: int) -> bool:
    """Whether resamples are scored faster from the points than by a table.

    >>> points_are_faster(50, 10_000, 10_000, 1000), points_are_faster(2000, 8000, 400_000, 1000)
    (False, True)
    """
    table = resamples * models * (steps + models) + models * models * steps
    return table > resamples * (PASS + POINT * points)


class Points:
    """The predictions of all models in falling order.

    Args:
        truth: of each point.
        step: of each point, the number of distinct predictions above its own.
        model: of each point.
    """

    def __init__(self, truth: np.ndarray, step: np.ndarray, model: np.ndarray) -> None:
        self.steps = int(step[-1]) + 1
        self._sides = [(step[truth == kind], model[truth == kind]) for kind in (1, 0)]
        both = [np.bincount(steps, minlength=self.steps) > 0 for steps, _ in self._sides]
        self._ties = bool((both[0] & both[1]).any())

    def scores(self, weights: np.ndarray, rates: np.ndarray, limits: Any) -> Tuple[Any, ...]:
        """The AUC, the advantage and the TPR below each rate of each resample.

        Args:
            weights: float[resamples, models], how often each model is drawn.
            rates: false positive rates.
            limits: (non-members float[1], rates) -> the least number of false positives whose rate
                is not below each rate.
        """
        found: List[Tuple[float, float, np.ndarray]] = []
        for row in weights:
            members, others = (
                np.bincount(steps, weights=row[model], minlength=self.steps)
                for steps, model in self._sides
            )
            tp, fp = np.cumsum(members), np.cumsum(others)
            area = (members * (2 * (fp[-1] - fp) + others)).sum() / (2 * tp[-1] * fp[-1])
            lead = (tp * fp[-1] - fp * tp[-1]).max() / (tp[-1] * fp[-1])
            upper = fp.searchsorted(limits(fp[-1:], rates)[0])
            last = upper - 1
            if self._ties:
                last = np.array([_listed(members, others, tp + fp, end) for end in upper])
            found.append((area, lead, np.where(last < 0, 0.0, tp[last]) / tp[-1]))
        areas, leads, curves = zip(*found)
        return np.array(areas), np.array(leads), np.stack(curves)


def _listed(members: np.ndarray, others: np.ndarray, reached: np.ndarray, upper: int) -> int:
    """The last step before `upper` that `roc_curve` lists for a resample; see `_step_back`."""
    step = int(upper) - 1
    while members[upper] > 0 and step > 0:
        here = members[step], others[step]
        equal = here == (members[upper], others[upper])
        if here != (0, 0) and not (equal and reached[step - 1] > 0):
            break
        step -= 1
    return step
