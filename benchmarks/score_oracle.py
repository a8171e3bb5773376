"""How many labels chosen submissions read off the scores: exact ones, four decimals, and steps.

    python benchmarks/score_oracle_page.py --run    # minutes; writes the table of docs/HOST.md

One scenario of 50 models with 100 members and 100 non-members each, as Development has it.  The
attacker knows the rules, above all that each model has as many members as non-members, and sees
what the board shows: TPR at six FPRs, AUC, advantage and balanced accuracy.  Scenarios have
nothing to do with each other, so one submission attacks three of them at once.

This module holds the attack on exact scores.  Groups of records with equal predictions, from the
top down, make the curve; a true positive rate is the number of members in the groups above it.

- The TPRs at six FPRs are six numbers of members, of nested sets.  Whole models between the sets
  keep the false positives of each where its FPR reads it, and the increments are weighings of
  unknown records by a detecting matrix: 2^k - 1 weighings show k 2^(k-1) labels (Lindstroem, "On a
  combinatorial detection problem", 1964).
- The AUC then is a known number, and for each of some further records its label times its place.
  With known records and whole models between them places are such that all sums differ.

`score_oracle_steps.py` has the attacks on scores in steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from mico_competition.scoring import score
from mico_competition.scoring.coarse import coarse
from mico_competition.scoring.metrics import FPR_THRESHOLDS, SCALARS

MODELS, POINTS = 50, 200
MEMBERS = MODELS * POINTS // 2
LEVELS = tuple(k * MEMBERS // 10_000 for k in FPR_THRESHOLDS)  # false positives that are too many
TESTS = 10  # records a submission whose labels the AUC shows
MARGIN = 35  # non-members: several standard deviations of what is not known of their number


@dataclass
class Oracle:
    """The scoring of one scenario: exact with `step` 0, else rounded to it; `digits` as shown."""

    seed: int
    step: float = 0.0
    digits: int = 10
    asked: int = 0
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        model = np.repeat([0, 1], POINTS // 2)
        self.truth = np.concatenate([rng.permutation(model) for _ in range(MODELS)])

    def ask(self, groups: Sequence[np.ndarray]) -> dict[str, float]:
        """The scores of predictions that are equal in each group, and fall from one to the next."""
        self.asked += 1
        values = np.zeros(MODELS * POINTS)
        for place, group in enumerate(groups):
            values[group] = 1 - (place + 1) / (len(groups) + 1)
        result = score(self.truth, values)
        if self.step:
            result = coarse(result, self.step)
        return {key: round(result[key], self.digits) for key in SCALARS}


def model_of(records: np.ndarray) -> np.ndarray:
    """Which model each record is of."""
    return np.asarray(records) // POINTS


def records_of(model: int) -> np.ndarray:
    """The records of a model."""
    return np.arange(model * POINTS, (model + 1) * POINTS)


def areas(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The AUC of groups from the top down, a row each, by numbers of members and of others."""
    below = others.sum(axis=1, keepdims=True) - np.cumsum(others, axis=1)
    pairs = (members * (below + others / 2)).sum(axis=1)
    return pairs / (members.sum(axis=1) * others.sum(axis=1))


@lru_cache
def weighings(k: int) -> np.ndarray:
    """bool[2^k - 1, k 2^(k-1)]: which records each weighing takes.

    A column belongs to a set S of the k bits and a number j; the weighing of bits a takes it if a,
    within S, is among 2^(j-1) vectors of odd parity: any, here drawn, so that no weighing is much
    larger than others.
    """
    rng = np.random.default_rng(k)
    bits = np.array(list(itertools.product((0, 1), repeat=k)))[1:]
    columns = []
    for chosen in _sets(k):
        odd = [a for a in itertools.product((0, 1), repeat=len(chosen)) if sum(a) % 2]
        keys = [tuple(row) for row in bits[:, chosen].tolist()]
        for j in range(len(chosen)):
            taken = {odd[i] for i in rng.choice(len(odd), 2**j, replace=False)}
            columns.append([key in taken for key in keys])
    return np.array(columns).T


