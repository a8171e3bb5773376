"""Lower bounds on epsilon from an attack's scores on models of one's own, as a table.

Each bound is a single method's, with what it presumes; the headline is the one that presumes least.
The mathematics is in docs/METHODS.md, section 9.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from mico_competition.audit.bound import Bound
from mico_competition.audit.bounds import METHODS
from mico_competition.audit.checked import check_delta, check_level, check_scores
from mico_competition.audit.guesses import pairs
from mico_competition.audit.one_run import one_run_bound
from mico_competition.support.arrays import as_array
from mico_competition.support.counts import check_whole
from mico_competition.support.tables import aligned, html_line, html_table

if TYPE_CHECKING:
    import pandas

ONE_RUN, OF_PAIRS = "one-run", "one-run of pairs"

PRESUMES: Mapping[str, str] = {
    ONE_RUN: "a fair coin decided for each point whether it is in",
    OF_PAIRS: "each model's members were drawn at random from its points",
    "one-run f-DP": "fair coins, and a Gaussian mechanism",
    "threshold": "independent points",
    "Gaussian DP": "independent points, and a Gaussian mechanism",
}
"""Bound.method -> what must hold, besides scores that were made without the labels."""

PRESUMES_HALF: Mapping[str, str] = {
    **PRESUMES,
    ONE_RUN: "half of the points were drawn as members, without replacement",
    "one-run f-DP": "half of the points drawn as members, and a Gaussian mechanism",
}
"""The same with `membership="half"`."""

_HEADS = ("method", "epsilon >=", "for a record", "presumes")
ADDED, REPLACED = "added or removed", "replaced by another"
_LEAST_POINTS = 32  # with fewer, two random masks may be the same by chance
_BEYOND_CHANCE = 4  # standard deviations of the AUC; chance exceeds them 3 times in 100,000
_LEAST_FIRST = (ONE_RUN, "threshold", "one-run f-DP", "Gaussian DP", OF_PAIRS)


@dataclass(frozen=True)
class EpsilonBounds:
    """Lower bounds on epsilon by several methods; iterating gives each `Bound`.

    A notebook shows them as a table, `print` as text.

    Attributes:
        bounds: by method; each holds with probability `level` by itself, the largest does not.
        delta: of every epsilon.
        level: of every bound.
        models, members, nonmembers: the numbers of models and points.
        missing: method -> why it gives no bound for these points.
        membership: "coins" or "half", how members were drawn.
        hint: what to change if scores have the wrong sign; else empty.

    >>> bounds = epsilon_bounds(np.arange(200) % 2, np.arange(200) % 2)
    >>> print(bounds.sentence())
    epsilon >= 3.58 at delta 1e-5 for a record added or removed, with 95% confidence, by one-run,
    which presumes that a fair coin decided for each point whether it is in.
    >>> max(bounds, key=lambda bound: bound.epsilon).method
    'Gaussian DP'
    """

    bounds: tuple[Bound, ...]
    delta: float
    level: float
    models: int
    members: int
    nonmembers: int
    missing: Mapping[str, str]
    membership: str = "coins"
    hint: str = ""

    def __iter__(self) -> Iterator[Bound]:
        return iter(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, method: str) -> Bound:
        for bound in self.bounds:
            if bound.method == method:
                return bound
        why = f": {self.missing[method]}" if method in self.missing else "."
        names = ", ".join(bound.method for bound in self.bounds)
        raise KeyError(f"There is no bound by {method!r}{why} There are: {names}.")

    @property
    def headline(self) -> Bound:
        """The bound that presumes least, for a record added or removed."""
        return next(b for name in _LEAST_FIRST for b in self.bounds if b.method == name)

    def sentence(self) -> str:
        """The headline in a sentence."""
        best = self.headline
        record = REPLACED if best.method == OF_PAIRS else ADDED
        return (
            f"epsilon >= {best.epsilon:.2f} at delta {_short(self.delta)} for a record {record}, "
            f"with {self.level:.0%} confidence, by {best.method}, which presumes that "
            f"{self._clause(best.method)}."
        )

    @property
    def presumes(self) -> Mapping[str, str]:
        """What each method presumes, besides scores that were made without the labels."""
        return PRESUMES_HALF if self.membership == "half" else PRESUMES

    def _clause(self, method: str) -> str:
        """What a bound presumes, as a clause after "presumes that"."""
        drawn = self.presumes[ONE_RUN] if self.membership == "half" else "fair coins decided"
        return {
            "threshold": "points are independent",
            "one-run f-DP": f"{drawn}, and that the mechanism is Gaussian",
            "Gaussian DP": "points are independent, and that the mechanism is Gaussian",
        }.get(method, self.presumes[method])

    def to_frame(self) -> pandas.DataFrame:
        """The bounds as a pandas frame, indexed by method.

        Its columns are `epsilon`, `delta`, `level`, `record` (what is added, removed or replaced)
        and `presumes`.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        names = ["epsilon", "delta", "level", "record", "presumes"]
        rows = [
            [b.epsilon, b.delta, b.level, _record(b), self.presumes[b.method]] for b in self.bounds
        ]
        index = pd.Index([b.method for b in self.bounds], name="method")
        return pd.DataFrame(rows, index=index, columns=names)

    def lines(self) -> list[str]:
        """The table and its notes as text."""
        return [*aligned([_HEADS, *map(self._cells, self.bounds)]), "", *self._notes()]

    def html(self) -> str:
        """The table and its notes as HTML."""
        table = html_table(_HEADS, [self._cells(bound) for bound in self.bounds])
        return "\n".join([table, *(html_line(note, small=True) for note in self._notes())])

    def __str__(self) -> str:
        return "\n".join([self.sentence(), *filter(None, [self.hint]), "", *self.lines()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = [html_line(line) for line in (self.sentence(), self.hint) if line]
        return "\n".join([*lines, self.html()])

    def _cells(self, bound: Bound) -> tuple[str, str, str, str]:
        return bound.method, f"{bound.epsilon:.2f}", _record(bound), self.presumes[bound.method]

    def _notes(self) -> list[str]:
        models = f"{self.models} model{'s' if self.models > 1 else ''}"
        return [
            f"From {models}, {self.members:,} members and {self.nonmembers:,} non-members. Each "
            f"bound holds with {self.level:.0%} confidence by itself; the largest of them does "
            "not.",
            *(f"No bound by {method}: {why}" for method, why in self.missing.items()),
        ]


def epsilon_bounds(
    is_member: Any,
    scores: Any,
    *,
    delta: float = 1e-5,
    level: float = 0.95,
    membership: str = "coins",
    seed: int = 0,
) -> EpsilonBounds:
    """Lower bounds on the epsilon of a training run, from an attack's scores, by several methods.

    A bound is about the trainer that made the models: with probability `level`, over new runs, the
    trainer's epsilon is not below it.  The scores must be made without any of the labels that they
    are compared with: attack some models with others.  The rows of `evaluate` do not fit together,
    since each target is a shadow model of the others there; one of its rows by itself does, such as
    `result["lira"].truth[0]` with `result["lira"].scores[0]`.  Every second row of a pool of
    `train_shadows` (`[::2]`) has no row whose members it tells; that bounds hold for these rows
    together is shown by simulation, not by a theorem.

    Args:
        is_member: bool[points], or bool[models, points] for several models; 1 for a member.
        scores: float of the same shape, finite, larger for likelier members; only their order
            counts.  Scores of several models must be comparable.
        delta: in (0, 1), of every bound.
        level: in (0, 1), of each bound.
        membership: how members were drawn.  "coins": a fair coin for each point, independent of
            the others.  "half", for one model: exactly half of its points are members, drawn
            without replacement, as in the challenges of MICO, so that points are not independent.
            The one-run methods allow for that: they multiply their p-values by about
            sqrt(pi n / 2) for n points, which lowers their bounds a little.  The other methods
            give the same bounds as with "coins".
        seed: of the order of tied scores and of the pairs.

    Returns:
        `EpsilonBounds`, from the fewest assumptions to the most.  A method that cannot give a bound
        for these points, such as a one-run bound for uneven numbers of members and non-members, is
        in `missing`, with the reason.  If members have clearly smaller scores than non-members,
        `hint` and the text say to turn the sign.

    Raises:
        ValueError: if shapes differ, a score is not finite, `is_member` is not 0 or 1 or of one
            kind only, `membership` is "half" and another share of the points are members, two
            models have the same or complementary members, a number is out of range, or no method
            gives a bound.

    Sources: Steinke, Nasr and Jagielski, NeurIPS 2023 (one run); Mahloujifar, Melis and Chaudhuri,
    ICML 2025 (one run, f-DP); Jagielski, Ullman and Oprea, NeurIPS 2020 (threshold); Nasr et al.,
    USENIX Security 2023 (Gaussian DP).

    >>> rng = np.random.default_rng(0)
    >>> is_member = rng.random(1000) < 0.5
    >>> bounds = epsilon_bounds(is_member, 3 * is_member + rng.normal(size=1000))
    >>> [bound.method for bound in bounds]
    ['one-run', 'one-run of pairs', 'one-run f-DP', 'threshold', 'Gaussian DP']
    >>> bounds.headline.method, bounds.headline.epsilon > 2
    ('one-run', True)
    """
    check_delta(delta, zero=False)
    check_level(level)
    check_whole("seed", seed)
    truth, values = _models(is_member, scores)
    if membership == "half" and len(truth) > 1:
        raise ValueError(
            "Expected membership='coins' for several models: where exactly half of each model's "
            'points are members, the bound "one-run of pairs" holds.'
        )
    member, value = check_scores(np.concatenate(truth), np.concatenate(values), name="is_member")
    if membership == "half" and abs(2 * int(member.sum()) - member.size) > 1:
        raise ValueError(
            f'Expected exactly half of the points to be members for membership="half", got '
            f'{int(member.sum()):,} of {member.size:,}: give membership="coins" if each point had '
            "a fair coin."
        )
    _check_independent(truth)
    plan: dict[str, Any] = {"delta": delta, "level": level, "seed": seed}
    found: list[Bound] = []
    missing: dict[str, str] = {}
    for method in (ONE_RUN, OF_PAIRS, "one-run f-DP", "threshold", "Gaussian DP"):
        try:
            if method == OF_PAIRS:
                of_pairs = one_run_bound(*_pairs(truth, values, seed), **plan)
                found.append(replace(of_pairs, method=OF_PAIRS))
            elif method in (ONE_RUN, "one-run f-DP"):
                found.append(METHODS[method](member, value, membership=membership, **plan))
            else:
                found.append(METHODS[method](member, value, **plan))
        except ValueError as error:
            if str(error).startswith("Unknown membership"):
                raise
            missing[method] = str(error)
    if not found:
        raise ValueError(next(iter(missing.values())))
    inside = int(member.sum())
    counts = len(truth), inside, member.size - inside
    hint = _hint(member, value)
    return EpsilonBounds(tuple(found), delta, level, *counts, missing, membership, hint)


def _hint(member: np.ndarray, value: np.ndarray) -> str:
    """What to change if members have clearly smaller scores than chance gives; else empty."""
    members, others = int(member.sum()), int((~member).sum())
    ranks = rankdata(value)
    auc = (ranks[member].sum() - members * (members + 1) / 2) / members / others
    chance = math.sqrt((members + others + 1) / (12 * members * others))
    if auc >= 0.5 - _BEYOND_CHANCE * chance:
        return ""
    return (
        f"Members have smaller scores than non-members (AUC {auc:.3f}): if your scores are small "
        "for likely members, as losses are, give them with the opposite sign."
    )


def _models(is_member: Any, scores: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Membership and scores of each model, as flat arrays."""
    try:
        truth, values = _array("is_member", is_member), _array("scores", scores)
    except _Ragged:
        truth = values = np.zeros((0, 0, 0))
    if truth.shape != values.shape or truth.ndim not in (1, 2):
        raise ValueError(
            "Expected is_member and scores of one shape, [points] or [models, points], got "
            f"{truth.shape} and {values.shape}: pass is_member first, and one score for each point."
        )
    if truth.ndim == 1:
        return [truth], [values]
    return list(truth), list(values)


class _Ragged(Exception):
    """Rows of several lengths."""


def _array(name: str, given: Any) -> np.ndarray:
    """Numbers as an array; a tensor may require gradients and be on any device."""
    try:
        found = as_array(given)
    except ValueError:
        raise _Ragged from None
    if found.dtype == object:
        try:
            found = found.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"Expected {name} to hold numbers alone, got other objects.") from None
    return found


def _check_independent(truth: Sequence[np.ndarray]) -> None:
    """ValueError if two models have the same members, or one those that the other has not."""
    seen: dict[bytes, int] = {}
    for row, one in enumerate(truth if len(truth[0]) >= _LEAST_POINTS else ()):
        masks = np.packbits(one == 1).tobytes(), np.packbits(one != 1).tobytes()
        other = seen.setdefault(min(masks), row)
        if other != row:
            raise ValueError(
                f"Expected models with members drawn independently, but models {other} and {row} "
                "have the same or complementary ones, and count only once: pass one of them. Of "
                "the pairs of mico.train_shadows these are is_member[::2] and scores[::2]. If "
                "each model has other records, shuffle the points of each."
            )


def _pairs(
    truth: Sequence[np.ndarray], values: Sequence[np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a member and a non-member within each model, joined."""
    found = [
        pairs(np.asarray(one) == 1, np.asarray(score, dtype=np.float64), seed=seed + model)
        for model, (one, score) in enumerate(zip(truth, values))
    ]
    of_pairs, gaps = (np.concatenate(parts) for parts in zip(*found))
    if not of_pairs.size or of_pairs.all() or not of_pairs.any():
        raise ValueError("Expected several pairs of a member and a non-member of one model.")
    return of_pairs, gaps


def _record(bound: Bound) -> str:
    return REPLACED if bound.method == OF_PAIRS else ADDED


def _short(number: float) -> str:
    return f"{number:g}".replace("e-0", "e-")
