"""The audit of one scenario: lower bounds on epsilon, the claim, and the TPR that it permits.

The mathematics is in docs/METHODS.md, sections 9.5 and 9.8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mico_competition.audit.bound import Bound
from mico_competition.audit.bounds import all_bounds
from mico_competition.audit.claims import NOT_KNOWN, STATED, PrivacyClaim
from mico_competition.audit.guesses import pairs
from mico_competition.audit.limits import DRAWN, Curves, gaussian_mu, tpr_limits
from mico_competition.audit.one_run import one_run_bound
from mico_competition.scoring import intervals_of, score
from mico_competition.scoring.curve import RATES
from mico_competition.scoring.svg import MARK
from mico_competition.training.accounting_check import pld_epsilon

LEVEL = 0.95
DELTA = 1e-5
RANKED = "TPR_FPR_1000"
PROVING, OF_PAIRS = "one-run", "one-run of pairs"
"""The bounds that raise an alarm; both hold however the points of one model depend on each other.

The first treats a model's memberships as fair coins. They nearly are: exactly half of its challenge
points are members. Simulations with such halves, but no theorem, support this bound. The second has
a theorem: within each model members are paired with non-members at random, and which one of a pair
is the member is a fair coin, which replaces one record by another. The alarm and the sentence use
both bounds at a level at which they hold jointly.
"""


@dataclass(frozen=True)
class Scored:
    """The scores of one attack on the models of a scenario, with the truth.

    Attributes:
        scenario, phase: whose models.
        attack: its name, or "predictions" for scores that came as files.
        truth: for each model, bool[points].
        scores: for each model, float64[points].
        claim: the claim that all models share; None without privacy, or if it is unknown.
        source: of the claim: STATED, BY_TABLE or NOT_KNOWN.
    """

    scenario: str
    phase: str
    attack: str
    truth: Sequence[np.ndarray]
    scores: Sequence[np.ndarray]
    claim: PrivacyClaim | None
    source: str = STATED


@dataclass(frozen=True)
class Verdict:
    """An audit of one scenario.

    Attributes:
        scored: the audited scores.
        result: of `scoring.score`, the points of all models pooled.
        known: of `scoring.intervals_of`, for the same scenario.
        delta: of every epsilon.
        bounds: lower bounds on epsilon, each at `level`.
        joint: the bounds that raise alarms, PROVING and OF_PAIRS, such that those of all audits
            hold jointly at `level`.
        level: of bounds and intervals.
        allowed: the limits; empty without a claim.
        mu: of the Gaussian limit; None without a claim.
        replace_one: epsilon if a record is replaced by another; None without a claim.
    """

    scored: Scored
    result: Mapping[str, Any]
    known: Mapping[str, Any]
    delta: float
    bounds: tuple[Bound, ...]
    joint: tuple[Bound, Bound]
    level: float
    allowed: Curves
    mu: float | None
    replace_one: float | None

    @property
    def proven(self) -> Bound:
        """The lower bound with the fewest assumptions, for adding or removing a record."""
        return self.joint[0]

    @property
    def alarm(self) -> bool:
        """Whether a lower bound exceeds the claim, for adding or for replacing a record.

        If the claim holds, the probability of an alarm is 1 - level at most.
        """
        claim = self.scored.claim
        return claim is not None and (self.proven.epsilon > claim.epsilon or self._replaced_alarm)

    @property
    def _replaced_alarm(self) -> bool:
        return self.replace_one is not None and self.joint[1].epsilon > self.replace_one

    @property
    def most(self) -> float | None:
        """The exact limit at 10 % FPR."""
        if not self.allowed:
            return None
        fpr, tpr = list(self.allowed.values())[-1]
        return float(np.interp(MARK, fpr, tpr))

    def sentence(self) -> str:
        """The lower bound and the claim, in one sentence."""
        scored, claim = self.scored, self.scored.claim
        proves = (
            f"{scored.scenario}: {self._who()} proves epsilon >= {self.proven.epsilon:.2f} "
            f"({self.level:.0%} confidence, delta {self.delta:g})"
        )
        if self._replaced_alarm:
            proves += (
                f" and >= {self.joint[1].epsilon:.2f} for a record replaced by another, where "
                f"{self.replace_one:.2f} would be spent"
            )
        found = f"it finds {self._percent()} of members at 10% FPR"
        if self.alarm:
            return f"ALARM: {proves}, {self._claimed()}; {found}."
        if claim is not None:
            what = "the mechanism" if scored.source == STATED else "that"
            found += f", where {what} allows {self.most:.1%} at most"
        return f"{proves}, {self._claimed()}; {found}."

    def _claimed(self) -> str:
        """The claim, in a clause."""
        scored, claim = self.scored, self.scored.claim
        if scored.source == STATED:
            if claim is None:
                return "and no epsilon is claimed"
            if self.alarm:
                return f"but only {claim.epsilon:.2f} was claimed"
            return f"and the mechanism claims {claim.epsilon:.2f}"
        unknown = "and the claim is not known (no metadata.json states it)"
        if scored.source == NOT_KNOWN:
            return unknown
        table = "no privacy" if claim is None else f"epsilon {claim.epsilon:.2f}"
        return f"{unknown}: {scored.source}'s is {table}{' only' if self.alarm else ''}"

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


def judge(
    scored: Scored,
    *,
    delta: float | None = None,
    level: float = LEVEL,
    guesses: Any = None,
    audits: int = 1,
) -> Verdict:
    """The audit of one scenario.

    Args:
        scored: scores and truth.
        delta: of the bounds; by default that of the claim, or DELTA without a claim. At another
            delta than the claim's, the claim's epsilon comes from the mechanism's curve.
        level: of bounds and intervals, in (0, 1).
        guesses: see `one_run_bound`; the same share of pairs is guessed.
        audits: the number of audits of private models that share the error probability 1 - `level`.

    Raises:
        ValueError: as `all_bounds`: on scores that are not finite, truth that is not 0 or 1, too
            few points.
    """
    claim = scored.claim
    if claim is not None and delta not in (None, claim.delta):
        assert delta is not None
        claim = PrivacyClaim(claim.mechanism.epsilon(delta), delta, claim.mechanism)
        scored = replace(scored, claim=claim)
    at = delta or (DELTA if claim is None else claim.delta)
    truth, scores = np.concatenate(scored.truth), np.concatenate(scored.scores)
    bounds = all_bounds(truth, scores, delta=at, level=level, guesses=guesses)
    bounds.insert(1, deciding_bounds(scored, delta=at, level=level, guesses=guesses)[1])
    each = 1 - (1 - level) / (2 * max(1, audits))
    names = [f"audit/{scored.scenario}/{scored.phase}/model_{i}" for i in range(len(scored.truth))]
    solutions = {name: part.astype(int) for name, part in zip(names, scored.truth)}
    known = intervals_of(solutions, dict(zip(names, scored.scores)), level=level, rates=RATES)
    run = None if claim is None else claim.mechanism
    return Verdict(
        scored,
        score(truth.astype(int), scores),
        known[scored.scenario],
        at,
        tuple(bounds),
        deciding_bounds(scored, delta=at, level=each, guesses=guesses),
        level,
        {} if claim is None else tpr_limits(claim, DRAWN),
        None if run is None else gaussian_mu(run),
        None if run is None else pld_epsilon(run, at, neighbours="replace_one"),
    )


def pairs_of(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a member and a non-member of the same model, for all models; see `guesses.pairs`."""
    found = [
        pairs(np.asarray(truth), np.asarray(scores, dtype=np.float64), seed=seed)
        for seed, (truth, scores) in enumerate(zip(scored.truth, scored.scores))
    ]
    truth, scores = (np.concatenate(parts) for parts in zip(*found))
    return truth, scores


def deciding_bounds(
    scored: Scored, *, delta: float, level: float, guesses: Any = None
) -> tuple[Bound, Bound]:
    """The bounds that raise alarms, PROVING and OF_PAIRS, each at `level`."""
    points = np.concatenate(scored.truth), np.concatenate(scored.scores)
    of_pairs = pairs_of(scored)
    fewer = _fitted(guesses, points[0].size, of_pairs[0].size)
    replacing = one_run_bound(*of_pairs, delta=delta, level=level, guesses=fewer)
    return (
        one_run_bound(*points, delta=delta, level=level, guesses=guesses),
        replace(replacing, method=OF_PAIRS),
    )


def _fitted(guesses: Any, points: int, fewer: int) -> Any:
    """Plans for `points` points, scaled to `fewer` points."""
    if guesses is None:
        return None
    plans = [guesses] if np.ndim(guesses[0]) == 0 else guesses
    fitted = [tuple(k * fewer // points for k in plan) for plan in plans]
    return [plan if sum(plan) else (1, 0) for plan in fitted]
