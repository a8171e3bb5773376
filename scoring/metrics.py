"""Metrics of a membership inference attack: the ROC curve and the numbers read from it.

A prediction is a real number; a larger one means more likely a member.  The curve equals that of
scikit-learn to the last digit, but needs only numpy.

The mathematics is in docs/METHODS.md, section 2.2 (formulas 2 to 5).
"""

from typing import Any, Dict, Tuple

import numpy as np

FPR_THRESHOLDS = (10, 100, 500, 1000, 1500, 2000)
"""False positive rates, in 1/10,000, at which `score` reads the true positive rate."""

FPR_UNIT = 10_000

SCALARS = ("AUC", "MIA", "accuracy") + tuple("TPR_FPR_%d" % k for k in FPR_THRESHOLDS)
"""Keys of a score that hold one number, in the scoreboard's order."""


def percent(rate: float) -> str:
    """A rate as a text in percent.

    >>> percent(0.1), percent(0.001), percent(0.175)
    ('10%', '0.1%', '17.5%')
    """
    return "%g%%" % round(100 * rate, 4)


RANKED = "TPR_FPR_1000"
"""The number that ranks, in each scenario; its average over the scenarios is the first of all."""

TITLES: Dict[str, str] = {
    "TPR_FPR_%d" % k: "TPR at %s FPR" % percent(k / FPR_UNIT)
    for k in sorted(FPR_THRESHOLDS, key=lambda k: (k != 1000, k))
}
TITLES.update({"AUC": "AUC", "MIA": "Advantage", "accuracy": "Balanced accuracy"})
"""What people call each number of a score, on every page and board, and in their order."""


def _checked(true_membership: Any, predictions: Any) -> Tuple[np.ndarray, np.ndarray]:
    """Both arguments as vectors of one length, the truth as integers; ValueError if invalid."""
    vectors = []
    for name, given in (("true_membership", true_membership), ("predictions", predictions)):
        try:
            vector = np.asarray(given)
        except ValueError:  # a ragged list, refused by numpy since 1.24
            vector = np.empty(1, dtype=object)
        if vector.ndim != 1 or (vector.size and vector.dtype.kind not in "biuf"):
            raise ValueError(
                "Expected %s to be a flat sequence of numbers: concatenate the models' values "
                "and convert them to float." % name
            )
        if vector.size == 0:
            raise ValueError(
                "Expected %s to hold at least two numbers, got none: pass the values of one "
                "or more models." % name
            )
        vectors.append(vector)
    truth, values = vectors
    if truth.size != values.size:
        raise ValueError(
            "Expected one prediction for each challenge point, got %d predictions for %d "
            "points: pass both in the same order and of the same length."
            % (values.size, truth.size)
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "Expected predictions to be finite, got %d NaN or infinite: replace them by numbers."
            % np.count_nonzero(~np.isfinite(values))
        )
    if not ((truth == 0) | (truth == 1)).all():
        raise ValueError(
            "Expected true_membership to be 0 (non-member) or 1 (member) everywhere: pass the "
            "values of solution.csv first, the predictions second."
        )
    truth = truth.astype(np.int64)
    if truth.min() == truth.max():
        raise ValueError(
            "Expected true_membership to hold both members (1) and non-members (0), got one "
            "kind only, for which no ROC curve exists: add challenge points of the other kind."
        )
    return truth, values


