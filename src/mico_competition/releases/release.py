"""What participants may see of trained models: a whitelist from the table, never "all but".

A release is made aside, searched by `leak_check`, and appears only if nothing was found and all of
it is there.  Also what the scoring program needs: the tree of one phase's solutions, which stays
at home.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mico_competition.challenge import read_seeds
from mico_competition.files import PathLike, written_aside
from mico_competition.layout import ModelFolder, walk_challenge
from mico_competition.lengths import Lengths, read_metadata
from mico_competition.progress import tracked
from mico_competition.releases.archives import set_time, settle, write_archive, write_sums
from mico_competition.releases.commitments import (
    COMMITMENTS_FILE,
    commit,
    public_commitments,
    save_openings,
)
from mico_competition.releases.leak_check import check_release
from mico_competition.releases.public_files import (
    PUBLIC_METADATA,
    public_metadata,
    write_json,
    write_public_files,
)
from mico_competition.releases.whole import check_whole
from mico_competition.tracks import (
    CHALLENGES,
    SOLUTION_FILE,
    disclosed_files,
    get_challenge,
    get_phase,
    get_scenario,
)

NOT_TRAINED = "name the folder that `mico train --output_dir` was given."
ARCHIVES = "archives"
RELEASE_FILE = "release.json"
_SHOWN = 20
_TOLD_APART_BY = {
    "dataset_fingerprint": "on different datasets",
    "architecture_fingerprint": "with code that computes different things",
}


def release(
    root: PathLike,
    challenge: str,
    to: PathLike,
    *,
    archives: bool = True,
    splits_of_2022: bool = False,
    progress: bool = True,
) -> int:
    """Write the participants' tree of `challenge`; gives the number of models.

    `<to>/<challenge>` holds the models, release.json (what the release is), commitments.json and
    SHA256SUMS; `<to>/archives/<challenge>` one zip for each scenario and phase.  The same trained
    models give the same bytes.  What commitments were made of is kept below `root`.

    Args:
        root: holds `<challenge>/<scenario>/<phase>/model_<i>`, as training wrote them.
        challenge: name of the challenge.
        to: folder that `<challenge>/...` is made in; it must not have that folder yet.
        archives: whether to write zip archives too.
        splits_of_2022: release withheld phases even if their seeds are 2022's decimal integers,
            whose 2^32 memberships whoever attacks a model can try.
        progress: whether to show how far it is (see `mico_competition.progress`).

    Raises:
        ValueError: if models lack a file or have a damaged one, with all of these; if models of a
            scenario were trained with different settings, data or code; if a place is taken; if
            the leak check finds anything, with all that it found.  Nothing is released then.
    """
    get_challenge(challenge)
    destination = _free(Path(to) / challenge)
    zipped = _free(Path(to) / ARCHIVES / challenge)
    models = walk_challenge(Path(root) / challenge, mend=NOT_TRAINED)
    check_whole(models, progress=progress)
    _check_models(models, splits_of_2022)
    openings = commit(root, challenge, models)
    with written_aside(destination) as tree:
        for model in tracked(models, "Release", "model", show=progress):
            write_public_files(model, tree / model.place)
        write_json(tree / RELEASE_FILE, _summary(challenge, models))
        write_json(tree / COMMITMENTS_FILE, public_commitments(challenge, models, openings))
        write_sums(tree)
        if archives:
            _write_archives(tree.parent, challenge, models)
        settle(tree)
        salts = [bytes.fromhex(opening["salt"]) for opening in openings.values()]
        faults = check_release(tree.parent, root, [challenge], salts=salts, progress=progress)
        if faults:
            raise ValueError(_listing(challenge, faults))
        save_openings(root, challenge, openings)
        if archives:
            zipped.parent.mkdir(exist_ok=True)
            os.replace(tree.parent / ARCHIVES / challenge, zipped)
            set_time(zipped)
    set_time(destination)
    return len(models)


def find_challenges(root: PathLike) -> list[str]:
    """Names of the challenges that have a folder below `root`; ValueError if there is none."""
    found = [name for name in CHALLENGES if (Path(root) / name).is_dir()]
    if not found:
        raise ValueError(f"There is no challenge folder below {root}: {NOT_TRAINED}")
    return found


def write_reference(root: PathLike, challenge: str, phase: str, to: PathLike) -> int:
    """Write the scoring program's `ref` tree: the solutions of one phase; gives their number."""
    destination = _free(Path(to) / challenge)
    models = walk_challenge(
        Path(root) / challenge, phases=[get_phase(phase).name], mend=NOT_TRAINED
    )
    with written_aside(destination) as aside:
        for model in models:
            _copy(model, SOLUTION_FILE, aside / model.place)
    return len(models)


