"""What a reader must know of an attack's numbers: rates that ties leave open, and a wrong sign."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mico_competition.evaluation.measure import REPORTED, Measured
from mico_competition.scoring.metrics import percent

_OPEN = 0.01  # of a TPR that ties leave open, the least width that deserves a sentence


def remarks(attacks: Mapping[str, Measured]) -> list[str]:
    """Sentences on the numbers of attacks by their names; none for most attacks."""
    found = []
    for name, measured in attacks.items():
        found += _ties(name, measured)
        if below_chance(measured):
            found.append(wrong_sign(f"The AUC of {name}"))
    return found


def wrong_sign(what: str) -> str:
    """The sentence of an AUC that is below 0.5 by more than chance; `what` names it."""
    return (
        f"{what} is below 0.5 by more than chance: larger scores must mean likelier members, so "
        "turn the sign of scores that are smaller for members, such as a loss, and check that the "
        "membership is True for members."
    )


def below_chance(measured: Measured) -> bool:
    """Whether the AUC is below 0.5 by three standard errors.

    One is half the distance to the upper end of the 95 % interval; without an interval it is that
    of records without any signal (Mann & Whitney, Annals of Mathematical Statistics 18, 1947).
    """
    auc, m, n = measured["AUC"], measured.members, measured.nonmembers
    error = (auc.high - auc.value) / 2
    if math.isnan(error):
        error = math.sqrt((m + n + 1) / (12 * m * n))
    return auc.value + 3 * error < 0.5


def _ties(name: str, measured: Measured) -> list[str]:
    """A sentence if TPRs depend much on the order of points that have one score."""
    if measured.published is not None:  # a coarse curve does not show ties
        return []
    rates, ranges = [], []
    for rate, metric in REPORTED.items():
        after = int((measured.fpr < rate).sum())  # of the curve's points, which rise in both rates
        low, high = map(float, measured.tpr[after - 1 : after + 1])
        # Between two points of the curve both rates grow only where points have one score.
        interval = measured[metric].high - measured[metric].low
        if high - low >= _OPEN and not high - low < interval / 2:
            rates.append(percent(rate))
            ranges.append(f"{100 * low:.1f}% to {100 * high:.1f}%")
    if not rates:
        return []
    shown = ranges if len(set(ranges)) > 1 else ranges[:1]
    return [
        f"The scores of {name} are tied at the threshold{'s' if len(rates) > 1 else ''} of "
        f"{_listed(rates)} FPR, where the TPR is anything from {_listed(shown)}: points of one "
        "score are accepted together or not at all, and these exceed the rate, so the TPR without "
        "them is counted."
    ]


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
