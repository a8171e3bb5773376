"""Which target model is attacked with which shadow models, so that no target's labels are used.

In the train phase each model is a target, and the other train models are its shadows.  An attack
that can leave each target out of its own shadows gets all targets in one problem.  Any other attack
is evaluated by cross-fitting: models are split into folds, and the shadows of a target are the
models of the other folds.  Models with the same training records, or with complementary ones, are
left out together: the members of one tell those of the other.  Targets of the dev and final phases
are attacked with all train models, as participants attack them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.masked_source import MaskedSource
from mico_competition.attacks.problem import Attack, Problem
from mico_competition.evaluation.custom import answer, is_ours
from mico_competition.evaluation.untied import untied
from mico_competition.signals import HIDDEN, MEMBER, Fleet, truth
from mico_competition.signals.source import Source

_LEAST_POINTS = 32  # with fewer, two random masks may be complementary by chance
EXTRA = 2000  # further known records that are hidden, so that they can be scored, at least
HIDDEN_SHARE = 0.1  # of all records; with fewer, scores of a large dataset are needlessly noisy


@dataclass(frozen=True)
class EvaluationTask:
    """The targets and the points to score, which all attacks that are compared share.

    Attributes:
        source: the signals.
        phase: of the targets.
        targets: int64[t], rows of the target models, ascending.
        columns: int64[t, k], the points to score for each target.
        member: bool[t, k], the truth, for scoring only; None if it is not available.
        known_membership: int8[models, points]: what an attack may know of each model while it
            attacks it as a target; HIDDEN at the points to score.
        known: whether the membership of the targets at other points is known (the DP
            distinguisher).
        groups: int64[t], the group of each target; targets of one group are left out together.
            None if each is left out alone.
    """

    source: Source
    phase: str
    targets: np.ndarray
    columns: np.ndarray
    member: np.ndarray | None
    known_membership: np.ndarray
    known: bool
    groups: np.ndarray | None = None

    @property
    def truth(self) -> np.ndarray:
        """bool[t, k], whether each point is a member; ValueError if that is not available."""
        if self.member is None:
            raise ValueError(
                "Expected targets whose membership is available, to measure scores against it."
            )
        return self.member

    def challenge_places(self) -> np.ndarray:
        """int64[t, 2m], where the targets' challenge points are among `columns`."""
        asked = self.source.fleet.challenge[self.targets]
        order = np.argsort(self.columns, axis=1)
        found = [
            own[np.searchsorted(columns, points, sorter=own)]
            for own, columns, points in zip(order, self.columns, asked)
        ]
        return np.stack(found)


def make_task(
    source: Source,
    phase: str,
    *,
    records: str = "challenge",
    known: bool = False,
    scored: bool = True,
    seed: int = 0,
) -> EvaluationTask:
    """The task of attacking all models of a phase.

    Args:
        source: signals of the fleet.
        phase: "train", "dev" or "final".
        records: "challenge": score each model's challenge points; "all": score every record of
            the source (a low-noise estimate, because true and false positive rates do not depend
            on the share of members).  With `known`, "all" means the challenge points and a
            tenth of the records (2,000 at least, half at most) by chance, whose membership is
            hidden for this.
        known: whether the attack knows the membership of the targets at all other points.
        scored: whether the truth is needed.  A participant does not have that of dev and final
            models; then only what the fleet discloses is known.
        seed: of the choice of extra records.

    Raises:
        ValueError: if there are no models of this phase, if their membership is needed but not
            available, or if the source lacks their challenge points.
    """
    fleet = source.fleet
    if records not in ("challenge", "all"):
        raise ValueError(f"Expected records {records!r} to be 'challenge' or 'all'.")
    targets = fleet.rows(phase)
    if not len(targets):
        raise ValueError(f"There are no {phase} models of {fleet.scenario} to attack.")
    columns = challenge_columns(fleet, targets)
    if records == "all":
        columns = _more(columns, fleet.known_membership.shape[1], known, seed)
    known_membership, member = fleet.known_membership.copy(), None
    if scored:
        known_membership[targets] = _truth(source, targets)
        member = np.take_along_axis(known_membership[targets] == MEMBER, columns, axis=1)
    if known:
        known_membership[targets[:, None], columns] = HIDDEN
    else:
        known_membership[targets] = HIDDEN
    groups = bound_groups(fleet.known_membership[targets]) if phase == "train" else None
    return EvaluationTask(source, phase, targets, columns, member, known_membership, known, groups)


def bound_groups(known_membership: np.ndarray) -> np.ndarray | None:
    """int64[t], the same number for models whose members tell each other's; None if none do.

    These are models with the same members, and models with complementary ones, such as the pairs
    of `shadows.balanced_membership`.

    Args:
        known_membership: int8[t, points].
    """
    models, points = known_membership.shape
    if points < _LEAST_POINTS:
        return None
    numbers: dict[bytes, int] = {}
    groups = np.arange(models)
    for row, known in enumerate(known_membership):
        if HIDDEN not in known:
            members = np.packbits(known == MEMBER).tobytes(), np.packbits(known != MEMBER).tobytes()
            groups[row] = numbers.setdefault(min(members), row)
    return groups if 1 < len(np.unique(groups)) < models else None


