"""Selects the files of a challenge's models from the list of a repository's files.

The names in the list are untrusted and will become paths, so only names that follow from the table
are used.  None of these leads out of the challenge's folder, and all others are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from mico_competition.competition.layout import model_id_of
from mico_competition.competition.table import (
    COMPETITION_FILE,
    METADATA_FILE,
    PHASE_NAMES,
    SCORED_PHASES,
    SEED_FILES,
    SOLUTION_FILE,
    Task,
    disclosed_files,
    get_challenge,
    get_scenario,
    get_task,
)
from mico_competition.hosting.hub.client import HubError, HubFile
from mico_competition.support.counts import count_of
from mico_competition.support.untrusted import SEED_LIMIT, TEXT_LIMIT

# The files that describe a release, in `<challenge>.release/`.
COMMITMENTS_FILE = "commitments.json"
UNFINISHED_FILE = "unfinished"  # is there while not all of a release is
AMENDMENTS_FILE = "amendments.jsonl"
RELEASE_FILES = (
    "release.json",
    "SHA256SUMS",
    COMMITMENTS_FILE,
    AMENDMENTS_FILE,
    COMPETITION_FILE,
    *(f"revealed_{phase}.json" for phase in SCORED_PHASES),
)
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, order=True)
class HubModel:
    """A model of a repository, with its files by name."""

    scenario: str
    phase: str
    model_id: int
    files: dict[str, HubFile] = field(default_factory=dict, compare=False)

    @property
    def relative_path(self) -> str:
        """`<scenario>/<phase>/model_<i>`."""
        return f"{self.scenario}/{self.phase}/model_{self.model_id}"

    @property
    def size(self) -> int:
        """The size of all files, in bytes."""
        return sum(file.size for file in self.files.values())


def check_repository(repo: str) -> str:
    """Return `repo`; ValueError unless it has the form OWNER/NAME."""
    if not _REPOSITORY.fullmatch(repo) or "--" in repo or ".." in repo:
        raise ValueError(f"{repo!r} is not the name of a repository: expected OWNER/NAME.")
    return repo


def task_of(scenario: str) -> Task:
    """The task of the scenario of this name."""
    return get_task(get_scenario(scenario).task)


def sort_out(files: Iterable[HubFile], challenge: str) -> tuple[list[HubModel], dict[str, HubFile]]:
    """The models among `files`, in order, and the release's own files by name.

    Args:
        files: all files of a repository.
        challenge: the name of the challenge; if the repository has a folder of this name, as for
            SST-2 of 2022, the models are inside it.
    """
    models: dict[tuple[str, str, int], HubModel] = {}
    extras = {}
    for file in files:
        top, _, name = file.path.partition("/")
        if top == f"{challenge}.release" and name in RELEASE_FILES:
            extras[name] = file
        parts = file.path.removeprefix(f"{challenge}/").split("/")
        if (
            len(parts) != 4
            or parts[0] not in get_challenge(challenge)
            or parts[1] not in PHASE_NAMES
        ):
            continue
        scenario, phase, folder, name = parts
        model_id = model_id_of(folder)
        if model_id is not None and name in _names(scenario):
            key = (scenario, phase, model_id)
            models.setdefault(key, HubModel(*key)).files[name] = file
    return sorted(models.values()), extras


def _names(scenario: str) -> set[str]:
    """All names that the files of a model may have."""
    task = task_of(scenario)
    weights = {name for alternatives in task.weights for name in alternatives.split("|")}
    return weights | {*task.companions, *SEED_FILES, SOLUTION_FILE, METADATA_FILE}


def choose(
    found: list[HubModel],
    challenge: str,
    repo: str,
    *,
    scenarios: Collection[str] = (),
    phases: Collection[str] = (),
    ids: Collection[int] = (),
) -> list[HubModel]:
    """Select models of `found`; an empty collection selects all.

    Raises:
        HubError: if no model matches, or one that is named is missing.
    """
    if not found:
        raise HubError(f"{repo} holds no models of {challenge}: check --repo and --revision.")
    for names, there in (
        (scenarios, {model.scenario for model in found}),
        (phases, {model.phase for model in found}),
    ):
        if lacking := sorted(set(names) - there):
            raise HubError(f"{repo} holds no {lacking[0]}: it has {', '.join(sorted(there))}.")
    chosen = [
        model
        for model in found
        if (not scenarios or model.scenario in scenarios)
        and (not phases or model.phase in phases)
        and (not ids or model.model_id in ids)
    ]
    for scenario in sorted(scenarios or {model.scenario for model in found}):
        have = {model.model_id for model in chosen if model.scenario == scenario}
        if missing := sorted(set(ids) - have):
            where = f"{scenario}/{'|'.join(phases)}" if phases else scenario
            raise HubError(
                f"{repo} holds no model_{missing[0]} of {where}: choose others with --models."
            )
    if not chosen:
        raise HubError(f"{repo} holds no {phases} of {scenarios}: choose others.")
    return chosen


# name -> the most bytes; weights are not limited, but a plan states their size before it begins.
_LARGEST = {
    **dict.fromkeys(SEED_FILES, SEED_LIMIT),
    **dict.fromkeys((SOLUTION_FILE, METADATA_FILE, "config.json"), TEXT_LIMIT),
}
_LARGEST_OTHER = 100 << 20


def check_size(file: HubFile, repo: str, what: str) -> None:
    """Raise HubError if a small kind of file is listed with an absurd size."""
    limit = _LARGEST.get(file.path.rpartition("/")[2], _LARGEST_OTHER)
    if type(file.size) is not int or not 0 <= file.size <= limit:
        raise HubError(
            f"{repo} lists {what} with {file.size:,} bytes, over {limit:,}: tell its owner, and "
            "leave such models out with --scenario, --phase or --models."
        )


def whole(models: list[HubModel], repo: str) -> list[HubModel]:
    """The models, each with only the first of alternative files of weights.

    Raises:
        HubError: if a model lacks its weights or a disclosed file, or a file has an absurd size.
    """
    result, lacking = [], []
    for model in models:
        weights = task_of(model.scenario).weights[-1].split("|")
        for name in model.files.keys() - set(weights):
            check_size(model.files[name], repo, f"{name} of {model.relative_path}")
        files = dict(model.files)
        for alternatives in task_of(model.scenario).weights:
            there = [name for name in alternatives.split("|") if name in files]
            for name in there[1:]:
                del files[name]
            if not there:
                lacking.append(f"{alternatives.replace('|', ' or ')} of {model.relative_path}")
        for name in disclosed_files(get_scenario(model.scenario), model.phase):
            if name not in files:
                lacking.append(f"{name} of {model.relative_path}")
        result.append(HubModel(model.scenario, model.phase, model.model_id, files))
    if lacking:
        more = f" and {count_of(len(lacking) - 1, 'more file')}" if lacking[1:] else ""
        raise HubError(
            f"The repository {repo} lacks {lacking[0]}{more}: tell its owner, and leave such "
            "models out with --scenario, --phase or --models."
        )
    return result
