"""Attacks on scores in steps: labels read off at the edges of steps, and all of them guessed.

A step of 0.005 is 25 members of 5,000.  A set that holds 12 members more than a multiple of 25
stands at an edge: with one record more, its true positive rate goes up if that record is a member,
and does not if it is not.  `EdgeAttack` finds its first such sets by bisection, knowing nothing but
that whole models are half members; then it reads a record off each score of a submission.  The rest
of a tested record's model follows, so that its label vanishes from the next count.

`guess_all` takes another way: random nested sets in every submission, and the labels that fit the
rounded counts best.  It is sure of none, and right more often than a coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from mico_competition.scoring.coarse import to_step
from score_oracle import MEMBERS, MODELS, POINTS, Oracle, areas, model_of, records_of

HALF = POINTS // 2
LARGE = (2, 3, 4, 5)  # of the six FPRs, those that whole models fit below
SHOWN = ("TPR_FPR_10", "TPR_FPR_100", "TPR_FPR_500", "TPR_FPR_1000", "TPR_FPR_1500", "TPR_FPR_2000")
WHOLE = {1: 1, 2: 3, 3: 5, 4: 8, 5: 10}  # whole models passed when the set of each is done with


@dataclass
class Group:
    """Records of one prediction: members among them, and what tested records add to these."""

    records: np.ndarray
    members: float
    tests: Mapping[int, int]

    def count(self, labels: Mapping[int, float]) -> float:
        """Members of it, if tested records have these labels."""
        return self.members + sum(sign * labels[r] for r, sign in self.tests.items())


class EdgeAttack:
    """Reads labels off scores in steps; `known` holds them, -1 where a label is not known."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.unit = round(oracle.step * MEMBERS)
        self.base = self.unit // 2  # members of a set at an edge
        self.known = np.full(MODELS * POINTS, -1)
        self.history: list[tuple[int, int]] = []
        self.sources = set(LARGE)  # models whose known records make the sets
        rng = np.random.default_rng(1000 + oracle.seed)
        self.order = [records_of(m)[rng.permutation(POINTS)] for m in range(MODELS)]

    def run(self, submissions: int) -> None:
        """Submit until all labels are known, or so often."""
        prefixes = self._bisect(submissions)
        while self.oracle.asked < submissions:
            if len(self._pool(1)) < 5 * self.base or len(self._pool(0)) <= 20:
                self._singles(prefixes)
            elif (self.known < 0).any():
                self._submit()
            else:
                return

    def _ask(self, groups: Iterable[Group]) -> dict[str, float]:
        return self.oracle.ask([group.records for group in groups])

    def _note(self) -> None:
        self.history.append((self.oracle.asked, int((self.known >= 0).sum())))

    # --- the first sets, when nothing is known

    def _above(self, sets: Mapping[int, np.ndarray]) -> dict[int, bool]:
        """For each large FPR, whether a set of records of its model holds more than the base."""
        spare = [m for m in range(MODELS) if m not in self.sources]
        groups, passed, before = [], 0, {}
        for level in LARGE:
            before[level] = HALF * passed
            rest = [np.setdiff1d(records_of(level), sets[level])]
            rest += [records_of(spare.pop()) for _ in range(WHOLE[level] - passed - 1)]
            groups += [Group(sets[level], 0, {}), Group(np.concatenate(rest), 0, {})]
            passed = WHOLE[level]
        shown = self._ask(groups)
        counts = {level: round(shown[SHOWN[level]] * MEMBERS) - before[level] for level in LARGE}
        return {level: count >= self.unit for level, count in counts.items()}

    def _bisect(self, submissions: int) -> dict[int, int]:
        """For each large FPR, how many records of its model, in order, hold the base's members."""
        low, high = dict.fromkeys(LARGE, self.base), dict.fromkeys(LARGE, 5 * self.base + 20)
        while any(high[v] - low[v] > 1 for v in LARGE) and self.oracle.asked < submissions:
            middle = {v: (low[v] + high[v]) // 2 for v in LARGE}
            above = self._above({v: self.order[v][: middle[v]] for v in LARGE})
            for v in LARGE:
                (high if above[v] else low)[v] = middle[v]
            self._note()
        for v in LARGE:  # with the next record there is one member more
            self.known[self.order[v][low[v]]] = 1
        return low

    def _singles(self, prefixes: Mapping[int, int]) -> None:
        """One record of each of the first models, beside its set at the edge."""
        tests = {
            v: next(r for r in self.order[v][prefixes[v] :] if self.known[r] < 0) for v in LARGE
        }
        above = self._above({v: np.append(self.order[v][: prefixes[v]], tests[v]) for v in LARGE})
        for v in LARGE:
            self.known[tests[v]] = int(above[v])
        self._note()

    # --- sets of known members

    def _pool(self, label: int) -> list[int]:
        """Known records of the models that are kept for the sets."""
        mine = np.isin(model_of(np.arange(MODELS * POINTS)), list(self.sources))
        return np.flatnonzero(mine & (self.known == label)).tolist()

    def _unknown(self, model: int, number: int) -> list[int]:
        """The next records of a model that are not known."""
        return [r for r in self.order[model].tolist() if self.known[r] < 0][:number]

    def _submit(self) -> None:
        """One submission: a record for each score, as far as there are known ones to lean on."""
        done = [m for m in range(MODELS) if (self.known[records_of(m)] >= 0).all()]
        if len(done) > 1:
            self.sources = set(done[:2])
        free = [m for m in range(MODELS) if m not in self.sources]
        open_models = [m for m in free if self._unknown(m, 1)]
        two = [m for m in open_models[5:] if len(self._unknown(m, 2)) == 2]
        loose = two[-1] if two else None  # for the advantage and the AUC
        open_models = [m for m in open_models if m != loose]
        order = [*open_models, *(m for m in free if m not in open_models and m != loose)]
        members, others = self._pool(1), self._pool(0)
        groups, tests = self._upper(order[:5], order[5:], members, others)
        if loose is not None and len(members) > self.unit + 5 + self.base:
            tests.update(zip(("MIA", "AUC"), self._unknown(loose, 2)))
            self._lower(groups, tests, members, others)
        self._read(groups, tests, self._ask(groups))
        self._note()

    def _upper(
        self, chosen: list[int], spare: list[int], members: list[int], others: list[int]
    ) -> tuple[list[Group], dict[str, int]]:
        """The sets of the six FPRs, each at an edge but for the record tested."""
        tests = dict(zip(SHOWN[:2], self._unknown(chosen[0], 2)))
        groups = []
        for key, fixed, count in (
            (SHOWN[0], [members.pop() for _ in range(self.base)], self.base),
            (SHOWN[1], [others.pop() for _ in range(5)], 0),
        ):
            own = [tests[key]] if key in tests else []
            groups.append(Group(np.array(fixed + own), count, dict.fromkeys(own, 1)))
        passed = 0
        for level, model in zip((1, *LARGE), chosen):
            if level > 1:
                tests.update(zip(SHOWN[level : level + 1], self._unknown(model, 1)))
                own = [tests[SHOWN[level]]] if SHOWN[level] in tests else []
                groups.append(Group(np.array(own, dtype=int), 0, dict.fromkeys(own, 1)))
            gone = [r for r in tests.values() if model_of(r) == model]
            parts = [np.setdiff1d(records_of(model), gone)]
            parts += [records_of(spare.pop()) for _ in range(WHOLE[level] - passed - 1)]
            signs = dict.fromkeys(gone, -1)
            groups.append(Group(np.concatenate(parts), HALF * (WHOLE[level] - passed), signs))
            passed = WHOLE[level]
        return groups, tests

    def _lower(
        self, groups: list[Group], tests: Mapping[str, int], members: list[int], others: list[int]
    ) -> None:
        """A set whose advantage is at an edge, the rest, and a record whose label moves the AUC.

        How many known records lie below the rest is chosen so that the AUC, too, is at an edge.
        """
        more = [members.pop() for _ in range(self.unit + 5)]
        groups.append(Group(np.array([*more, tests["MIA"]]), len(more), {tests["MIA"]: 1}))
        upper = np.concatenate([group.records for group in groups])
        fixed = sum(group.members for group in groups)
        half = dict.fromkeys(tests.values(), 0.5)
        ones, zeros = np.indices((len(members) + 1, min(len(others), 12) + 1)).reshape(2, -1)
        # Members and others of each group, from the top down, for every choice of the lower ones.
        above = np.array([(g.count(half), len(g.records)) for g in groups]).T
        counts = np.repeat(above[:1], len(ones), axis=0)
        sizes = np.repeat(above[1:], len(ones), axis=0)
        last = np.full(len(ones), 0.5)
        rest = MEMBERS - counts.sum(axis=1) - ones - last
        left = MODELS * POINTS - sizes.sum(axis=1) - ones - zeros - 1
        counts = np.column_stack([counts, rest, ones, last])
        sizes = np.column_stack([sizes, left, ones + zeros, 2 * last])
        place = areas(counts, sizes - counts) / self.oracle.step
        best = int(np.abs(place - np.floor(place) - 0.5).argmin())
        low = np.array(members[: ones[best]] + others[: zeros[best]], dtype=int)
        taken = np.concatenate([upper, low, [tests["AUC"]]])
        signs: dict[int, int] = {tests["AUC"]: -1}
        for group in groups:
            for record, sign in group.tests.items():
                signs[record] = signs.get(record, 0) - sign
        between = np.setdiff1d(np.arange(MODELS * POINTS), taken)
        groups.append(Group(between, MEMBERS - fixed - int(ones[best]), signs))
        groups.append(Group(low, int(ones[best]), {}))
        groups.append(Group(np.array([tests["AUC"]]), 0, {tests["AUC"]: 1}))

    def _area(self, groups: list[Group], labels: Mapping[int, float]) -> float:
        ones = np.array([[group.count(labels) for group in groups]])
        sizes = np.array([[len(group.records) for group in groups]])
        return float(areas(ones, sizes - ones)[0])

    def _read(
        self, groups: list[Group], tests: Mapping[str, int], shown: Mapping[str, float]
    ) -> None:
        """The labels that the scores tell."""
        before = {0: 0, 1: 0, 2: 1, 3: 3, 4: 5, 5: 8}
        for level, key in enumerate(SHOWN):
            if key not in tests or (level == 1 and self.known[tests[SHOWN[0]]] == 1):
                continue  # below a member of the set before, a record moves nothing
            count = round(shown[key] * MEMBERS) - HALF * before[level]
            self.known[tests[key]] = int(count >= self.unit)
        if "AUC" not in tests:
            return
        self.known[tests["MIA"]] = int(round(shown["MIA"] * MEMBERS) > self.unit)
        labels = {r: int(self.known[r]) for r in tests.values()}
        open_tests = [r for r, label in labels.items() if label < 0]  # the AUC's, and one at most
        fits = set()
        for guess in product((0, 1), repeat=len(open_tests)):
            labels.update(zip(open_tests, guess))
            if to_step(self._area(groups, labels), self.oracle.step) == shown["AUC"]:
                fits.add(labels[tests["AUC"]])
        if len(fits) == 1:
            self.known[tests["AUC"]] = fits.pop()


def edge_attack(seed: int, step: float, submissions: int) -> EdgeAttack:
    """The attack at the edges of steps, run."""
    attack = EdgeAttack(Oracle(seed, step))
    attack.run(submissions)
    return attack


SIZES = (80, 440, 920, 1410, 1900)  # of nested sets that 1 %, 5 %, ... of non-members hold


def guess_all(seed: int, step: float, submissions: int) -> float:
    """The share of right labels when all are guessed from rounded counts of random sets.

    The mean of a normal posterior: labels of variance 1/4 whose sum is known for each model, and
    counts with the variance of rounding.  The AUC is a sum of labels times ranks.
    """
    oracle, rng = Oracle(seed, step), np.random.default_rng(2000 + seed)
    total = MODELS * POINTS
    rows, seen, noise = [], [], []
    for _ in range(submissions):
        order = rng.permutation(total)
        cuts = [0, *SIZES, (total + SIZES[-1]) // 2]
        groups = [order[i:j] for i, j in pairwise(cuts)]
        shown = oracle.ask(groups)
        for size, key in zip(SIZES, SHOWN[1:]):
            row = np.zeros(total, dtype=np.float32)
            row[order[:size]] = 1
            rows.append(row)
            seen.append(shown[key] * MEMBERS)
            noise.append((step * MEMBERS) ** 2 / 12)
        ranks = np.empty(total, dtype=np.float32)
        for i, j in pairwise([*cuts, total]):
            ranks[order[i:j]] = total - (i + j - 1) / 2
        scale = MEMBERS / total  # so that all rows are of a kind
        rows.append(ranks / total)
        area = shown["AUC"] * MEMBERS**2 + MEMBERS * (MEMBERS + 1) / 2
        seen.append(area / total)
        noise.append((step * MEMBERS * scale) ** 2 / 12)
    matrix = np.array(rows)
    centred = matrix - matrix.reshape(len(rows), MODELS, POINTS).mean(axis=2).repeat(POINTS, axis=1)
    away = np.array(seen) - matrix.sum(axis=1, dtype=np.float64) / 2
    covariance = centred.astype(np.float64) @ centred.T / 4 + np.diag(noise)
    score = centred.T @ np.linalg.solve(covariance, away)
    ranked = np.argsort(np.argsort(score.reshape(MODELS, POINTS), axis=1), axis=1)
    return float(((ranked.ravel() >= HALF) == oracle.truth).mean())