def _sets(k: int) -> list[list[int]]:
    """The non-empty sets of k bits, the largest first."""
    return [list(s) for size in range(k, 0, -1) for s in itertools.combinations(range(k), size)]


def solve(k: int, counts: np.ndarray) -> np.ndarray:
    """The labels whose weighings give `counts`: a set at a time, those that contain it first."""
    table = weighings(k).astype(np.int64)
    bits = np.array(list(itertools.product((0, 1), repeat=k)))[1:]
    left, labels, column = counts.astype(np.int64).copy(), [], 0
    for chosen in _sets(k):
        sign = -((-1) ** bits[:, chosen].sum(axis=1))
        number = int(sign @ left) >> (k - len(chosen))
        for j in range(len(chosen)):
            labels.append(number >> j & 1)
            left -= labels[-1] * table[:, column]
            column += 1
    return np.array(labels)


@dataclass
class Channel:
    """The records that one FPR weighs in a round, and the counts so far."""

    k: int
    records: np.ndarray
    counts: list[int] = field(default_factory=list)

    def group(self) -> np.ndarray:
        """The records of the next weighing."""
        return self.records[weighings(self.k)[len(self.counts)]]

    def full(self) -> bool:
        """Whether all weighings are done."""
        return len(self.counts) == 2**self.k - 1

    def labels(self) -> np.ndarray:
        """The labels, once all weighings are done."""
        return solve(self.k, np.array(self.counts))


