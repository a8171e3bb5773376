"""An audit of a private training function of one's own: canaries, fair coins, bounds on epsilon.

One-run auditing by Steinke, Nasr and Jagielski (NeurIPS 2023, arXiv 2305.08846): a fair coin for
each canary decides whether it is trained on, and whoever scores the canaries better than the
claimed epsilon permits has refuted the claim.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from mico_competition.audit.bound import Bound
from mico_competition.audit.checked import check_delta, check_level
from mico_competition.audit.epsilon_bounds import EpsilonBounds, epsilon_bounds
from mico_competition.support.arrays import as_array
from mico_competition.support.call_errors import check_call, explained
from mico_competition.support.counts import check_whole
from mico_competition.support.progress import tracked
from mico_competition.support.tables import html_line

if TYPE_CHECKING:
    import pandas

FEWEST = 100
"""Fewer canaries than this are refused: they prove nothing."""


@dataclass(frozen=True)
class TrainerAudit:
    """What an audit of a training function found.

    Attributes:
        bounds: lower bounds on its epsilon, by method.
        epsilon, delta: the claim.
        canaries: of each run.
        runs: training runs, each with coins of its own.
        let_in: canaries that the coins let in, in all runs.
        seed: of the coins and of the runs, to repeat the audit.
        seconds: its duration.

    >>> def leaks(include, seed):  # tells of each canary whether it was trained on
    ...     return 1.0 * include
    >>> print(audit_trainer(leaks, canaries=500, epsilon=1, seed=0).sentence())
    ALARM: the trainer does not meet its claim of epsilon 1 at delta 1e-5: 500 canaries in 1 run
    prove epsilon >= 3.76 at 95% confidence.
    """

    bounds: EpsilonBounds
    epsilon: float
    delta: float
    canaries: int
    runs: int
    let_in: int
    seed: int
    seconds: float

    @property
    def proven(self) -> Bound:
        """The bound that decides: it presumes nothing but the fair coins."""
        return self.bounds["one-run"]

    @property
    def alarm(self) -> bool:
        """Whether the bound exceeds the claimed epsilon.

        If the claim holds, the probability of an alarm is 1 - level at most.
        """
        return self.proven.epsilon > self.epsilon

    def sentence(self) -> str:
        """The verdict in a sentence."""
        runs = f"{self.runs} run{'s' if self.runs > 1 else ''}"
        seen = f"{self.canaries:,} canaries in {runs}"
        proves = f"epsilon >= {self.proven.epsilon:.2f} at {self.proven.level:.0%} confidence"
        claim = f"epsilon {self.epsilon:.4g} at delta {self.delta:g}".replace("e-0", "e-")
        if self.alarm:
            return f"ALARM: the trainer does not meet its claim of {claim}: {seen} prove {proves}."
        return (
            f"Nothing contradicts the claim of {claim}: {seen} prove {proves}, whatever the "
            "mechanism is. This is no proof that the claim holds."
        )

    def to_frame(self) -> pandas.DataFrame:
        """The bounds as a pandas frame; see `EpsilonBounds.to_frame`."""
        return self.bounds.to_frame()

    def __str__(self) -> str:
        hint = filter(None, [self.bounds.hint])
        return "\n".join([self.sentence(), *hint, "", *self.bounds.lines()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        hint = html_line(self.bounds.hint) if self.bounds.hint else ""
        return html_line(self.sentence(), bold=True) + hint + self.bounds.html()


@explained
def audit_trainer(
    train: Callable[[np.ndarray, int], Any],
    *,
    canaries: int,
    epsilon: float,
    delta: float = 1e-5,
    score: Callable[[Any], Any] | None = None,
    runs: int = 1,
    level: float = 0.95,
    seed: int | None = None,
    progress: bool = True,
) -> TrainerAudit:
    """Test the claimed epsilon of a training function of your own, by training with canaries.

    A canary is a record that the model remembers well if it is trained on it, such as one with a
    wrong label.  Each run draws a fair coin for every canary, calls `train`, and compares the
    coins with the scores.  One run is enough for a bound; it costs as much as one training.

    Args:
        train: called as `train(include, seed)` with `include`, bool[canaries], which canaries to
            train on besides your other records, and `seed`, for the run's own randomness.  It
            returns a score for each canary, float[canaries], larger for those that were likelier
            trained on, such as minus their losses; or, with `score`, whatever `score` takes.  All
            canaries must be scored alike: code that scores must not use `include`.
        canaries: m >= 100, the number of canaries; 1,000 or more give useful bounds.
        epsilon: >= 0, the claim, for a record added or removed.
        delta: in (0, 1), of the claim.
        score: makes the scores from what `train` returns, for instance from the trained model.
        runs: training runs; the canaries of all count together.
        level: in (0, 1); a trainer whose claim holds raises no alarm with this probability.
        seed: of the coins and the runs; by default a fresh one, which the result has.
        progress: whether to show a progress bar of several runs.

    Returns:
        A `TrainerAudit`: `alarm`, whether the claim is refuted, a sentence, and lower bounds on the
        true epsilon by several methods.  No alarm is no proof of the claim.  If canaries that were
        trained on have clearly smaller scores, the text says to turn the sign.

    Raises:
        ValueError: if a number is out of range, or the scores are not finite numbers, one for each
            canary; what `train` raises.

    Source: Steinke, Nasr and Jagielski, NeurIPS 2023; docs/METHODS.md, section 9.4.

    >>> def train(include, seed):  # noise of standard deviation 0.5 on a sum of norm 1
    ...     return include + np.random.default_rng(seed).normal(0, 0.5, len(include))
    >>> audit_trainer(train, canaries=1000, epsilon=12, seed=0).alarm
    False
    >>> audit_trainer(train, canaries=1000, epsilon=0.5, seed=0).alarm
    True
    """
    started = time.perf_counter()
    check_delta(delta, zero=False)
    check_level(level)
    check_call("train", train, "include, seed")
    if score is not None:
        check_call("score", score, "result")
    check_whole("canaries", canaries, least=1)
    check_whole("runs", runs, least=1)
    if seed is not None:
        check_whole("seed", seed)
    if canaries < FEWEST:
        raise ValueError(
            f"Expected canaries={canaries} >= {FEWEST}: fewer prove nothing; 1000 is usual."
        )
    if not isinstance(epsilon, Real) or isinstance(epsilon, bool) or not epsilon >= 0:
        raise ValueError(f"Expected epsilon={epsilon!r} >= 0, the claim to test.")
    seed = secrets.randbits(62) if seed is None else seed
    coins = np.random.default_rng(_derived(seed, "coins")).random((runs, canaries)) < 0.5
    scores = np.empty(coins.shape)
    for run in tracked(range(runs), "Audit", "run", show=progress and runs > 1):
        with _named(run, runs):
            made = train(coins[run].copy(), _derived(seed, f"run {run}"))
            made = made if score is None else score(made)
        scores[run] = _checked(made, canaries, "train" if score is None else "score")
    bounds = epsilon_bounds(coins, scores, delta=delta, level=level, seed=_derived(seed, "ties"))
    return TrainerAudit(
        bounds,
        epsilon,
        delta,
        canaries,
        runs,
        int(coins.sum()),
        seed,
        time.perf_counter() - started,
    )


@contextmanager
def _named(run: int, runs: int) -> Iterator[None]:
    """Adds the number of the run to an error of the user's own function."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This happened in run {run + 1} of {runs} of the audit.")
        raise


def _derived(seed: int, name: str) -> int:
    """A different seed of 62 bits for each purpose, from which no other one follows."""
    digest = hashlib.sha256(f"own trainer/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def _checked(given: Any, canaries: int, name: str) -> np.ndarray:
    """The scores of one run, as the function of this name returned them, on any device."""
    expected = f"Expected {name} to return a score for each canary, float[{canaries}], got"
    fix = (
        "return numbers, or pass `score`, which makes them." if name == "train" else "return them."
    )
    try:
        found = as_array(given)
    except ValueError:  # of rows of several lengths
        found = np.empty(0, object)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{expected} {type(given).__name__}: {fix}")
    if found.shape != (canaries,):
        raise ValueError(f"{expected} shape {found.shape}.")
    found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError(
            f"Expected finite scores from {name}, got {int((~np.isfinite(found)).sum())} NaN or "
            "infinite ones: the training may have diverged."
        )
    return found
