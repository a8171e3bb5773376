"""What lies where: <root>/<challenge>/<scenario>/<phase>/model_<i>/<file>.

A challenge folder holds scenario folders and nothing else, so that code which lists it meets no
surprise.  What belongs to it lies beside: `<challenge>.release/` with what a release says of
itself, `<challenge>.predictions/` with what attacks predicted.

Paths and small text files only: knows nothing of data, models or attacks, and writes nothing.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mico_competition.competition.table import (
    CHALLENGES,
    COMPETITION_FILE,
    PHASES,
    SCENARIOS,
    Scenario,
    Task,
    fetch_command,
    get_challenge,
    get_scenario,
    get_task,
)
from mico_competition.support.files import PathLike
from mico_competition.support.spelling import nearest
from mico_competition.support.untrusted import TEXT_LIMIT, read_limited_text

_MODEL_FOLDER = re.compile(r"model_(0|[1-9][0-9]*)")


@dataclass(frozen=True, order=True)
class ModelFolder:
    """One model's place in a challenge folder."""

    scenario: str
    phase: str
    model_id: int
    path: Path

    @property
    def task(self) -> Task:
        """The task the model was trained for."""
        return get_task(get_scenario(self.scenario).task)

    @property
    def place(self) -> str:
        """`<scenario>/<phase>/model_<i>`, for messages and archives."""
        return f"{self.scenario}/{self.phase}/model_{self.model_id}"

    def prediction_in(self, folder: PathLike) -> Path:
        """Where this model's prediction.csv lies below challenge folder `folder`."""
        return (
            Path(folder) / self.scenario / self.phase / f"model_{self.model_id}" / "prediction.csv"
        )


def model_path(root: PathLike, scenario: Scenario, phase: str, model_id: int) -> Path:
    """`<root>/<challenge>/<scenario>/<phase>/model_<i>`."""
    return Path(root) / scenario.challenge / scenario.name / phase / f"model_{model_id}"


def release_folder(challenge_folder: PathLike) -> Path:
    """Where a release keeps its summary, checksums, commitments and archives: beside its models."""
    return _beside(challenge_folder, ".release")


def predictions_folder(challenge_folder: PathLike) -> Path:
    """Where attacks write predictions of the models in `challenge_folder` by default: beside it."""
    return _beside(challenge_folder, ".predictions")


def _beside(challenge_folder: PathLike, suffix: str) -> Path:
    """The folder beside; where a link leads if only there is one."""
    folder = challenge_folder_of(challenge_folder)
    beside = folder.with_name(folder.name + suffix)
    real = folder.resolve()
    other = real.with_name(real.name + suffix)
    return other if other.exists() and not beside.exists() else beside


def scenario_of(path: PathLike) -> Scenario | None:
    """The scenario whose name is the nearest folder name on `path`, or None.

    If none is, the path that symbolic links lead to counts.
    """
    for spelled in (absolute(path), Path(os.path.realpath(path))):
        for name in (spelled.name, *(parent.name for parent in spelled.parents)):
            if name in SCENARIOS:
                return SCENARIOS[name]
    return None


def absolute(path: PathLike) -> Path:
    """`path` without "." and "..", its last name kept even if it is a symbolic link's.

    "link/.." is the folder above the one that the link leads to, as for the operating system.
    """
    path = Path(path)
    if ".." not in path.parts:
        return Path(os.path.abspath(path))
    if path.name == "..":
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def challenge_folder_of(folder: PathLike) -> Path:
    """The absolute path of a challenge folder, so spelled that its name is the challenge's.

    A symbolic link stands for its folder, whichever of the two is named after the challenge.  A
    path that is named after none is given back as it is; `walk_challenge` refuses it.
    """
    spelled, target = absolute(folder), Path(os.path.realpath(folder))
    return target if spelled.name not in CHALLENGES and target.name in CHALLENGES else spelled


def model_id_of(name: str) -> int | None:
    """The id in a folder name `model_<i>`, or None if the name is not of that form."""
    match = _MODEL_FOLDER.fullmatch(name)
    return int(match.group(1)) if match else None


def walk_phase(folder: PathLike, scenario: str, phase: str) -> list[ModelFolder]:
    """The models in `<folder>/<scenario>/<phase>`, ordered by id; stray files are ignored."""
    root = Path(folder) / scenario / phase
    if not root.is_dir():
        return []
    found = []
    for path in root.iterdir():
        model_id = model_id_of(path.name)
        if model_id is not None and path.is_dir():
            found.append(ModelFolder(scenario, phase, model_id, path))
    return sorted(found)


