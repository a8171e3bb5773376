"""Coarse scores: scores rounded to steps, so that they reveal less about single labels.

Exact scores are an oracle: a participant who chooses predictions for this purpose can compute some
twenty labels from the scores of each submission (docs/HOST.md has the measured attack).  A phase
that allows many submissions therefore shows each number in steps only.  `coarse` rounds the few
numbers of a score once, and leaderboard, page, curve and entries are computed from the rounded
numbers, so that no other digit, coordinate or interval reveals more.  Equal numbers are ties.

Rounding slows this attack but does not stop it, because each score still reveals on which side of a
boundary a count lies.  Only the limit on submissions stops it.
"""

from typing import Any, Dict, Mapping

import numpy as np

from .metrics import FPR_THRESHOLDS, FPR_UNIT, SCALARS

RATES = tuple(k / FPR_UNIT for k in FPR_THRESHOLDS)


def to_step(value: float, step: float) -> float:
    """The multiple of `step` that is nearest to `value`, which lies in [0, 1].

    >>> to_step(0.1234, 0.005), to_step(0.9999, 0.005), to_step(0.0, 0.005)
    (0.125, 1.0, 0.0)
    """
    return float(min(1.0, round(float(np.rint(value / step)) * step, 9)))


def coarse(result: Mapping[str, Any], step: float) -> Dict[str, Any]:
    """Round the result of `metrics.score`, so that every number is a multiple of `step`.

    The curve goes through the rounded true positive rates at the scored false positive rates, and
    the balanced accuracy follows from the rounded advantage, so neither reveals more.  The key
    "step" marks the result as a coarse score.
    """
    rounded: Dict[str, Any] = {key: to_step(result[key], step) for key in SCALARS}
    rounded["accuracy"] = to_step((1 + rounded["MIA"]) / 2, step)
    rounded["fpr"] = np.array([0.0, *RATES, 1.0])
    rounded["tpr"] = np.array([0.0, *(rounded["TPR_FPR_%d" % k] for k in FPR_THRESHOLDS), 1.0])
    rounded["step"] = step
    return rounded


def digits(step: float) -> int:
    """The number of decimals of multiples of `step`.

    >>> digits(0.005), digits(0.1), digits(0.0001)
    (3, 1, 4)
    """
    return len(("%.9f" % step).rstrip("0").partition(".")[2])


def average(scores: Mapping[str, Mapping[str, Any]], key: str) -> float:
    """The mean of a number over scenarios; the mean of coarse scores is rounded as well."""
    # Not sum(): since Python 3.12 its last digit differs from that of earlier Pythons.
    mean = float(np.mean([result[key] for result in scores.values()]))
    step = step_of(scores)
    return to_step(mean, step) if step else mean


def step_of(scores: Mapping[str, Mapping[str, Any]]) -> float:
    """The step of coarse scores, or 0 for exact ones."""
    step: float = max(result.get("step", 0.0) for result in scores.values())
    return step
