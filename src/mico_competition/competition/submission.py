"""A submission: write predictions, check them (all faults at once), zip them, score what can be.

Predictions lie in a tree of their own, by default `<challenge>.predictions` beside the challenge
folder, or as in 2022 in the model folders themselves; either way at
`<scenario>/<phase>/model_<i>/prediction.csv`.
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
from mico_competition.support.files import PathLike, write_text, written_aside
from mico_competition.support.zips import write_zip

_CODE = ("metadata", "metadata.yaml")


def write_prediction(path: PathLike, scores: Iterable[float]) -> None:
    """Write the scores of one model's challenge points, whole or not at all.

    Args:
        path: the prediction.csv to write.
        scores: 2m finite values in [0, 1], in the order of the challenge points; written so
            that reading gives the same float64s.

    Raises:
        ValueError: naming the file, if a score is not finite or not in [0, 1].
    """
    values = np.asarray(list(scores), dtype=np.float64)
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        place = int(bad.argmax())
        raise ValueError(
            f"Expected finite scores in [0, 1] for {path}, got {values[place]} at place {place}: "
            "map the scores of all models by one monotone function first."
        )
    write_text(path, ",".join(map(repr, values.tolist())) + "\n")


def find_predictions(challenge_folder: PathLike, predictions: PathLike | None = None) -> Path:
    """The folder that predictions of a challenge are read from.

    Args:
        challenge_folder: the challenge as downloaded.
        predictions: the folder that the user names, if any: it is the answer.

    Returns:
        By default `<challenge>.predictions` beside the challenge folder; the challenge folder
        itself if predictions lie in its model folders, where 2022's notebooks wrote them.

    Raises:
        ValueError: if there are predictions in both places, for one of them may be stale.
    """
    if predictions is not None:
        return Path(predictions)
    beside, inside = predictions_folder(challenge_folder), Path(challenge_folder)
    models = walk_challenge(challenge_folder)
    if not any(model.prediction_in(inside).is_file() for model in models):
        return beside
    if any(model.prediction_in(beside).is_file() for model in models):
        raise ValueError(
            f"There are predictions in {beside} and in the model folders of {inside}: say which "
            "are meant with --predictions, or remove the others."
        )
    return inside


def check_folder(
    challenge_folder: PathLike,
    predictions: PathLike | None = None,
    *,
    phases: Sequence[str] = SCORED_PHASES,
) -> list[str]:
    """All faults of the predictions in a folder, each a sentence with its file; none if sound.

    Args:
        challenge_folder: the challenge as downloaded; says which models need predictions.
        predictions: the folder that predictions were written to; see `find_predictions`.
        phases: the phases that need predictions.
    """
    models = _expected_models(challenge_folder, phases)
    faults = _read_all(models, find_predictions(challenge_folder, predictions))[1]
    return faults + _missing_models(challenge_folder, phases)


def _read_all(
    models: Sequence[ModelFolder], predictions: PathLike
) -> tuple[list[np.ndarray], list[str]]:
    """The predictions of every model that has sound ones, and the faults of the others."""
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
    """Zip a sound submission: the same predictions give the same bytes.

    Raises:
        ValueError: listing every fault, one a line, if there is any; nothing is written then.
    """
    predictions = find_predictions(challenge_folder, predictions)
    faults = check_folder(challenge_folder, predictions)
    if faults:
        raise ValueError(_listing("This submission is not complete", faults))
    challenge = challenge_folder_of(challenge_folder).name
    files = {
        f"{challenge}/{model.place}/{PREDICTION_FILE}": model.prediction_in(predictions)
        for model in _expected_models(challenge_folder, SCORED_PHASES)
    }
    with written_aside(zip_path) as aside:
        write_zip(aside, files, deflate=True)
    return Path(zip_path)


def check_zip(zip_path: PathLike, challenge_folder: PathLike) -> list[str]:
    """All faults of a submission's zip, as the scoring program will find them; none if sound."""
    path = Path(zip_path)
    challenge = challenge_folder_of(challenge_folder).name
    expected = {
        f"{challenge}/{model.place}": 2 * len_challenge_of(model.path)
        for model in _expected_models(challenge_folder, SCORED_PHASES)
    }
    if not path.is_file():
        return [f"There is no file {path}."]
    missing = _missing_models(challenge_folder, SCORED_PHASES)
    with tempfile.TemporaryDirectory() as folder:
        faults = _unpack(path, Path(folder))
        return missing + (faults or check_predictions(folder, expected)[1])