def _truth(source: Source, targets: np.ndarray) -> np.ndarray:
    """int8[t, points], MEMBER or NONMEMBER."""
    known_membership = source.fleet.known_membership[targets]
    return (
        truth(source.fleet, targets, source.data).astype(np.int8)
        if HIDDEN in known_membership
        else known_membership
    )


def challenge_columns(fleet: Fleet, targets: np.ndarray) -> np.ndarray:
    """int64[t, 2m], the columns of the targets' challenge points.

    Raises:
        ValueError: if the fleet's records do not hold them all.
    """
    columns: np.ndarray = fleet.challenge[targets]
    if (columns < 0).any():
        raise ValueError(
            "Expected signals of all challenge points of the models to attack, got a choice of "
            "records without them: read them with records='challenge' or 'all'."
        )
    return columns


def _more(columns: np.ndarray, points: int, known: bool, seed: int) -> np.ndarray:
    """All columns for each target; with `known`, the challenge and a random choice of others."""
    if not known:
        return np.tile(np.arange(points), (len(columns), 1))
    rng = np.random.default_rng(seed)
    extra = max(EXTRA, int(HIDDEN_SHARE * points))
    extra = min(extra, (points - columns.shape[1]) // 2)
    rows = []
    for own in columns:
        others = np.setdiff1d(np.arange(points), own)
        rows.append(np.concatenate([own, rng.choice(others, extra, replace=False)]))
    return np.stack(rows)


def problems(
    task: EvaluationTask, attack: Attack, *, folds: int = 5, seed: int = 0
) -> Iterator[tuple[np.ndarray, Problem]]:
    """(indices into `task.targets`, problem) pairs, which together cover every target once.

    Raises:
        ValueError: on fewer than two folds or train models; if there are no shadows although
            the attack needs some.
    """
    if task.phase != "train":
        shadows = task.source.fleet.rows("train")
        if not len(shadows) and attack.least_shadows:
            raise ValueError(
                f"There are no train models of {task.source.fleet.scenario}: they are the "
                "shadows, so put them beside the others."
            )
        yield np.arange(len(task.targets)), _problem(task, shadows, np.arange(len(task.targets)))
    elif attack.leaves_one_out and not task.known and task.groups is None:
        source = task.source
        known_membership = source.fleet.known_membership
        problem = Problem(
            MaskedSource(source, known_membership),
            task.targets,
            task.targets,
            task.columns,
            known_membership,
            targets_in_shadows=True,
        )
        # The leakage check breaks ties, by which an attack could tell it from this run.
        yield np.arange(len(task.targets)), problem if is_ours(attack) else untied(problem)
    else:
        for places in _folds(task, attack, folds, seed):
            others = np.setdiff1d(np.arange(len(task.targets)), places)
            yield places, _problem(task, task.targets[others], places)


def _folds(task: EvaluationTask, attack: Attack, folds: int, seed: int) -> list[np.ndarray]:
    """Indices into `task.targets` in folds that keep groups whole."""
    if task.groups is None:
        return split(len(task.targets), folds, seed)
    numbers = np.unique(task.groups)
    if attack.leaves_one_out and not task.known:
        folds = len(numbers)  # as many shadows as there can be
    parts = split(len(numbers), folds, seed)
    return [np.flatnonzero(np.isin(task.groups, numbers[part])) for part in parts]


def holdout(task: EvaluationTask, *, seed: int = 0) -> tuple[np.ndarray, Problem]:
    """(indices into `task.targets`, problem): half of the train models, attacked with the rest.

    No label of a target takes part in the attack on any other target.  Leaving out one model, or
    one fold, at a time does not give this.

    Raises:
        ValueError: on fewer than four models.
    """
    models = len(task.targets)
    if models < 4:
        raise ValueError(
            f"Expected at least 4 train models where there are no others, got {models}: half of "
            "them are the shadows that the other half is attacked with."
        )
    groups = np.arange(models) if task.groups is None else task.groups
    numbers = np.unique(groups)
    places, others = (
        np.flatnonzero(np.isin(groups, numbers[part])) for part in split(len(numbers), 2, seed)
    )
    return places, _problem(task, task.targets[others], places)


def split(models: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Indices 0..models - 1 in random folds of nearly equal size, each in ascending order."""
    if folds < 2 or models < 2:
        raise ValueError(
            f"Expected at least 2 folds and 2 train models, got {folds} and {models}: a target "
            "must have other models for shadows."
        )
    shuffled = np.random.default_rng(seed).permutation(models)
    return [np.sort(part) for part in np.array_split(shuffled, min(folds, models))]


def _problem(task: EvaluationTask, shadows: np.ndarray, places: np.ndarray) -> Problem:
    """The targets at `places`, with these shadows, whose membership is known everywhere."""
    known_membership = task.known_membership.copy()
    known_membership[shadows] = task.source.fleet.known_membership[shadows]
    return Problem(
        MaskedSource(task.source, known_membership),
        shadows,
        task.targets[places],
        task.columns[places],
        known_membership,
    )


def run(task: EvaluationTask, attack: Attack, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """float64[t, k]: the attack's scores of all points of a task.

    Raises:
        ValueError: as `problems`; what the attack raises; on scores that are not finite.
    """
    scores = np.full(task.columns.shape, np.nan)
    for places, problem in problems(task, attack, folds=folds, seed=seed):
        scores[places] = answer(attack, problem)
    return scores
