"""Leave-models-out: who is attacked with which shadows, so that no target's labels are used.

Train models are pseudo-targets.  An attack that can leave each target out of its own reference
gets all of them at once; any other gets folds, in which the shadows are the models of the other
folds.  Own dev and final models are attacked with the train models, as participants do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mico_competition.attacks.masked_source import Told
from mico_competition.attacks.problem import Attack, Problem, Source
from mico_competition.evaluation.custom import answer
from mico_competition.signals import HIDDEN, MEMBER, Fleet, truth

EXTRA = 2000  # records beside the challenge that are hidden, to ask for them, of what is known


@dataclass(frozen=True)
class Asked:
    """Who is attacked at which points: the same for all attacks that are compared.

    Attributes:
        source: the signals.
        phase: of the targets.
        targets: int64[t], rows, ascending.
        columns: int64[t, k], the points asked for.
        member: bool[t, k], for scoring only; None where it is not to be had.
        told: int8[models, points]: what may be known while each target is attacked, its own row
            taken apart: targets' rows have HIDDEN where `columns` ask.
        known: whether other points of the targets are told (the DP distinguisher).
    """

    source: Source
    phase: str
    targets: np.ndarray
    columns: np.ndarray
    member: np.ndarray | None
    told: np.ndarray
    known: bool

    @property
    def truth(self) -> np.ndarray:
        """bool[t, k], who of what is asked is a member; ValueError if that is not known."""
        if self.member is None:
            raise ValueError("Expected targets whose membership is known, to be scored.")
        return self.member


def ask(
    source: Source,
    phase: str,
    *,
    records: str = "challenge",
    known: bool = False,
    scored: bool = True,
    seed: int = 0,
) -> Asked:
    """The points of all models of a phase.

    Args:
        source: signals of the fleet.
        phase: "train", "dev" or "final".
        records: "challenge": each model's challenge points; "all": every record of the source (a
            low-noise estimate, as true and false positive rates do not depend on how many members
            there are).  With `known`, "all" means the challenge points and a random `EXTRA` of
            the others, whose membership is hidden for that.
        known: who trained on the points that are not asked for is told of each target.
        scored: whether the truth is needed; without it dev and final models may be a
            participant's, and what is known of them is what their fleet tells.
        seed: of the choice of extra records.

    Raises:
        ValueError: if there are no such models, if their membership is not known but needed, or
            if the source lacks their challenge points.
    """
    fleet = source.fleet
    if records not in ("challenge", "all"):
        raise ValueError(f"Expected records {records!r} to be 'challenge' or 'all'.")
    targets = fleet.rows(phase)
    if not len(targets):
        raise ValueError(f"There are no {phase} models of {fleet.scenario} to attack.")
    columns = challenge_columns(fleet, targets)
    if records == "all":
        columns = _more(columns, fleet.told.shape[1], known, seed)
    told, member = fleet.told.copy(), None
    if scored:
        told[targets] = _truth(source, targets)
        member = np.take_along_axis(told[targets] == MEMBER, columns, axis=1)
    if known:
        told[targets[:, None], columns] = HIDDEN
    else:
        told[targets] = HIDDEN
    return Asked(source, phase, targets, columns, member, told, known)


def _truth(source: Source, targets: np.ndarray) -> np.ndarray:
    """int8[t, points], MEMBER or NONMEMBER."""
    told = source.fleet.told[targets]
    return truth(source.fleet, targets, source.data).astype(np.int8) if HIDDEN in told else told


def challenge_columns(fleet: Fleet, targets: np.ndarray) -> np.ndarray:
    """int64[t, 2m], the columns of the targets' challenge points.

    Raises:
        ValueError: if the fleet's records do not hold them all.
    """
    columns = fleet.challenge[targets]
    if (columns < 0).any():
        raise ValueError(
            "Expected signals of all challenge points of the models to attack, got a choice of "
            "records without them: read them with records='challenge' or 'all'."
        )
    return columns


def _more(columns: np.ndarray, points: int, known: bool, seed: int) -> np.ndarray:
    """All columns for each target; of what is known, the challenge and a random choice."""
    if not known:
        return np.tile(np.arange(points), (len(columns), 1))
    rng = np.random.default_rng(seed)
    extra = min(EXTRA, (points - columns.shape[1]) // 2)
    rows = []
    for own in columns:
        others = np.setdiff1d(np.arange(points), own)
        rows.append(np.concatenate([own, rng.choice(others, extra, replace=False)]))
    return np.stack(rows)


def problems(
    asked: Asked, attack: Attack, *, folds: int = 5, seed: int = 0
) -> Iterator[tuple[np.ndarray, Problem]]:
    """(places among `asked.targets`, problem), which together ask for every target once.

    Raises:
        ValueError: with fewer than two folds or train models; if there are no shadows, and the
            attack needs some.
    """
    if asked.phase != "train":
        shadows = asked.source.fleet.rows("train")
        if not len(shadows) and attack.least_shadows:
            raise ValueError(
                f"There are no train models of {asked.source.fleet.scenario}: they are the "
                "shadows, so put them beside the others."
            )
        yield np.arange(len(asked.targets)), _problem(asked, shadows, np.arange(len(asked.targets)))
    elif attack.leaves_one_out and not asked.known:
        source = asked.source
        told = source.fleet.told
        yield (
            np.arange(len(asked.targets)),
            Problem(
                Told(source, told), asked.targets, asked.targets, asked.columns, told, own=True
            ),
        )
    else:
        for places in split(len(asked.targets), folds, seed):
            others = np.setdiff1d(np.arange(len(asked.targets)), places)
            yield places, _problem(asked, asked.targets[others], places)


def holdout(asked: Asked, *, seed: int = 0) -> tuple[np.ndarray, Problem]:
    """(places among `asked.targets`, problem): half of the train models, attacked with the rest.

    No label of a target takes part in the attack on any other, which leaving out one model or a
    fold at a time does not give.

    Raises:
        ValueError: on fewer than four models.
    """
    models = len(asked.targets)
    if models < 4:
        raise ValueError(
            f"Expected at least 4 train models where there are no others, got {models}: half of "
            "them are the shadows that the other half is attacked with."
        )
    places, others = split(models, 2, seed)
    return places, _problem(asked, asked.targets[others], places)


def split(models: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Places 0..models - 1 in so many folds of nearly equal size, at random, each ascending."""
    if folds < 2 or models < 2:
        raise ValueError(
            f"Expected at least 2 folds and 2 train models, got {folds} and {models}: a target "
            "must have other models for shadows."
        )
    shuffled = np.random.default_rng(seed).permutation(models)
    return [np.sort(part) for part in np.array_split(shuffled, min(folds, models))]


def _problem(asked: Asked, shadows: np.ndarray, places: np.ndarray) -> Problem:
    """Targets `places` with these shadows, of which everything is told."""
    told = asked.told.copy()
    told[shadows] = asked.source.fleet.told[shadows]
    return Problem(
        Told(asked.source, told), shadows, asked.targets[places], asked.columns[places], told
    )


def run(asked: Asked, attack: Attack, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """float64[t, k]: the attack's scores of all that is asked.

    Raises:
        ValueError: as `problems`; what the attack raises; on scores that are not finite.
    """
    scores = np.full(asked.columns.shape, np.nan)
    for places, problem in problems(asked, attack, folds=folds, seed=seed):
        scores[places] = answer(attack, problem)
    return scores
