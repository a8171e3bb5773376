"""The folders of a competition: <root>/<challenge>/<scenario>/<phase>/model_<i>/<file>.

A challenge folder holds nothing but scenario folders, so that code can safely list it. Beside it
are `<challenge>.release/`, with the files that describe a release, and `<challenge>.predictions/`,
with the predictions of attacks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mico_competition.competition.table import (
    CHALLENGES,
    COMPETITION_FILE,
    PHASE_NAMES,
    SCENARIOS,
    Scenario,
    Task,
    current,
    fetch_command,
    get_challenge,
    get_phase,
    get_scenario,
    get_task,
)
from mico_competition.support.files import PathLike
from mico_competition.support.spelling import nearest
from mico_competition.support.untrusted import TEXT_LIMIT, read_limited_text

_MODEL_FOLDER = re.compile(r"model_(0|[1-9][0-9]*)")


@dataclass(frozen=True, order=True)
class ModelFolder:
    """A model of a challenge folder: its scenario, phase and number, and its folder."""

    scenario: str
    phase: str
    model_id: int
    path: Path

    @property
    def task(self) -> Task:
        """The task the model was trained for."""
        return get_task(get_scenario(self.scenario).task)

    @property
    def relative_path(self) -> str:
        """`<scenario>/<phase>/model_<i>`, for messages and archives."""
        return f"{self.scenario}/{self.phase}/model_{self.model_id}"

    @property
    def place(self) -> str:
        """The earlier name of `relative_path`, for code that was written with it."""
        return self.relative_path

    def prediction_in(self, folder: PathLike) -> Path:
        """The path of this model's prediction.csv below challenge folder `folder`."""
        return (
            Path(folder) / self.scenario / self.phase / f"model_{self.model_id}" / "prediction.csv"
        )


def model_path(root: PathLike, scenario: Scenario, phase: str, model_id: int) -> Path:
    """`<root>/<challenge>/<scenario>/<phase>/model_<i>`."""
    return Path(root) / scenario.challenge / scenario.name / phase / f"model_{model_id}"


def release_folder(challenge_folder: PathLike) -> Path:
    """The folder, beside the challenge, with a release's summary, checksums and archives."""
    return _beside(challenge_folder, ".release")


def predictions_folder(challenge_folder: PathLike) -> Path:
    """The folder, beside the challenge, to which attacks write predictions by default."""
    return _beside(challenge_folder, ".predictions")


def _beside(challenge_folder: PathLike, suffix: str) -> Path:
    """The folder beside the challenge, or beside the target of its link if it exists only there."""
    folder = challenge_folder_of(challenge_folder)
    beside = folder.with_name(folder.name + suffix)
    real = folder.resolve()
    other = real.with_name(real.name + suffix)
    return other if other.exists() and not beside.exists() else beside


def scenario_of(path: PathLike) -> Scenario | None:
    """The scenario of the last folder on `path` with a scenario's name, or None.

    If there is none, the path is searched again with symbolic links resolved.
    """
    for spelled in (absolute(path), Path(os.path.realpath(path))):
        for name in (spelled.name, *(parent.name for parent in spelled.parents)):
            if name in SCENARIOS:
                return SCENARIOS[name]
    return None


def absolute(path: PathLike) -> Path:
    """`path` without "." and ".."; a symbolic link at its end is kept.

    As for the operating system, "link/.." is the parent of the link's target.
    """
    path = Path(path)
    if ".." not in path.parts:
        return Path(os.path.abspath(path))
    if path.name == "..":
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def challenge_folder_of(folder: PathLike) -> Path:
    """The absolute path of a challenge folder, in the form that ends with the challenge's name.

    Either a symbolic link or its target may have that name.  If neither has, the path is returned
    unchanged, and `walk_challenge` refuses it.
    """
    spelled, target = absolute(folder), Path(os.path.realpath(folder))
    return target if spelled.name not in CHALLENGES and target.name in CHALLENGES else spelled


def model_id_of(name: str) -> int | None:
    """The id in a folder name `model_<i>`, or None if the name is not of that form."""
    match = _MODEL_FOLDER.fullmatch(name)
    return int(match.group(1)) if match else None