def _free(path: Path) -> Path:
    if path.exists():
        raise ValueError(f"{path} exists already: remove it or choose another folder.")
    return path


def _check_models(models: Sequence[ModelFolder], splits_of_2022: bool) -> None:
    """ValueError for seeds that can be searched, and settings that tell a model from others."""
    first: dict[str, tuple[ModelFolder, dict[str, Any]]] = {}
    for model in models:
        withheld = SOLUTION_FILE not in disclosed_files(get_scenario(model.scenario), model.phase)
        if withheld and not splits_of_2022 and not read_seeds(model.path).keyed:
            raise ValueError(
                f"{model.path} has decimal seeds of 2022's scheme, and whoever attacks it can try "
                "all 2^32 of its memberships: train it again, or say --splits_of_2022."
            )
        metadata = public_metadata(read_metadata(model.path))
        other, expected = first.setdefault(model.scenario, (model, metadata))
        for key in PUBLIC_METADATA:
            if metadata.get(key) != expected.get(key):
                if key.endswith("_fingerprint"):
                    raise ValueError(
                        f"{model.path} and {other.path} were trained {_TOLD_APART_BY[key]} ({key} "
                        "in their metadata): the models of a scenario go together only if all "
                        "were trained alike, so train one of them again."
                    )
                raise ValueError(
                    f"{key} in the metadata of {model.path} is not that of {other.path}, and would "
                    "tell which models were made together: train them with the same settings."
                )


def _summary(challenge: str, models: Sequence[ModelFolder]) -> dict[str, Any]:
    """What release.json says.

    Accuracy is the mean over models of phase train alone: of those all is disclosed, so that
    nothing is told of the others.
    """
    scenarios: dict[str, dict[str, Any]] = {}
    for scenario in get_challenge(challenge):
        mine = [model for model in models if model.scenario == scenario]
        if not mine:
            continue
        lengths, results = Lengths.of(mine[0].path), []
        for model in mine:
            if model.phase == "train":
                results.append((read_metadata(model.path).get("results") or {}).get("accuracy"))
        known = [accuracy for accuracy in results if accuracy is not None]
        phases = [model.phase for model in mine]
        scenarios[scenario] = {
            "phases": {phase: phases.count(phase) for phase in dict.fromkeys(phases)},
            "privacy": public_metadata(read_metadata(mine[0].path)).get("privacy"),
            "accuracy": sum(known) / len(known) if known else None,
            "len_dataset": lengths.len_dataset or mine[0].task.len_dataset,
            "len_training": lengths.check_training(None),
            "len_challenge": lengths.check_challenge(None),
        }
    return {"format": 1, "challenge": challenge, "scenarios": scenarios}


def _write_archives(root: Path, challenge: str, models: Sequence[ModelFolder]) -> None:
    """One archive for each scenario and phase, with the checksums of all."""
    folder = root / ARCHIVES / challenge
    for scenario, phase in dict.fromkeys((model.scenario, model.phase) for model in models):
        write_archive(folder / f"{scenario}_{phase}.zip", root, f"{challenge}/{scenario}/{phase}")
    write_sums(folder)
    settle(folder)


def _listing(challenge: str, faults: Sequence[str]) -> str:
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    head = f"{challenge} was not released, since the leak check found {len(faults)} faults:"
    return "\n".join([head, *(f"  {fault}" for fault in [*faults[:_SHOWN], *more])])


def _copy(model: ModelFolder, name: str, folder: Path) -> None:
    if not (model.path / name).is_file():
        raise ValueError(f"There is no {name} in {model.path}: train the model again.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.path / name, folder / name)