def _unpack(path: Path, folder: Path) -> list[str]:
    """Unpack a submission's zip into an empty folder; its faults, one a line."""
    return unpack_zip(path, folder) or [
        f"{printable(path)} holds {name} at its top, which makes it code to the platform: leave it "
        "out."
        for name in _CODE
        if (folder / name).exists()
    ]


def unpack_submission(zip_path: PathLike, folder: PathLike) -> Path:
    """Unpack a submission's zip into a new folder, as the platform does.

    Raises:
        ValueError: in one line, if the zip is not sound; there is no new folder then.
    """
    with written_aside(folder) as aside:
        aside.mkdir()
        faults = _unpack(Path(zip_path), aside)
        if faults:
            more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
            raise ValueError(faults[0] + more)
    return Path(folder)


def read_phase(
    challenge_folder: PathLike, predictions: PathLike | None = None, *, phase: str = "train"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Truth and predictions of a phase whose solutions lie in the challenge folder.

    Args:
        challenge_folder: holds `solution.csv` in the model folders of `phase`.
        predictions: where predictions were written to; see `find_predictions`.
        phase: by default "train", the phase whose solutions participants have.

    Returns:
        Two dicts from model folder, such as "cifar10/cifar10_hi/train/model_0", to its values:
        what `scoring.intervals_of` takes.

    Raises:
        ValueError: listing every missing or faulty prediction; or naming the first model whose
            solution is not there.
    """
    models = _expected_models(challenge_folder, [phase])
    values, faults = _read_all(models, find_predictions(challenge_folder, predictions))
    if faults:
        raise ValueError(_listing("These predictions cannot be scored", faults))
    challenge = challenge_folder_of(challenge_folder).name
    places = [f"{challenge}/{model.place}" for model in models]
    solutions = [
        read_solution(
            model.path,
            count=2 * len_challenge_of(model.path),
            mend=f"solutions of phase {phase} are not disclosed, so score another phase",
        )
        for model in models
    ]
    return dict(zip(places, solutions)), dict(zip(places, values))


def score_phase(
    challenge_folder: PathLike, predictions: PathLike | None = None, *, phase: str = "train"
) -> dict[str, dict[str, Any]]:
    """Scores of each scenario on a phase whose solutions lie in the challenge folder.

    Takes and raises what `read_phase` does; gives a dict from scenario name to what
    `scoring.score` gives on the scenario's pooled points.
    """
    return score_scenarios(*read_phase(challenge_folder, predictions, phase=phase))


def _expected_models(challenge_folder: PathLike, phases: Sequence[str]) -> list[ModelFolder]:
    return walk_challenge(challenge_folder, phases=list(phases))


def _missing_models(challenge_folder: PathLike, phases: Sequence[str]) -> list[str]:
    """Faults of the challenge folder itself: half a download makes half a submission."""
    folder = challenge_folder_of(challenge_folder)
    faults = []
    for phase in phases:
        counts = {name: len(walk_phase(folder, name, phase)) for name in get_challenge(folder.name)}
        for name, count in counts.items():
            if count < max(counts.values()) or not count:
                faults.append(
                    f"{folder / name / phase} holds {count} models, of {max(counts.values())} in "
                    "other scenarios: fetch the challenge again, a submission covers all of them."
                )
    return faults


def _listing(head: str, faults: Sequence[str]) -> str:
    return f"{head}, {len(faults)} faults:\n" + "\n".join(f"  {fault}" for fault in faults)
