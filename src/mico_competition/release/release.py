"""Writes a release: the files of trained models that the table discloses to participants.

A release is written to a temporary folder and checked by `leak_check`.  It appears only if the
check finds nothing and all files are there.  `write_reference` writes the solutions of one phase
for the scoring program, which are not released.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.layout import ModelFolder, release_folder, walk_challenge
from mico_competition.competition.lengths import Lengths, read_metadata
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import (
    COMPETITION_FILE,
    SOLUTION_FILE,
    current,
    disclosed_files,
    get_challenge,
    get_phase,
    get_scenario,
)
from mico_competition.release.amendments import AMENDMENTS_FILE, stored_text
from mico_competition.release.archive_names import archives_of
from mico_competition.release.archives import (
    ARCHIVES,
    SUMS_FILE,
    files_of_release,
    set_time,
    settle,
    sha256_of,
    write_archive,
    write_sums,
)
from mico_competition.release.commitments import (
    COMMITMENTS_FILE,
    commit,
    only_release,
    public_commitments,
    save_openings,
)
from mico_competition.release.leak_check.check import check_release
from mico_competition.release.privacy_claims import check_privacy_claims
from mico_competition.release.public_files import (
    PUBLIC_METADATA,
    public_metadata,
    write_json,
    write_public_files,
)
from mico_competition.release.whole import check_whole
from mico_competition.support.counts import count_of
from mico_competition.support.files import (
    PRIVATE,
    PUBLIC,
    PathLike,
    make_folder,
    named_if_full,
    write_text,
    written_aside,
)
from mico_competition.support.progress import tracked
from mico_competition.support.scratch import scratch

NOT_TRAINED = "name the folder that `mico train --output_dir` was given."
RELEASE_FILE = "release.json"
_SHOWN = 20
_DIFFERENCE = {
    "dataset_fingerprint": "on different datasets",
    "architecture_fingerprint": "with code that computes different things, or by different "
    "versions of this software",
}


def release(
    root: PathLike,
    challenge: str,
    to: PathLike,
    *,
    splits_of_2022: bool = False,
    archives: bool = True,
) -> int:
    """Write the release of `challenge` for participants.

    `<to>/<challenge>` holds only the models.  Beside it, `<to>/<challenge>.release` holds
    release.json (a summary), commitments.json, SHA256SUMS, the file of a competition of one's own,
    and, in archives/, one zip for each scenario and phase (several above 20 GB).  The same trained
    models give the same bytes.  The openings of the commitments are stored below `root`.  A second
    release of the same models waits for the first.

    Args:
        root: the folder with `<challenge>/<scenario>/<phase>/model_<i>`, as training wrote them.
        challenge: the name of the challenge.
        to: the folder to create `<challenge>` in; it must not exist there yet.
        splits_of_2022: release withheld phases even if their seeds are decimal integers as in
            2022, although an attacker can try all 2^32 of them.
        archives: write the archives.  They take as much disk as the models; `mico publish` makes
            those that it needs one at a time.

    Returns:
        The number of models.

    Raises:
        ValueError: listing all missing and damaged files, if there are any; if models of a
            scenario were trained with different settings, data or code, or with less privacy
            than the scenario's row states; if the destination exists; or listing all leaks that
            the leak check finds.  Then nothing is released.
    """
    get_challenge(challenge)
    destination = _free(Path(to) / challenge)
    beside = _free(release_folder(destination))
    models = walk_challenge(Path(root) / challenge, fix=NOT_TRAINED)
    with only_release(root, challenge):
        _free(destination), _free(beside)  # a release that held the lock may have written them
        check_whole(models)
        check_models(models, splits_of_2022)
        check_privacy_claims(models)
        openings, record = commit(root, challenge, models), stored_text(root, challenge)
        make_folder(to, PUBLIC)
        with scratch(to, f".{challenge}.aside") as aside, named_if_full(to, aside):
            tree, side = aside / challenge, aside / beside.name
            for model in tracked(models, "Writing models", "model"):
                write_public_files(model, tree / model.relative_path)
            make_folder(side)
            amendments = record.count("\n")
            write_json(side / RELEASE_FILE, summary(challenge, models, (), amendments))
            if amendments:
                write_text(side / AMENDMENTS_FILE, record)
            if (table := current()).path is not None:
                write_text(side / COMPETITION_FILE, table.text)
            write_json(side / COMMITMENTS_FILE, public_commitments(challenge, models, openings))
            files = tracked(list(files_of_release(tree)), "Checksums", "file")
            write_sums(side, {name: sha256_of(path) for name, path in files})
            if archives:
                write_archives(side, tree, archives_of(walk_challenge(tree)))
            settle(tree)
            settle(side)
            found = check_release(aside, root, [challenge], openings=openings)
            refuse_leaks(challenge, found)
            save_openings(root, challenge, openings)
            for made, final in ((side, beside), (tree, destination)):
                os.replace(made, final)
                set_time(final)
    return len(models)


def write_reference(root: PathLike, challenge: str, phase: str, to: PathLike) -> int:
    """Write the scoring program's `ref` folder with the solutions of one phase; return how many.

    Only its owner can read it.
    """
    destination = _free(Path(to) / challenge)
    models = walk_challenge(
        Path(root) / challenge, phases=[get_phase(challenge, phase).name], fix=NOT_TRAINED
    )
    with written_aside(destination, access=PRIVATE) as aside:
        for model in models:
            read_solution(model.path)
            (aside / model.relative_path).mkdir(parents=True)
            shutil.copyfile(model.path / SOLUTION_FILE, aside / model.relative_path / SOLUTION_FILE)
    return len(models)


def _free(path: Path) -> Path:
    if path.exists():
        raise ValueError(
            f"{path} exists already: remove it or choose another folder (`mico release` changes a "
            "release with --amend, and adds labels to it with --reveal)."
        )
    return path


def check_models(models: Sequence[ModelFolder], splits_of_2022: bool) -> None:
    """Raise ValueError if seeds can be searched, or settings differ within a scenario."""
    first: dict[str, tuple[ModelFolder, dict[str, Any]]] = {}
    for model in models:
        withheld = SOLUTION_FILE not in disclosed_files(get_scenario(model.scenario), model.phase)
        if withheld and not splits_of_2022 and not read_seeds(model.path).keyed:
            raise ValueError(
                f"{model.path} has decimal seeds as in 2022, and an attacker can try all 2^32 of "
                "them: train it again, or use --splits_of_2022."
            )
        metadata = public_metadata(read_metadata(model.path))
        other, expected = first.setdefault(model.scenario, (model, metadata))
        for key in PUBLIC_METADATA:
            if metadata.get(key) != expected.get(key):
                if key.endswith("_fingerprint"):
                    raise ValueError(
                        f"{model.path} and {other.path} were trained {_DIFFERENCE[key]} ({key} in "
                        "their metadata): all models of a scenario must be trained alike, so train "
                        "one of them again."
                    )
                raise ValueError(
                    f"{key} in the metadata of {model.path} is not that of {other.path}, and would "
                    "reveal which models were made together: train them with the same settings."
                )


def summary(
    challenge: str,
    models: Sequence[ModelFolder],
    revealed: Sequence[str] = (),
    amendments: int = 0,
) -> dict[str, Any]:
    """The content of release.json.

    The accuracy is the mean over models of phase train, to four decimals: their splits are
    disclosed anyway, so it reveals nothing about other models.  `revealed` are the phases whose
    labels were added later, and `amendments` the number of amendments, stated if there are any.
    """
    scenarios: dict[str, dict[str, Any]] = {}
    for scenario in get_challenge(challenge):
        mine = [model for model in models if model.scenario == scenario]
        if not mine:
            continue
        facts, results = facts_of(mine[0]), []
        for model in mine:
            if model.phase == "train":
                results.append((read_metadata(model.path).get("results") or {}).get("accuracy"))
        known = [accuracy for accuracy in results if accuracy is not None]
        phases = [model.phase for model in mine]
        scenarios[scenario] = {
            "phases": {phase: phases.count(phase) for phase in dict.fromkeys(phases)},
            "privacy": facts.pop("privacy"),
            "accuracy": round(fsum(known) / len(known), 4) if known else None,
            **facts,
        }
    return {
        "format": 2,
        "challenge": challenge,
        "revealed": list(revealed),
        **({"amendments": amendments} if amendments else {}),
        "scenarios": scenarios,
        **_of_competition(),
    }


def _of_competition() -> dict[str, Any]:
    """Which file, and which code, participants need of a competition that is not the package's."""
    if current().path is None:
        return {}
    return {"competition": {"file": COMPETITION_FILE, "code": list(current().code)}}


