"""Scores as coarse as a phase lets them out, and everything that is shown computed from these.

Exact scores are an oracle: who chooses the predictions reads labels off them, some twenty a
submission (docs/HOST.md has the measured attack).  A phase that allows many submissions therefore
lets each number out in steps only.  `coarse` rounds the few numbers of a score, once, and gives a
score made of nothing else; leaderboard, page, curve and entries are then made from that, so that
no digit, coordinate or interval tells more.  Equal numbers are ties.

Rounding slows the attack and does not end it: who knows on which side of a step's edge a count lies
has learned a bit.  What ends it is the limit to submissions.

Nothing here reads files or prints.
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
    """What `metrics.score` returned, with every number rounded to `step` or made from rounded ones.

    The curve goes through the rounded true positive rates at the scored false positive rates, and
    the balanced accuracy is that of the rounded advantage, rounded again: neither tells anything
    of its own.  The key "step" says that this score is a coarse one.
    """
    rounded: Dict[str, Any] = {key: to_step(result[key], step) for key in SCALARS}
    rounded["accuracy"] = to_step((1 + rounded["MIA"]) / 2, step)
    rounded["fpr"] = np.array([0.0, *RATES, 1.0])
    rounded["tpr"] = np.array([0.0, *(rounded["TPR_FPR_%d" % k] for k in FPR_THRESHOLDS), 1.0])
    rounded["step"] = step
    return rounded


def digits(step: float) -> int:
    """How many decimals a multiple of `step` has.

    >>> digits(0.005), digits(0.1), digits(0.0001)
    (3, 1, 4)
    """
    return len(("%.9f" % step).rstrip("0").partition(".")[2])


def average(scores: Mapping[str, Mapping[str, Any]], key: str) -> float:
    """The mean of a number over scenarios; of coarse scores, in steps as well."""
    # Not sum(): since Python 3.12 its last digit differs from that of earlier Pythons.
    mean = float(np.mean([result[key] for result in scores.values()]))
    step = step_of(scores)
    return to_step(mean, step) if step else mean


def step_of(scores: Mapping[str, Mapping[str, Any]]) -> float:
    """The step of coarse scores, 0 of exact ones."""
    return max(result.get("step", 0.0) for result in scores.values())
