"""Submissions: writes predictions, checks them, zips them, and scores phases with known solutions.

Predictions are files `<scenario>/<phase>/model_<i>/prediction.csv` in a folder of their own, by
default `<challenge>.predictions` beside the challenge folder, or, as in 2022, in the challenge
folder itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.competition.hostile_zip import unpack_zip
from mico_competition.competition.layout import (
    ModelFolder,
    challenge_folder_of,
    predictions_folder,
    walk_challenge,
    walk_phase,
)
from mico_competition.competition.lengths import len_challenge_of
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import PREDICTION_FILE, SCORED_PHASES, get_challenge
from mico_competition.scoring.printable import printable
from mico_competition.scoring.program import score_scenarios
from mico_competition.scoring.reading import check_predictions, in_ranges, read_values
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike, write_text, written_aside
from mico_competition.support.zips import write_zip

_CODE = ("metadata", "metadata.yaml")


def write_prediction(path: PathLike, scores: Iterable[float]) -> None:
    """Write the scores of one model's challenge points, atomically.

    Args:
        path: the prediction.csv to write.
        scores: 2m finite values in [0, 1], in the order of the challenge points.  Reading the
            file gives the same float64 values.

    Raises:
        ValueError: naming the file, if a score is not finite or not in [0, 1].
    """
    values = np.asarray(list(scores), dtype=np.float64)
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"Expected finite scores in [0, 1] for {path}, got {values[first]} at index {first}: "
            "map the scores of all models by one monotone function first."
        )
    write_text(path, ",".join(map(repr, values.tolist())) + "\n")


def find_predictions(challenge_folder: PathLike, predictions: PathLike | None = None) -> Path:
    """Find the folder from which predictions of a challenge are read.

    Args:
        challenge_folder: the challenge as downloaded.
        predictions: the folder that the user named, if any, which is then returned.

    Returns:
        By default `<challenge>.predictions` beside the challenge folder; the challenge folder
        itself if its model folders hold predictions, where 2022's notebooks wrote them.

    Raises:
        ValueError: if there is no folder `predictions`; or if both folders hold predictions,
            because one of them may be stale.
    """
    if predictions is not None:
        if not Path(predictions).is_dir():
            raise ValueError(f"There is no folder {predictions}: name the predictions' folder.")
        return Path(predictions)
    beside, inside = predictions_folder(challenge_folder), Path(challenge_folder)
    models = walk_challenge(challenge_folder)
    if not any(model.prediction_in(inside).is_file() for model in models):
        return beside
    if any(model.prediction_in(beside).is_file() for model in models):
        raise ValueError(
            f"There are predictions in {beside} and in the model folders of {inside}: choose one "
            "of them with --predictions, or remove the others."
        )
    return inside


def check_folder(
    challenge_folder: PathLike,
    predictions: PathLike | None = None,
    *,
    phases: Sequence[str] = SCORED_PHASES,
) -> list[str]:
    """List all faults of the predictions in a folder.

    Args:
        challenge_folder: the challenge as downloaded, whose models need predictions.
        predictions: the folder of the predictions; see `find_predictions`.
        phases: the phases that need predictions.

    Returns:
        A sentence, with the file, for each fault; empty if there is none.
    """
    models = _expected_models(challenge_folder, phases)
    faults = _read_all(models, find_predictions(challenge_folder, predictions))[1]
    return faults + _missing_models(challenge_folder, phases)


def _read_all(
    models: Sequence[ModelFolder], predictions: PathLike
) -> tuple[list[np.ndarray], list[str]]:
    """The valid predictions, and the faults of the others."""
    rows, faults = [], []
    for model in models:
        path = str(model.prediction_in(predictions))
        values, wrong = read_values(path, 2 * len_challenge_of(model.path), path)
        faults += wrong
        if values is not None:
            rows.append(values)
    return rows, in_ranges(faults)


def pack(
    challenge_folder: PathLike, zip_path: PathLike, predictions: PathLike | None = None
) -> Path:
    """Zip a complete submission; the same predictions give the same bytes.

    Raises:
        ValueError: listing every fault in a line of its own; then nothing is written.
    """
    predictions = find_predictions(challenge_folder, predictions)
    faults = check_folder(challenge_folder, predictions)
    if faults:
        raise ValueError(_listing("This submission is not complete", faults))
    challenge = challenge_folder_of(challenge_folder).name
    files = {
        f"{challenge}/{model.relative_path}/{PREDICTION_FILE}": model.prediction_in(predictions)
        for model in _expected_models(challenge_folder, SCORED_PHASES)
    }
    with written_aside(zip_path) as aside:
        write_zip(aside, files, deflate=True)
    return Path(zip_path)


def check_zip(zip_path: PathLike, challenge_folder: PathLike) -> list[str]:
    """List all faults that the scoring program will find in a submission's zip."""
    path = Path(zip_path)
    challenge = challenge_folder_of(challenge_folder).name
    expected = {
        f"{challenge}/{model.relative_path}": 2 * len_challenge_of(model.path)
        for model in _expected_models(challenge_folder, SCORED_PHASES)
    }
    if not path.is_file():
        return [f"There is no file {path}: name the zip that `mico submit` wrote."]
    missing = _missing_models(challenge_folder, SCORED_PHASES)
    with tempfile.TemporaryDirectory() as folder:
        faults = _unpack(path, Path(folder))
        return missing + (faults or check_predictions(folder, expected)[1])


