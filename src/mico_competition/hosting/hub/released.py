"""Checks a release on disk before it is published, against the table and its checksums.

Published files cannot be withdrawn, so the check is a whitelist: every file must be one that the
table discloses for its phase, every checksum must be right, and no file may be missing.  Errors
name a file, and never quote it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from mico_competition.competition.layout import (
    ModelFolder,
    challenge_folder_of,
    model_id_of,
    release_folder,
    walk_challenge,
)
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.table import (
    METADATA_FILE,
    PHASE_NAMES,
    SEED_FILES,
    SOLUTION_FILE,
    as_read,
    disclosed_files,
    get_challenge,
    get_scenario,
)
from mico_competition.hosting.hub.dataset_card import IndexLine, ScenarioFacts
from mico_competition.hosting.hub.listing import task_of
from mico_competition.release.archives import SUMS_FILE, files_of_release, read_sums, sha256_of
from mico_competition.release.check_files import check_files, read_summary
from mico_competition.release.privacy_claims import check_privacy_claims
from mico_competition.release.public_files import PUBLIC_METADATA
from mico_competition.support.files import PathLike

CARD_FILE = "README.md"
_MEND = "name the challenge's folder that `mico release` wrote"


@dataclass(frozen=True)
class Released:
    """A release that passed the check: local paths and SHA-256 of its files, by published path."""

    folder: Path
    challenge: str
    models: tuple[ModelFolder, ...]
    files: dict[str, Path]
    sums: dict[str, str]

    @property
    def side(self) -> Path:
        """The folder, beside the models, of the release's own files."""
        return release_folder(self.folder)

    def weights(self, model: ModelFolder) -> str:
        """The published path of the model's weights."""
        names = task_of(model.scenario).weights[-1].split("|")
        places = (f"{self.challenge}/{model.relative_path}/{name}" for name in names)
        return next(place for place in places if place in self.sums)

    def index(
        self, scenario: str, phase: str, archives: Mapping[str, str] | None = None
    ) -> list[IndexLine]:
        """A line for each model of a scenario and phase.

        `archives` are the published paths of archives, by `relative_path` of their models.
        """
        lines = []
        for model in self.models:
            if (model.scenario, model.phase) == (scenario, phase):
                name = self.weights(model)
                size, place = (
                    self.files[name].stat().st_size,
                    f"{self.challenge}/{model.relative_path}",
                )
                archive = (archives or {}).get(model.relative_path, "")
                line = IndexLine(model.model_id, place, name, size, self.sums[name], archive)
                lines.append(line)
        return lines


def check_publishable(folder: PathLike) -> Released:
    """Check a challenge folder that `mico release` wrote.

    Args:
        folder: the folder, named after its challenge, beside which `<challenge>.release` lies.

    Raises:
        ValueError: if the folder is missing or not named after a challenge, if it holds a file
            that participants must not get or lacks one that they must get, or if SHA256SUMS is
            missing or does not match the files.
    """
    folder = challenge_folder_of(folder)
    models = tuple(walk_challenge(folder, fix=f"{_MEND}."))
    side, files = release_folder(folder), dict(files_of_release(folder))
    revealed = read_summary(folder)["revealed"] if (side / "release.json").is_file() else []
    _check_names(folder, files, revealed)
    for model in models:
        _check_model(model, revealed)
    check_privacy_claims(models)
    faults = check_files(folder)[1]
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if faults[1:] else ""
        raise ValueError(f"{faults[0]}{more}")
    name = f"{folder.name}.release/{SUMS_FILE}"
    sums = read_sums(side / SUMS_FILE) | {name: sha256_of(side / SUMS_FILE)}
    return Released(folder, folder.name, models, files | {name: side / SUMS_FILE}, sums)


def _check_names(folder: Path, files: dict[str, Path], revealed: Collection[str]) -> None:
    """Raise ValueError if a file of a model is withheld, or is not one that participants get."""
    strange = []
    for name, path in files.items():
        top, *parts = name.split("/")
        if top != folder.name:
            continue
        place = None
        if (
            len(parts) == 4
            and parts[0] in get_challenge(folder.name)
            and parts[1] in PHASE_NAMES
            and model_id_of(parts[2]) is not None
        ):
            place = (parts[0], parts[1])
        public = _public_names(*place, revealed) if place else set()
        if place and parts[3] in {*SEED_FILES, SOLUTION_FILE} - public:
            raise ValueError(
                f"{path} is withheld in phase {parts[1]}: this is not a release; {_MEND}."
            )
        if parts[-1] not in public or path.is_symlink():
            strange.append(path)
    if strange:
        raise ValueError(f"{strange[0]} is not part of a release: remove it, or {_MEND}.")


def _disclosed(scenario: str, phase: str, revealed: Collection[str]) -> tuple[str, ...]:
    """The seeds and solutions that participants have, after phases were revealed."""
    if phase in revealed:
        return (*SEED_FILES, SOLUTION_FILE)
    return disclosed_files(get_scenario(scenario), phase)


def _public_names(scenario: str, phase: str, revealed: Collection[str]) -> set[str]:
    """All names that the files of a model may have in this phase."""
    task = task_of(scenario)
    weights = {name for alternatives in task.weights for name in alternatives.split("|")}
    return weights | {*task.companions, METADATA_FILE, *_disclosed(scenario, phase, revealed)}


def _check_model(model: ModelFolder, revealed: Collection[str]) -> None:
    """Raise ValueError if a model lacks a file, or its metadata reveal anything about it."""
    for alternatives in (
        *model.task.weights,
        *_disclosed(model.scenario, model.phase, revealed),
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


def facts_of(release: Released) -> list[ScenarioFacts]:
    """The facts about each scenario for the page, from release.json."""
    summary = read_summary(release.folder)
    stated, revealed = summary["scenarios"], tuple(summary["revealed"])
    result = []
    for scenario in as_read({model.scenario for model in release.models}):
        models = [model for model in release.models if model.scenario == scenario]
        counts = {p: sum(m.phase == p for m in models) for p in PHASE_NAMES}
        said = stated[scenario]
        privacy, row = said.get("privacy"), get_scenario(scenario)
        by_table = not privacy and row.private  # models of 2022 do not state it
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
                revealed=revealed,
            )
        )
    return result
