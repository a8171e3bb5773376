"""Verifies that a release descends from an earlier one: `mico verify --since`.

Somebody who kept the earlier release, or only its commitments.json or amendments.jsonl, can show
that the organiser changed nothing but what the amendments say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mico_competition.competition.layout import release_folder
from mico_competition.competition.table import SCORED_PHASES, get_scenario
from mico_competition.release.amendments import (
    AMENDMENTS_FILE,
    Amendment,
    amendments_in,
    files_by_model,
    read_amendments,
    rolled_back,
)
from mico_competition.release.archives import NO_RELEASE, SUMS_FILE, read_sums
from mico_competition.release.commitments import (
    COMMITMENTS_FILE,
    commitments_in,
    read_object,
    withheld_names,
)
from mico_competition.release.release import RELEASE_FILE
from mico_competition.release.reveal import revealed_file
from mico_competition.support.files import PathLike

_CHANGE = (RELEASE_FILE, COMMITMENTS_FILE, AMENDMENTS_FILE)  # that an amendment writes anew


@dataclass(frozen=True)
class Descent:
    """What follows from an earlier release: the amendments since, and a sentence for each fault.

    `files` is the number of files with the same checksum as in the earlier release, None if that
    was not at hand.
    """

    since: Sequence[Amendment]
    faults: list[str]
    files: int | None = None


def descent(challenge_folder: PathLike, earlier: PathLike) -> Descent:
    """Verify that a release differs from an earlier one only in what its amendments state.

    Args:
        challenge_folder: the released challenge folder, beside which `<challenge>.release` lies;
            its own amendments are checked by `check_files`.
        earlier: an earlier challenge folder, its `<challenge>.release`, or a file
            commitments.json or amendments.jsonl from there.

    Raises:
        ValueError: if `earlier` is none of these, is damaged, or is of another challenge.
    """
    now = release_folder(challenge_folder)
    challenge, committed = commitments_in(now / COMMITMENTS_FILE)
    amendments = read_amendments(challenge_folder)
    states = rolled_back(challenge, committed, amendments)[0]
    earlier = Path(earlier)
    if earlier.is_dir():
        return _since_folder(challenge, earlier, now, states, amendments)
    if earlier.suffix == ".jsonl":
        _same_challenge(amendments_in(earlier)[0], challenge, earlier)
        count, faults = _prefix(amendments, amendments_in(earlier)[1], earlier)
        return Descent(amendments[count:], faults)
    name, before = commitments_in(earlier)
    _same_challenge(name, challenge, earlier)
    if before in states:
        return Descent(amendments[states.index(before) :], [])
    return Descent([], _unexplained(before, states, amendments, earlier))


def _same_challenge(name: str, challenge: str, earlier: Path) -> None:
    if name != challenge:
        raise ValueError(f"{earlier} is of {name}, and the release is of {challenge}.")


def _prefix(
    amendments: Sequence[Amendment], before: Sequence[Amendment], earlier: Path
) -> tuple[int, list[str]]:
    """How many amendments `earlier` has, and a fault if the release does not begin with them."""
    for number, (old, new) in enumerate(zip(before, amendments), start=1):
        if old != new:
            return len(before), [f"Amendment {number} is another one than in {earlier}."]
    if len(before) > len(amendments):
        lacking = before[len(amendments)].number
        return len(before), [f"Amendment {lacking} of {earlier} is missing in the release."]
    return len(before), []


def _unexplained(
    before: Mapping[str, str],
    states: Sequence[Mapping[str, str]],
    amendments: Sequence[Amendment],
    earlier: Path,
) -> list[str]:
    """A sentence for each model whose commitment changed without an amendment, or at least one."""
    named = {model for amendment in amendments for model in amendment.changes}
    now = states[-1]
    faults = [
        f"{model}: its commitment is not that of {earlier}, and no amendment says so."
        for model in sorted(before.keys() | now.keys())
        if model not in named and before.get(model) != now.get(model)
    ]
    return faults or [f"The release never had the commitments of {earlier}, by its amendments."]


def _since_folder(
    challenge: str,
    earlier: Path,
    now: Path,
    states: Sequence[Mapping[str, str]],
    amendments: Sequence[Amendment],
) -> Descent:
    """The descent from an earlier release, with all its files."""
    old = earlier if (earlier / COMMITMENTS_FILE).is_file() else release_folder(earlier)
    name, before = commitments_in(old / COMMITMENTS_FILE)
    _same_challenge(name, challenge, earlier)
    record = old / AMENDMENTS_FILE
    kept = amendments_in(record)[1] if record.is_file() else []
    count, faults = _prefix(amendments, kept, earlier)
    if faults:
        return Descent([], faults)
    since = amendments[count:]
    if before != states[count]:
        return Descent(since, _unexplained(before, states, amendments, earlier))
    sums, present = read_sums(old / SUMS_FILE), read_sums(now / SUMS_FILE)
    faults, alike = _compared(challenge, sums, present, since, earlier)
    return Descent(since, faults + _other_accuracies(old, now, since, earlier), alike)


def _other_accuracies(old: Path, now: Path, since: Sequence[Amendment], earlier: Path) -> list[str]:
    """Faults of accuracies in release.json that changed although no train model did.

    They are the only numbers there that `check_files` cannot compute from the models.
    """
    before, after = (
        read_object(side / RELEASE_FILE, NO_RELEASE)["scenarios"] for side in (old, now)
    )
    changed = {tuple(model.split("/")[:2]) for amendment in since for model in amendment.changes}
    return [
        f"{now / RELEASE_FILE} states another accuracy of {scenario} than {earlier}, and no "
        "amendment changed its train models."
        for scenario in sorted(before.keys() & after.keys())
        if (scenario, "train") not in changed
        and before[scenario].get("accuracy") != after[scenario].get("accuracy")
    ]


def _compared(
    challenge: str,
    before: Mapping[str, str],
    now: Mapping[str, str],
    since: Sequence[Amendment],
    earlier: Path,
) -> tuple[list[str], int]:
    """Faults of files that differ without an amendment, and the number of those that are alike."""
    faults, alike = [], 0
    first = {
        model: change["before"]
        for amendment in reversed(since)
        for model, change in amendment.changes.items()
    }
    of_models = files_by_model(challenge, before)
    for model, state in first.items():
        if of_models.get(model, {}) != (state["files"] if state else {}):
            faults.append(f"{model}: it was amended, but had other files in {earlier}.")
    for name, digest in before.items():
        folder = name.rpartition("/")[0].removeprefix(f"{challenge}/")
        if folder in first or name in {f"{challenge}.release/{file}" for file in _CHANGE}:
            continue
        if now.get(name) != digest:
            verb = "is not what it was" if name in now else "is missing, and was"
            faults.append(f"{name} {verb} in {earlier}, and no amendment says so.")
        else:
            alike += 1
    for name in now.keys() - before.keys():
        folder, _, file = name.rpartition("/")
        model = folder.removeprefix(f"{challenge}/")
        scenario, phase, *_ = [*model.split("/"), ""]
        if folder == f"{challenge}.release":
            fits = file in (*_CHANGE, *map(revealed_file, SCORED_PHASES))
        else:
            fits = model in first or (
                model in of_models and file in withheld_names(get_scenario(scenario), phase)
            )
        if not fits:
            faults.append(f"{name} was not in {earlier}, and no amendment says so.")
    return sorted(faults), alike
