"""A release on disk, held against the table and against its own checksums.

What is published cannot be called back, so the check is a whitelist: every file must be one
that the table discloses for its phase, every checksum must be right, nothing may be missing.
Reads only; says which file is at fault, never what is in it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from mico_competition.files import PathLike
from mico_competition.hub.client import checksum_of
from mico_competition.hub.dataset_card import IndexLine, ScenarioFacts
from mico_competition.hub.listing import RELEASE_FILES, task_of
from mico_competition.layout import (
    ModelFolder,
    challenge_folder_of,
    model_id_of,
    walk_challenge,
)
from mico_competition.lengths import read_metadata
from mico_competition.progress import tracked
from mico_competition.releases.release import PUBLIC_METADATA
from mico_competition.tracks import (
    METADATA_FILE,
    PHASES,
    SEED_FILES,
    SOLUTION_FILE,
    as_read,
    disclosed_files,
    get_challenge,
    get_scenario,
)

CARD_FILE = "README.md"
SUMS_FILE = "SHA256SUMS"
_SUMS_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")
_MEND = "name the challenge's folder that `mico release` wrote"


@dataclass(frozen=True)
class Released:
    """A release that passed: `sums` are the sha256 of all its files, by path below `folder`."""

    folder: Path
    challenge: str
    models: tuple[ModelFolder, ...]
    sums: dict[str, str]

    def weights(self, model: ModelFolder) -> str:
        """Path, below `folder`, of the file that holds the model's parameters."""
        names = task_of(model.scenario).weights[-1].split("|")
        return next(p for n in names if (p := f"{model.place}/{n}") in self.sums)

    def index(self, scenario: str, phase: str) -> list[IndexLine]:
        """One line for each model of a scenario and phase."""
        lines = []
        for model in self.models:
            if (model.scenario, model.phase) == (scenario, phase):
                path = self.weights(model)
                size = (self.folder / path).stat().st_size
                lines.append(IndexLine(model.model_id, model.place, path, size, self.sums[path]))
        return lines


def check_publishable(folder: PathLike, *, progress: bool = True) -> Released:
    """Check a challenge folder that `mico release` wrote, to the last byte.

    Args:
        folder: named after its challenge, with scenarios, `release.json` and `SHA256SUMS`.
        progress: whether to show how far it is (see `mico_competition.progress`).

    Raises:
        ValueError: if the folder is missing, or not named after a challenge; if a file is in it
            that participants are not to get, or one that they are to get is not; if SHA256SUMS
            is missing, or does not agree with the files.
    """
    folder = challenge_folder_of(folder)
    models = tuple(walk_challenge(folder, mend=f"{_MEND}."))
    paths = _files(folder)
    _check_names(folder, paths)
    for model in models:
        _check_model(model)
    sums = _read_sums(folder)
    present = set(paths) - {SUMS_FILE, CARD_FILE}  # a page of the organiser's own came later
    for lacking, what in (
        (set(sums) - set(paths), "is listed in SHA256SUMS, but is not there"),
        (present - set(sums), "is not listed in SHA256SUMS"),
    ):
        if lacking:
            raise ValueError(f"{folder / min(lacking)} {what}: run `mico release` again.")
    for path in tracked(paths, "Checksums", "file", show=progress):
        found = checksum_of(folder / path)
        if sums.setdefault(path, found) != found:
            raise ValueError(
                f"{folder / path} is not what SHA256SUMS says: run `mico release` again."
            )
    return Released(folder, folder.name, models, sums)


def _files(folder: Path) -> list[str]:
    """Paths of all files below `folder`, sorted; a link to a folder counts as a file."""
    found = []
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, n).relative_to(folder).as_posix() for n in (*names, *links)]
    return sorted(found)


def _check_names(folder: Path, paths: list[str]) -> None:
    """ValueError if a file is not for participants; what is withheld is named first."""
    strange = []
    for path in paths:
        parts = path.split("/")
        if path in (*RELEASE_FILES, CARD_FILE):
            continue
        place = None
        if (
            len(parts) == 4
            and parts[0] in get_challenge(folder.name)
            and parts[1] in PHASES
            and model_id_of(parts[2]) is not None
        ):
            place = (parts[0], parts[1])
        disclosed = _disclosed(*place) if place else set()
        if place and parts[3] in {*SEED_FILES, SOLUTION_FILE} - disclosed:
            raise ValueError(
                f"{folder / path} is withheld in phase {parts[1]}: this is not a release; {_MEND}."
            )
        if parts[-1] in disclosed and not (folder / path).is_symlink():
            continue
        strange.append(path)
    if strange:
        raise ValueError(f"{folder / strange[0]} is not part of a release: remove it, or {_MEND}.")


def _disclosed(scenario: str, phase: str) -> set[str]:
    """All names that a file of a model may have in this phase."""
    task = task_of(scenario)
    weights = {name for alternatives in task.weights for name in alternatives.split("|")}
    return weights | {
        *task.companions,
        METADATA_FILE,
        *disclosed_files(get_scenario(scenario), phase),
    }


def _check_model(model: ModelFolder) -> None:
    """ValueError if a model lacks a file, or its metadata tells of the model itself."""
    for alternatives in (
        *model.task.weights,
        *disclosed_files(get_scenario(model.scenario), model.phase),
    ):
        if not any((model.path / name).is_file() for name in alternatives.split("|")):
            raise ValueError(
                f"There is no {alternatives.replace('|', ' or ')} in {model.path}: run "
                "`mico release` again."
            )
    if private := sorted(set(read_metadata(model.path)) - set(PUBLIC_METADATA)):
        raise ValueError(
            f"{model.path / METADATA_FILE} tells {private[0]}, which is not disclosed: this is "
            f"not a release; {_MEND}."
        )


def _read_sums(folder: Path) -> dict[str, str]:
    """The checksums that the release states, by path."""
    path = folder / SUMS_FILE
    if not path.is_file():
        raise ValueError(f"There is no {SUMS_FILE} in {folder}: run `mico release` again.")
    sums = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _SUMS_LINE.fullmatch(line)
        if not match:
            raise ValueError(f"{path} is not a list of checksums: run `mico release` again.")
        sums[match.group(2)] = match.group(1)
    return sums


def facts_of(release: Released) -> list[ScenarioFacts]:
    """What the page says of each scenario: from release.json, or else from metadata.json.

    Raises:
        ValueError: if release.json is not of the form that `mico release` writes.
    """
    path = release.folder / "release.json"
    stated: dict[str, Any] = {}
    if path.is_file():
        try:
            stated = dict(json.loads(path.read_text(encoding="utf-8"))["scenarios"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} cannot be read: run `mico release` again.") from None
    result = []
    for scenario in as_read({model.scenario for model in release.models}):
        models = [model for model in release.models if model.scenario == scenario]
        counts = {p: sum(m.phase == p for m in models) for p in PHASES}
        said = stated.get(scenario) or read_metadata(models[0].path)
        privacy, row = said.get("privacy"), get_scenario(scenario)
        by_table = not privacy and row.private  # as of 2022's models, which say nothing
        if not privacy:
            privacy = {
                "epsilon": row.target_epsilon,
                "delta": row.target_delta if row.private else None,
            }
        result.append(
            ScenarioFacts(
                scenario,
                counts,
                epsilon=privacy.get("epsilon", inf),
                delta=privacy.get("delta"),
                by_table=by_table,
                accuracy=said.get("accuracy"),
                len_dataset=said.get("len_dataset"),
                len_training=said.get("len_training"),
                len_challenge=said.get("len_challenge"),
            )
        )
    return result