class ExactAttack:
    """Reads labels off exact true positive rates, and off the AUC where `use_area` says so."""

    def __init__(self, oracle: Oracle, use_area: bool) -> None:
        self.oracle, self.use_area = oracle, use_area
        self.known = np.full(MODELS * POINTS, -1)
        self.history: list[tuple[int, int]] = []  # submissions so far, labels known then
        self.unknown = list(range(MODELS * POINTS))[::-1]

    def run(self, submissions: int) -> None:
        """Submit until all labels are known, or so often; designs are chosen to end in time."""
        while self.unknown and self.oracle.asked < submissions:
            left, time = len(self.unknown), submissions - self.oracle.asked
            sizes = [k for k in (7, 6, 5) if left > 3 * k * 2 ** (k - 1) and 2**k - 1 <= time]
            self._round(sizes[0] if sizes else min(4, int(np.log2(time + 1))))
            self.history.append((self.oracle.asked, int((self.known >= 0).sum())))

    def _round(self, k: int) -> None:
        """As many submissions as the designs of the four large FPRs need."""
        small = {0: 2, 1: 6 if k > 5 else 5}
        sizes = {**small, **dict.fromkeys((2, 3, 4, 5), k)}
        channels: dict[int, Channel] = {}
        for level, size in sizes.items():
            channels[level] = self._take(size, channels.values())
        for _ in range(2**k - 1):
            for level in small:
                if channels[level].full():
                    self._learn(channels.pop(level))
                    channels[level] = self._take(small[level], channels.values())
            self._submit([channels[level] for level in sizes])
        for channel in channels.values():
            if channel.full():
                self._learn(channel)
            else:  # to be weighed again
                self.unknown += [r for r in channel.records.tolist() if self.known[r] < 0]

    def _take(self, k: int, others: Iterable[Channel]) -> Channel:
        """A channel of the next unknown records, filled up with known ones at the end."""
        size = k * 2 ** (k - 1)
        taken = [self.unknown.pop() for _ in range(min(size, len(self.unknown)))]
        busy = {r for channel in others for r in channel.records.tolist()}
        known = [r for r in np.flatnonzero(self.known >= 0).tolist() if r not in busy]
        return Channel(k, np.array(taken + known[: size - len(taken)], dtype=int))

    def _learn(self, channel: Channel) -> None:
        self.known[channel.records] = channel.labels()

    def _submit(self, channels: Sequence[Channel]) -> None:
        """One submission: a weighing for each FPR, and records for the AUC below them."""
        tests: list[int] = []
        if self.use_area:
            tests = [self.unknown.pop() for _ in range(min(TESTS, len(self.unknown)))]
        in_play = np.concatenate([*(c.records for c in channels), np.array(tests, dtype=int)])
        spacers = [m for m in range(MODELS) if m not in set(model_of(in_play).tolist())]
        groups: list[np.ndarray] = []
        places: list[int] = []  # of each FPR's group
        false = 0.0  # about how many non-members there are so far
        for level, channel in enumerate(channels):
            group = channel.group()
            if level > 1 and false + len(group) / 2 < LEVELS[level - 1] + MARGIN:
                false += self._pad(groups, spacers, LEVELS[level - 1] - false)
            places.append(len(groups))
            groups.append(group)
            false += len(group) / 2
        self._pad(groups, spacers, LEVELS[-1] - false)
        upper = len(groups)
        tests = self._place(groups, tests, spacers)
        shown = self.oracle.ask(groups)
        members = [len(group) // 2 for group in groups[:upper]]  # right for whole models
        for place, threshold, channel in zip(places, FPR_THRESHOLDS, channels):
            rate = shown[f"TPR_FPR_{threshold}"]
            members[place] = round(rate * MEMBERS) - sum(members[:place])
            channel.counts.append(members[place])
        if tests:
            self._read_area(groups, members, tests, shown["AUC"])

    def _pad(self, groups: list[np.ndarray], spacers: list[int], missing: float) -> int:
        """Add whole models until so many more non-members are passed for sure; how many are."""
        models = int(np.ceil((missing + MARGIN) / (POINTS // 2)))
        groups.append(np.concatenate([records_of(spacers.pop()) for _ in range(models)]))
        return models * POINTS // 2

    def _place(self, groups: list[np.ndarray], tests: list[int], spacers: list[int]) -> list[int]:
        """Put tests below the groups, with 1, 2, 4, ... records of known composition between."""
        taken = {*np.concatenate(groups).tolist(), *(r for m in spacers for r in records_of(m))}
        loose = [r for r in np.flatnonzero(self.known >= 0).tolist() if r not in taken]
        gap, used = 1, []
        for test in tests:
            models, singles = divmod(gap, POINTS)
            if singles > len(loose):
                models, singles = models + 1, 0
            if models > len(spacers):
                self.unknown.append(test)
                continue
            parts = [records_of(spacers.pop()) for _ in range(models)]
            parts.append(np.array([loose.pop() for _ in range(singles)], dtype=int))
            groups += [np.array([test]), np.concatenate(parts)]
            used.append(test)
            gap *= 2
        return used

    def _read_area(
        self, groups: Sequence[np.ndarray], members: list[int], tests: list[int], shown: float
    ) -> None:
        """The labels of the tests are those whose AUC is the one shown, if no others have it."""
        sizes = np.array([len(group) for group in groups])
        options = np.array(list(itertools.product((0, 1), repeat=len(tests))))
        ones = np.zeros((len(options), len(groups) + 1))
        ones[:, : len(members)] = members
        below = len(groups) - 2 * len(tests)
        for i in range(len(tests)):
            ones[:, below + 2 * i] = options[:, i]
            ones[:, below + 2 * i + 1] = self._members_of(groups[below + 2 * i + 1])
        ones[:, -1] = MEMBERS - ones.sum(axis=1)
        zeros = np.append(sizes, MODELS * POINTS - sizes.sum()) - ones
        fits = options[np.abs(areas(ones, zeros) - shown) < 1e-9]
        for test, column in zip(tests, fits.T):
            if len(fits) and len(set(column.tolist())) == 1:
                self.known[test] = column[0]
            else:
                self.unknown.append(test)

    def _members_of(self, group: np.ndarray) -> int:
        """Members of a spacer: half of each whole model in it, and the known ones of the rest."""
        models, counts = np.unique(model_of(group), return_counts=True)
        whole = models[counts == POINTS]
        rest = group[~np.isin(model_of(group), whole)]
        return len(whole) * POINTS // 2 + int(self.known[rest].sum())
