"""Says which predictions may be of models that were amended after publication."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.submission import find_predictions
from mico_competition.release.amendments import amended_models
from mico_competition.support.files import PathLike


def amendment_notes(challenge_folder: PathLike, predictions: PathLike | None = None) -> list[str]:
    """A sentence for each model of a release that was added or replaced after publication.

    A prediction does not say for which model it was made, but one that is older than the amendment
    was made for the earlier model.

    Args:
        challenge_folder: the released challenge folder, beside which `<challenge>.release` lies.
        predictions: the folder of the predictions; see `find_predictions`.

    Raises:
        ValueError: as `read_amendments`.
    """
    amended = amended_models(challenge_folder)
    if not amended:
        return []
    folder: Path | None = None
    with suppress(ValueError):
        folder = find_predictions(challenge_folder, predictions)
    notes = []
    for model in walk_challenge(challenge_folder):
        if (amendment := amended.get(model.relative_path)) is None:
            continue
        replaced = amendment.changes[model.relative_path]["before"] is not None
        verb = "replaced" if replaced else "added"
        said = f"{model.relative_path} was {verb} by amendment {amendment.number} of "
        path = model.prediction_in(folder) if folder else None
        day = ""
        if path is not None and path.is_file():
            day = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")
        if day and day < amendment.date and replaced:
            notes.append(
                f"{said}{amendment.date}, and its prediction is of {day}: attack it again."
            )
        else:
            notes.append(f"{said}{amendment.date}: predictions made before are of another model.")
    return notes
