"""Checks that a released challenge is complete and consistent: `mico verify`.

Matching checksums show only that nothing was damaged, because somebody who changes a release can
also rewrite its checksums.  So this module also compares everything that a release states twice:
release.json with the metadata of models, commitments with models, labels with seeds, and archives
with the files.  Anybody can run it, since it reads nothing but the release.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mico_competition.competition.layout import (
    ModelFolder,
    challenge_folder_of,
    release_folder,
    walk_challenge,
)
from mico_competition.competition.solutions import check_solution
from mico_competition.competition.table import SCORED_PHASES, get_scenario
from mico_competition.release.amendments import history_faults
from mico_competition.release.archive_names import ArchiveName, archive_name
from mico_competition.release.archives import (
    AGAIN,
    ARCHIVES,
    NO_RELEASE,
    SUMS_FILE,
    check_sums,
    files_of_release,
    read_sums,
)
from mico_competition.release.commitments import read_commitments, read_object, withheld_names
from mico_competition.release.leak_check.forms import archive_faults
from mico_competition.release.release import RELEASE_FILE, facts_of, summary
from mico_competition.release.reveal import read_revealed, revealed_file, sums_of, verify
from mico_competition.support.files import PathLike


def check_files(challenge_folder: PathLike) -> tuple[int, list[str]]:
    """Check a release against its checksums, and for contradictions.

    Labels that were revealed later are accepted if `<challenge>.release/` holds a revealed file
    that verifies.

    Returns:
        The number of correct files, and a sentence for each fault.

    Raises:
        ValueError: as `read_sums`, `read_revealed` and `verify`.
    """
    side = release_folder(challenge_folder)
    known: dict[str, str] = {}
    models = walk_challenge(challenge_folder)
    faults = [
        *_summary_faults(challenge_folder, models),
        *_uncommitted(challenge_folder, models),
        *_contradictions(models),
        *history_faults(challenge_folder, read_summary(challenge_folder).get("amendments")),
    ]
    for path in sorted(side / revealed_file(phase) for phase in SCORED_PHASES):
        if path.exists():
            wrong = verify(challenge_folder, path)[1]
            faults += [f"{path.name}: {fault}" for fault in wrong]
            known |= {} if wrong else sums_of(read_revealed(path))
    sound, wrong = check_sums(challenge_folder, known)
    return sound, [*faults, *wrong, *_archives_faults(challenge_folder, models)]


def _summary_faults(challenge_folder: PathLike, models: Sequence[ModelFolder]) -> Iterator[str]:
    """Contradictions between release.json and the folder.

    The accuracy comes from results that are not released, so only its form is checked.
    """
    stated = read_summary(challenge_folder)
    side = release_folder(challenge_folder)
    for phase in stated["revealed"]:
        if not (side / revealed_file(phase)).is_file():
            name = revealed_file(phase)
            yield f"release.json says that {phase} is revealed, and {name} is missing."
    name = challenge_folder_of(challenge_folder).name
    expected = summary(name, models, stated["revealed"], stated.get("amendments", 0))
    for name in sorted(stated.keys() ^ expected.keys()):
        yield f"release.json {_has(name, stated)} {name}."
    scenarios, found = stated["scenarios"], expected["scenarios"]
    for name in sorted(scenarios.keys() ^ found.keys()):
        said = "models of it are" if name in found else "no models of it are"
        yield f"release.json {_has(name, scenarios)} scenario {name}, and {said} in the folder."
    for name in sorted(scenarios.keys() & found.keys()):
        yield from _scenario_faults(name, scenarios[name], found[name]["phases"], models)


def _scenario_faults(
    scenario: str, stated: Any, phases: Mapping[str, int], models: Sequence[ModelFolder]
) -> Iterator[str]:
    """Contradictions between release.json and the models of one scenario."""
    if not isinstance(stated, dict) or not _is_accuracy(stated.get("accuracy")):
        yield f"{scenario}: release.json has no accuracy in [0, 1] of it."
        return
    if stated.get("phases") != phases:
        yield f"{scenario} has {phases} models and release.json says {stated.get('phases')}."
    mine = [model for model in models if model.scenario == scenario]
    known = {"phases", "accuracy", *facts_of(mine[0])}
    for name in sorted(stated.keys() ^ known):
        yield f"{scenario}: release.json {_has(name, stated)} {name}."
    for model in mine:
        for name, value in facts_of(model).items():
            if name in stated and not _same(stated[name], value):
                yield f"{model.relative_path} has another {name} than release.json says."


def _has(name: str, values: Mapping[str, Any]) -> str:
    return "has a" if name in values else "lacks"


def _is_accuracy(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= 1)  # type: ignore[operator]


def _same(one: object, other: object) -> bool:
    """Whether two JSON values are the same; 1 and true are not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _uncommitted(challenge_folder: PathLike, models: Sequence[ModelFolder]) -> list[str]:
    """Models with withheld labels but no commitment, and commitments without a model."""
    withholding = {
        model.relative_path
        for model in models
        if withheld_names(get_scenario(model.scenario), model.phase)
    }
    committed = set(read_commitments(challenge_folder)[1]) if withholding else set()
    lacking, extra = sorted(withholding - committed), sorted(committed - withholding)
    return [
        *(f"{relative_path}: there is no commitment to it." for relative_path in lacking),
        *(f"{relative_path}: it was committed to, and is missing." for relative_path in extra),
    ]