def walk_phase(folder: PathLike, scenario: str, phase: str) -> list[ModelFolder]:
    """The models in `<folder>/<scenario>/<phase>`, ordered by id; other files are ignored.

    Raises:
        ValueError: if the id of a model lies outside the phase's range.
    """
    root = Path(folder) / scenario / phase
    if not root.is_dir():
        return []
    models = []
    for path in root.iterdir():
        model_id = model_id_of(path.name)
        if model_id is not None and path.is_dir():
            models.append(ModelFolder(scenario, phase, model_id, path))
    for model in sorted(models):
        _refuse_outside(model)
    return sorted(models)


def _refuse_outside(model: ModelFolder) -> None:
    """Raise ValueError if another phase has the model's id, or none has."""
    phase = get_phase(get_scenario(model.scenario).challenge, model.phase)
    if model.model_id not in phase.model_ids:
        own = current().path
        raise ValueError(
            f"{model.path} lies in phase {phase.name}, which has the models {phase.first} to "
            f"{phase.model_ids[-1]}{f' in {own}' if own else ''}: "
            f"{'put the range back that it was trained under' if own else 'rename the folder'}, or "
            "move the folder away."
        )


def walk_challenge(
    folder: PathLike, *, phases: Sequence[str] | None = None, fix: str | None = None
) -> list[ModelFolder]:
    """List all models of a challenge folder, by scenario, then phase, then id.

    Args:
        folder: a folder named after its challenge (`.../purchase100`), or a link to one.
        phases: the names of phases; all by default.
        fix: what the user can do if the folder is missing; by default, what participants can do.

    Raises:
        ValueError: if the folder is missing, is not named after a challenge, or holds no model; or
            if the id of a model lies outside its phase's range.
    """
    given, folder = Path(folder), challenge_folder_of(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no challenge folder {folder}: {_instead(given, folder, fix)}")
    if folder.name not in CHALLENGES:
        raise ValueError(f"{folder} is not named after its challenge: {_rightly_named(given)}")
    models = [
        model
        for scenario in get_challenge(folder.name)
        for phase in (phases or PHASE_NAMES)
        for model in walk_phase(folder, scenario, phase)
    ]
    if not models:
        raise ValueError(
            f"{folder} holds no models: expected {get_challenge(folder.name)[0]}/train/model_0 "
            "and the like below it."
        )
    return models


def _instead(given: Path, folder: Path, fix: str | None) -> str:
    """What to do if challenge folder `given` is missing; `folder` is its absolute path."""
    if fix is not None:
        return fix
    if folder.suffix == ".zip":
        return (
            f"the command takes a challenge folder; `mico check FOLDER --zip {given}` reads a zip."
        )
    if own := _own_competition(folder):
        return own
    nearby = _challenges_near(folder.name)
    if nearby:
        return f"did you mean {' or '.join(nearby)}?"
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

    That file is never used automatically, since it names code, which is run.
    """
    file = folder.with_name(f"{folder.name}.release") / COMPETITION_FILE
    if folder.name in CHALLENGES or not file.is_file():
        return None
    return (
        f"it belongs to another competition, which {file} describes. That file names code: copy "
        f"it into a folder of your own, read it, put the module that it names beside it, and give "
        f"--competition {COMPETITION_FILE}."
    )


def _challenges_near(name: str) -> list[str]:
    """Challenge folders of that name up to two levels below this folder, preferably public ones."""
    if name not in CHALLENGES:
        return []
    here = Path()
    with suppress(OSError):
        paths = sorted(p for part in ("*", "*/*") for p in here.glob(f"{part}/{name}"))
        nearby = [str(path) for path in paths if _holds_scenarios(path)]
        return [path for path in nearby if "trained" not in Path(path).parts[:-1]] or nearby
    return []


def _holds_scenarios(folder: Path) -> bool:
    """Whether a folder named after a challenge holds scenarios of that challenge."""
    return any((folder / scenario).is_dir() for scenario in CHALLENGES.get(folder.name, ()))


def _rightly_named(given: Path) -> str:
    """What to do about a folder that is not named after a challenge."""
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
    """The stripped text of a small file; ValueError if it is too large."""
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