def walk_challenge(
    folder: PathLike, *, phases: list[str] | None = None, mend: str | None = None
) -> list[ModelFolder]:
    """All models of a challenge folder, by scenario, then phase, then id.

    Args:
        folder: a folder named after its challenge (`.../purchase100`), or a link to one.
        phases: names of the phases wanted; all by default.
        mend: what to do if there is no such folder; by default, what participants can do.

    Raises:
        ValueError: if the folder is missing, is not named after a challenge, or holds no model.
    """
    given, folder = Path(folder), challenge_folder_of(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no challenge folder {folder}: {_instead(given, folder, mend)}")
    if folder.name not in CHALLENGES:
        raise ValueError(f"{folder} is not named after its challenge: {_rightly_named(given)}")
    models = [
        model
        for scenario in get_challenge(folder.name)
        for phase in (phases or list(PHASES))
        for model in walk_phase(folder, scenario, phase)
    ]
    if not models:
        raise ValueError(
            f"{folder} holds no models: expected {get_challenge(folder.name)[0]}/train/model_0 "
            "and the like below it."
        )
    return models


def _instead(given: Path, folder: Path, mend: str | None) -> str:
    """What to do where challenge folder `given` is missing; `folder` is its absolute path."""
    if mend is not None:
        return mend
    if own := _own_competition(folder):
        return own
    lying = _challenges_near(folder.name)
    if lying:
        return f"did you mean {' or '.join(lying)}?"
    command = fetch_command(folder.name, str(folder))
    if command:
        return f"`{command}` fetches that of 2022."
    if folder.name in CHALLENGES:
        demo = ", or `mico demo` to make one" if folder.name == "digits" else ""
        return (
            f"name the folder you got, or fetch it with `mico download {folder.name} --repo "
            f"OWNER/NAME` from where its organisers published it{demo}."
        )
    near = nearest(folder.name, CHALLENGES)
    if near:
        return f"did you mean {given.with_name(near[0])}?"
    return f"name a folder called after its challenge, one of {', '.join(CHALLENGES)}."


def _own_competition(folder: Path) -> str | None:
    """How to work on a release that carries the file of its competition.

    That file is never used by itself, since it names code, which runs.
    """
    file = folder.with_name(f"{folder.name}.release") / COMPETITION_FILE
    if folder.name in CHALLENGES or not file.is_file():
        return None
    return (
        f"it is of a competition of its own, which {file} describes. That file names code: copy it "
        "into a folder of yours, read it, put the module that it names beside it, and give "
        f"--competition {COMPETITION_FILE}."
    )


def _challenges_near(name: str) -> list[str]:
    """Challenge folders of that name up to two folders below this one, what is public first."""
    if name not in CHALLENGES:
        return []
    here = Path()
    with suppress(OSError):
        found = sorted(p for part in ("*", "*/*") for p in here.glob(f"{part}/{name}"))
        lying = [str(path) for path in found if _holds_scenarios(path)]
        return [path for path in lying if "trained" not in Path(path).parts[:-1]] or lying
    return []


def _holds_scenarios(folder: Path) -> bool:
    """Whether a folder named after its challenge has folders of that challenge's scenarios."""
    return any((folder / scenario).is_dir() for scenario in CHALLENGES.get(folder.name, ()))


def _rightly_named(given: Path) -> str:
    """What to do about a folder that is no challenge's, and may hold one or lie in one."""
    if own := _own_competition(absolute(given)):
        return own
    parts = [f"{part}{name}" for part in ("", "*/") for name in CHALLENGES]
    inner = [path for part in parts for path in sorted(given.glob(part)) if _holds_scenarios(path)]
    outer = [path for path in absolute(given).parents if _holds_scenarios(path)]
    if inner or outer:
        return f"did you mean {' or '.join(map(str, inner or outer[:1]))}?"
    for challenge, scenarios in CHALLENGES.items():
        if any((given / scenario).is_dir() for scenario in scenarios):
            return f"it holds scenarios of {challenge}, so rename it to {challenge}."
    return f"rename it to one of {', '.join(CHALLENGES)}."


def read_text(path: PathLike) -> str:
    """The stripped text of a small file; ValueError if it is a large one."""
    return read_limited_text(path, TEXT_LIMIT).strip()


def find_challenges(root: PathLike) -> list[str]:
    """Names of the challenges that have a folder below `root`; ValueError if there is none."""
    found = [name for name in CHALLENGES if (Path(root) / name).is_dir()]
    if not found:
        raise ValueError(
            f"There is no challenge folder below {root}: name the folder that was given to "
            "`mico train --output_dir`, or to `mico release --to`."
        )
    return found