def _counts(truth: np.ndarray, values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The false and true positives if all values at or above each distinct value are accepted."""
    order = np.argsort(values, kind="mergesort")[::-1]
    truth, values = truth[order], values[order]
    last = np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1)
    true_positives = np.cumsum(truth)[last]
    return 1 + last - true_positives, true_positives


def roc_curve(
    true_membership: Any, predictions: Any, drop_intermediate: bool = True
) -> Tuple[np.ndarray, np.ndarray]:
    """The ROC curve: the trade-off between true and false positive rate over all thresholds.

    Args:
        true_membership: length-n sequence of 0 (non-member) and 1 (member), both present.
        predictions: length-n sequence of finite numbers, larger for likelier members.
        drop_intermediate: leave out points that lie evenly between their neighbours on a
            straight line.  The curve is the same line; fewer points of it are listed.

    Returns:
        `(fpr, tpr)`, float arrays of one length, each in [0, 1], starting at 0, ending at 1,
        never decreasing; bit for bit those of `sklearn.metrics.roc_curve`.

    Raises:
        ValueError: an argument is empty, not flat or not numeric; the lengths differ; a
            prediction is not finite; the truth is not of zeros and ones, or of one kind only.

    Source: scikit-learn, `sklearn.metrics.roc_curve`; Fawcett, "An introduction to ROC
    analysis" (2006), algorithm 1.

    >>> fpr, tpr = roc_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    false_positives, true_positives = _counts(*_checked(true_membership, predictions))
    if drop_intermediate and true_positives.size > 2:
        turns = (np.diff(false_positives, 2) != 0) | (np.diff(true_positives, 2) != 0)
        keep = np.concatenate(([True], turns, [True]))
        false_positives, true_positives = false_positives[keep], true_positives[keep]
    fpr = np.append(0, false_positives) / false_positives[-1]
    tpr = np.append(0, true_positives) / true_positives[-1]
    return fpr, tpr


def _check_rate(max_fpr: float, smallest: str, fits: bool) -> None:
    if not fits:
        raise ValueError(
            "Expected max_fpr in %s, got %r: give the rate as a fraction, such as 0.1 for 10%%."
            % (smallest, max_fpr)
        )


def tpr_at_fpr(true_membership: Any, predictions: Any, max_fpr: float = 0.1) -> float:
    """Best true positive rate at a false positive rate strictly below `max_fpr`.

    This is the competition's score, and equals that of 2022 to the last digit.  It looks only
    at the points that `roc_curve` lists, without the intermediate ones; `tpr_at_most_fpr` is
    the rule as it is usually stated.

    Args:
        true_membership: length-n sequence of 0 (non-member) and 1 (member), both present.
        predictions: length-n sequence of finite numbers, larger for likelier members.
        max_fpr: a rate, above 0 and up to 1.

    Returns:
        A float in [0, 1]; 0 if no listed point other than the first one is below `max_fpr`.

    Raises:
        ValueError: as `roc_curve`, or `max_fpr` is outside (0, 1].

    Source: Carlini et al., "Membership Inference Attacks From First Principles" (S&P 2022),
    section III.

    >>> tpr_at_fpr([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], max_fpr=0.5)
    0.5
    """
    _check_rate(max_fpr, "(0, 1]", 0 < max_fpr <= 1)
    fpr, tpr = roc_curve(true_membership, predictions)
    return float(tpr[fpr < max_fpr].max())


def tpr_at_most_fpr(true_membership: Any, predictions: Any, max_fpr: float = 0.1) -> float:
    """Best true positive rate at a false positive rate of at most `max_fpr`.

    The exact form of the rule: `max_fpr` itself is allowed, and every threshold is tried.  It is
    never below `tpr_at_fpr`.

    Args:
        true_membership: length-n sequence of 0 (non-member) and 1 (member), both present.
        predictions: length-n sequence of finite numbers, larger for likelier members.
        max_fpr: a rate in [0, 1].

    Returns:
        A float in [0, 1]; 0 if every threshold that finds a member accepts too many others.

    Raises:
        ValueError: as `roc_curve`, or `max_fpr` is outside [0, 1].

    Source: as `tpr_at_fpr`.

    >>> tpr_at_most_fpr([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], max_fpr=0.5)
    1.0
    """
    _check_rate(max_fpr, "[0, 1]", 0 <= max_fpr <= 1)
    fpr, tpr = roc_curve(true_membership, predictions, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr].max())


class Score(Dict[str, Any]):
    """A dict of all metrics, which a console shows in a line, without the curve's points."""

    def __repr__(self) -> str:
        shown = ["%r: %.4f" % (key, self[key]) for key in SCALARS if key in self]
        shown += [
            "%r: <%d numbers>" % (key, len(self[key])) for key in ("fpr", "tpr") if key in self
        ]
        return "{%s}" % ", ".join(shown)


def score(solutions: Any, predictions: Any) -> Dict[str, Any]:
    """All metrics of one scenario, from the pooled predictions of its models.

    Args:
        solutions: length-n sequence of 0 (non-member) and 1 (member), both present.
        predictions: length-n sequence of finite numbers, larger for likelier members.

    Returns:
        A dict, which a console shows in short, of two arrays, `fpr` and `tpr` (see `roc_curve`),
        and these floats in [0, 1]: `AUC`, the area under the curve by trapezoids; `MIA`, the
        membership advantage max(tpr - fpr); `accuracy`, the best balanced accuracy; and
        `TPR_FPR_k`, the result of `tpr_at_fpr` at k / 10,000, for k in `FPR_THRESHOLDS`.

    Raises:
        ValueError: as `roc_curve`.

    Source: Yeom et al., "Privacy Risk in Machine Learning" (CSF 2018), definition 4, for the
    advantage; Carlini et al. (S&P 2022), section III, for the rates.

    >>> result = score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> result["AUC"], result["MIA"], result["accuracy"], result["TPR_FPR_1000"]
    (0.75, 0.5, 0.75, 0.5)
    >>> result["fpr"].tolist(), result["tpr"].tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    fpr, tpr = roc_curve(solutions, predictions)
    # The order of these operations is that of the trapezoidal rule in numpy and scipy, which
    # scikit-learn calls: another order would change the last digit.
    area = (np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2.0).sum()
    result = Score(
        {
            "fpr": fpr,
            "tpr": tpr,
            "AUC": float(area),
            "MIA": float((tpr - fpr).max()),
            "accuracy": float((1 - (fpr + (1 - tpr)) / 2).max()),
        }
    )
    for k in FPR_THRESHOLDS:
        result["TPR_FPR_%d" % k] = float(tpr[fpr < k / FPR_UNIT].max())
    return result