def facts_of(model: ModelFolder) -> dict[str, Any]:
    """The entries of a scenario in release.json that each model's metadata state too."""
    lengths = Lengths.of(model.path)
    return {
        "privacy": public_metadata(read_metadata(model.path)).get("privacy"),
        "len_dataset": lengths.len_dataset or model.task.len_dataset,
        "len_training": lengths.check_training(None),
        "len_challenge": lengths.check_challenge(None),
    }


def write_archives(side: Path, tree: Path, archives: Mapping[str, Sequence[ModelFolder]]) -> None:
    """Write archives (name -> its models) of `tree` below `side`, and the checksums of all."""
    folder = side / ARCHIVES
    for name, models in tracked(archives.items(), "Archives", "archive"):
        folders = (f"{tree.name}/{model.relative_path}" for model in models)
        write_archive(folder / name, tree.parent, *folders)
    zips = sorted(path for path in folder.iterdir() if path.name != SUMS_FILE)
    write_sums(folder, {path.name: sha256_of(path) for path in zips})


def refuse_leaks(challenge: str, faults: Sequence[str]) -> None:
    """Raise ValueError listing the faults of a leak check, if there are any."""
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        found = count_of(len(faults), "fault")
        head = f"{challenge} was not released, since the leak check found {found}:"
        raise ValueError("\n".join([head, *(f"  {f}" for f in [*faults[:_SHOWN], *more])]))