def _contradictions(models: Sequence[ModelFolder]) -> Iterator[str]:
    """Labels that contradict the seeds in the same folder."""
    for model in models:
        try:
            check_solution(model.path)
        except ValueError as error:
            yield str(error)


def _archives_faults(challenge_folder: PathLike, models: Sequence[ModelFolder]) -> Iterator[str]:
    """Archives that are missing, or do not hold the files of their scenario and phase."""
    folder, side = challenge_folder_of(challenge_folder), release_folder(challenge_folder)
    archives = side / ARCHIVES
    if not archives.is_dir():
        return
    present, listed = dict(files_of_release(folder)), read_sums(side / SUMS_FILE)
    names = [name for name, path in present.items() if name in listed and path.is_file()]
    held: dict[str, str] = {}
    for path in sorted(archives.iterdir()):
        holds = archive_name(path.name)
        mine = [model for model in models if holds and holds.holds(model)]
        if not mine:
            if path.name != SUMS_FILE:
                yield (
                    f"{path} is not an archive of a scenario and phase of this release: remove it."
                )
            continue
        for model in mine:
            other = held.setdefault(model.relative_path, path.name)
            if other != path.name:
                yield f"{path} and {other} both hold {model.relative_path}: remove one."
        if not path.is_file() or path.is_symlink():
            yield f"{path} is not a regular file."
            continue
        starts = tuple(f"{folder.name}/{model.relative_path}/" for model in mine)
        content = [name for name in names if name.startswith(starts)]
        yield from (f"{path} {fault}." for fault in archive_faults(path, folder.parent, content))
    lacking = [model for model in models if model.relative_path not in held]
    for name in dict.fromkeys(str(ArchiveName(m.scenario, m.phase)) for m in lacking):
        yield f"{archives / name} is missing, or a part of it: {AGAIN}."


def read_summary(challenge_folder: PathLike) -> dict[str, Any]:
    """Read release.json; ValueError if it is missing or has another form."""
    path = release_folder(challenge_folder) / RELEASE_FILE
    value = read_object(path, NO_RELEASE)
    revealed, name = value.get("revealed"), challenge_folder_of(challenge_folder).name
    if not (
        value.get("challenge") == name
        and value.get("format") == 2
        and isinstance(value.get("scenarios"), dict)
        and isinstance(revealed, list)
        and all(phase in SCORED_PHASES for phase in revealed)
    ):
        raise ValueError(f"{path} is not what this version of `mico release` writes: release anew.")
    return value
