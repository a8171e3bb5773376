"""What an attack proves of a scenario, beside what its mechanism promises and allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mico_competition.audit.bound import Bound
from mico_competition.audit.bounds import all_bounds
from mico_competition.audit.ceilings import DRAWN, Curves, ceilings, gaussian_mu
from mico_competition.audit.guesses import pairs
from mico_competition.audit.one_run import one_run_bound
from mico_competition.audit.promise import Promise
from mico_competition.scoring import intervals_of, score
from mico_competition.scoring.curve import RATES
from mico_competition.scoring.svg import MARK
from mico_competition.training.accounting_check import pld_epsilon

LEVEL = 0.95
DELTA = 1e-5
RANKED = "TPR_FPR_1000"
PROVING, OF_PAIRS = "one-run", "one-run of pairs"
"""The bounds that raise an alarm; both hold however points of one model hang together.

The first takes a model's memberships for fair coins.  They nearly are: just half of its challenge
points are members.  Simulations with such halves back the bound, no theorem does.  The second has
one: within each model members are paired with non-members at random, and who of a pair is the
member is a fair coin, but one that replaces a record by another.
"""


@dataclass(frozen=True)
class Scored:
    """The scores of one attack on the models of a scenario, with the truth.

    Attributes:
        scenario, phase: whose models.
        attack: its name, or "predictions" for scores that came as files.
        truth: for each model, bool[points].
        scores: for each model, float64[points].
        promise: what every one of the models promises; None without privacy.
    """

    scenario: str
    phase: str
    attack: str
    truth: Sequence[np.ndarray]
    scores: Sequence[np.ndarray]
    promise: Promise | None


@dataclass(frozen=True)
class Verdict:
    """An audit of one scenario.

    Attributes:
        scored: what was audited.
        result: of `scoring.score`, the points of all models pooled.
        known: of `scoring.intervals_of`, for the same scenario.
        delta: at which every epsilon is.
        bounds: lower bounds of epsilon, each by itself at `level`.
        level: of bounds and intervals.
        allowed: the ceilings; empty without a promise.
        mu: of the Gaussian ceiling; None without a promise.
        replace_one: what the mechanism spends if a record is replaced by another; None likewise.
    """

    scored: Scored
    result: Mapping[str, Any]
    known: Mapping[str, Any]
    delta: float
    bounds: tuple[Bound, ...]
    level: float
    allowed: Curves
    mu: float | None
    replace_one: float | None

    @property
    def proven(self) -> Bound:
        """The lower bound that takes least for granted."""
        return next(bound for bound in self.bounds if bound.method == PROVING)

    @property
    def alarm(self) -> bool:
        """Whether the attack proves more than is promised, of adding or of replacing a record."""
        promise = self.scored.promise
        if promise is None or self.replace_one is None:
            return False
        of_pairs = next(bound for bound in self.bounds if bound.method == OF_PAIRS)
        return self.proven.epsilon > promise.epsilon or of_pairs.epsilon > self.replace_one

    @property
    def most(self) -> float | None:
        """The exact ceiling at 10 % FPR."""
        if not self.allowed:
            return None
        fpr, tpr = list(self.allowed.values())[-1]
        return float(np.interp(MARK, fpr, tpr))

    def sentence(self) -> str:
        """What the attack proves, and what the mechanism promises."""
        scored, promise = self.scored, self.scored.promise
        proves = (
            f"{scored.scenario}: {self._who()} proves epsilon >= {self.proven.epsilon:.2f} "
            f"({self.level:.0%} confidence, delta {self.delta:g})"
        )
        found = f"it finds {self._percent()} of members at 10% FPR"
        if promise is None:
            return f"{proves}, and nothing was promised; {found}."
        allows = f"where the mechanism allows {self.most:.1%} at most"
        if self.alarm:
            return f"ALARM: {proves}, but only {promise.epsilon:.2f} was promised; {found}."
        return f"{proves}, and the mechanism promises {promise.epsilon:.2f}; {found}, {allows}."

    def _who(self) -> str:
        models = len(self.scored.truth)
        what = (
            "what was predicted"
            if self.scored.attack == "predictions"
            else f"attack {self.scored.attack}"
        )
        return f"{what}, on {models} {self.scored.phase} models,"

    def _percent(self) -> str:
        low, high = self.known[RANKED]
        words = f"{self.result[RANKED]:.1%}"
        return words if math.isnan(low) else f"{words} [{low:.1%}, {high:.1%}]"


def judge(scored: Scored, *, delta: float | None = None, level: float = LEVEL) -> Verdict:
    """The audit of one scenario.

    Args:
        scored: scores and truth.
        delta: at which bounds are computed; by default what is promised at, or DELTA without a
            promise.  Another one than the promise's takes the promise's own curve to that delta.
        level: of bounds and intervals, in (0, 1).

    Raises:
        ValueError: as `all_bounds`: on scores that are not finite, truth that is not 0 or 1, too
            few points.
        ImportError: if there is a promise, and dp_accounting is missing.
    """
    promise = scored.promise
    if promise is not None and delta not in (None, promise.delta):
        assert delta is not None
        promise = Promise(promise.mechanism.epsilon(delta), delta, promise.mechanism)
        scored = replace(scored, promise=promise)
    at = delta or (DELTA if promise is None else promise.delta)
    truth, scores = np.concatenate(scored.truth), np.concatenate(scored.scores)
    bounds = all_bounds(truth, scores, delta=at, level=level)
    bounds.insert(1, _of_pairs(scored, at, level))
    names = [f"audit/{scored.scenario}/{scored.phase}/model_{i}" for i in range(len(scored.truth))]
    solutions = {name: part.astype(int) for name, part in zip(names, scored.truth)}
    known = intervals_of(solutions, dict(zip(names, scored.scores)), level=level, rates=RATES)
    run = None if promise is None else promise.mechanism
    return Verdict(
        scored,
        score(truth.astype(int), scores),
        known[scored.scenario],
        at,
        tuple(bounds),
        level,
        {} if promise is None else ceilings(promise, DRAWN),
        None if run is None else gaussian_mu(run),
        None if run is None else pld_epsilon(run, at, neighbours="replace_one"),
    )


def _of_pairs(scored: Scored, delta: float, level: float) -> Bound:
    """The one-run bound over pairs of a member and a non-member of the same model."""
    found = [
        pairs(np.asarray(truth), np.asarray(scores, dtype=np.float64), seed=seed)
        for seed, (truth, scores) in enumerate(zip(scored.truth, scored.scores))
    ]
    truth, scores = (np.concatenate(parts) for parts in zip(*found))
    return replace(one_run_bound(truth, scores, delta=delta, level=level), method=OF_PAIRS)