def _unpack(path: Path, folder: Path) -> list[str]:
    """Unpack a submission's zip into an empty folder, and return its faults, each in one line."""
    return unpack_zip(path, folder) or [
        f"{printable(path)} holds {name} at its top, which the platform would take for code: leave "
        "it out."
        for name in _CODE
        if (folder / name).exists()
    ]


def unpack_submission(zip_path: PathLike, folder: PathLike) -> Path:
    """Unpack a submission's zip into a new folder, as the platform does.

    Raises:
        ValueError: in one line, if the zip has a fault; then there is no new folder.
    """
    with written_aside(folder) as aside:
        aside.mkdir()
        faults = _unpack(Path(zip_path), aside)
        if faults:
            more = f" (and {count_of(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
            raise ValueError(faults[0] + more)
    return Path(folder)


def read_phase(
    challenge_folder: PathLike, predictions: PathLike | None = None, *, phase: str = "train"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read the solutions and predictions of a phase whose solutions are in the challenge folder.

    Args:
        challenge_folder: has `solution.csv` in the model folders of `phase`.
        predictions: the folder of the predictions; see `find_predictions`.
        phase: by default "train", the phase whose solutions participants have.

    Returns:
        (solutions, predictions), two dicts from model folder, such as
        "cifar10/cifar10_hi/train/model_0", to values, as `scoring.intervals_of` takes them.

    Raises:
        ValueError: listing every missing or faulty prediction; or naming the first model without
            a solution.
    """
    models = _expected_models(challenge_folder, [phase])
    values, faults = _read_all(models, find_predictions(challenge_folder, predictions))
    if faults:
        raise ValueError(_listing("These predictions cannot be scored", faults))
    challenge = challenge_folder_of(challenge_folder).name
    names = [f"{challenge}/{model.relative_path}" for model in models]
    solutions = [
        read_solution(
            model.path,
            count=2 * len_challenge_of(model.path),
            fix=f"solutions of phase {phase} are not disclosed, so score another phase",
        )
        for model in models
    ]
    return dict(zip(names, solutions)), dict(zip(names, values))


def score_phase(
    challenge_folder: PathLike, predictions: PathLike | None = None, *, phase: str = "train"
) -> dict[str, dict[str, Any]]:
    """Score each scenario on a phase whose solutions are in the challenge folder.

    The arguments and errors are those of `read_phase`.

    Returns:
        A dict from scenario name to the result of `scoring.score` on the scenario's pooled points.
    """
    return score_scenarios(*read_phase(challenge_folder, predictions, phase=phase))


def _expected_models(challenge_folder: PathLike, phases: Sequence[str]) -> list[ModelFolder]:
    return walk_challenge(challenge_folder, phases=list(phases))


def _missing_models(challenge_folder: PathLike, phases: Sequence[str]) -> list[str]:
    """Faults of the challenge folder itself: absent scenarios, or an incomplete download."""
    folder = challenge_folder_of(challenge_folder)
    counts = {
        name: {phase: len(walk_phase(folder, name, phase)) for phase in phases}
        for name in get_challenge(folder.name)
    }
    most = {phase: max(count[phase] for count in counts.values()) for phase in phases}
    absent = [name for name, count in counts.items() if not any(count.values())]
    faults = []
    if absent:
        faults.append(
            f"{folder} holds no models of {', '.join(absent)}, and a submission needs predictions "
            f"for all scenarios of challenge {folder.name}: download the whole challenge, or train "
            "the other scenarios too."
        )
    for name in (name for name in counts if name not in absent):
        faults += [
            f"{folder / name / phase} holds {count} models, of {most[phase]} in other scenarios: "
            "fetch the challenge again, a submission covers all of them."
            for phase, count in counts[name].items()
            if count < most[phase] or not count
        ]
    return faults


def _listing(head: str, faults: Sequence[str]) -> str:
    return f"{head}, {count_of(len(faults), 'fault')}:\n" + "\n".join(
        f"  {fault}" for fault in faults
    )
