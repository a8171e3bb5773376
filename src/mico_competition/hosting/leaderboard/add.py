"""Makes leaderboard entries from a submission and the solutions.

Entries are public, and many exact scores reveal labels (docs/HOST.md).  If the table has a step for
a phase, its scores are rounded to it and have no intervals (`scoring.coarse`).  Exact scores are
rounded to four decimals, about a hundredth of an interval's width, and an entry keeps only the part
of a curve that `scoring.curve` allows.  This module needs no torch, so that the processes of
`score_all` start fast.
"""

from __future__ import annotations

import hashlib
import math
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition import __version__
from mico_competition.competition.submission import unpack_submission
from mico_competition.competition.table import PREDICTION_FILE, get_phase
from mico_competition.hosting.leaderboard.entries import listing
from mico_competition.hosting.leaderboard.form import (
    FORMAT,
    RANKED,
    check_fields,
    check_submitted,
    time_text,
)
from mico_competition.hosting.leaderboard.names import in_one_form
from mico_competition.hosting.leaderboard.truth_tree import Truth
from mico_competition.release.archives import sha256_of
from mico_competition.scoring.coarse import average, coarse
from mico_competition.scoring.curve import shown_curve
from mico_competition.scoring.intervals import RESAMPLES, intervals_of
from mico_competition.scoring.metrics import SCALARS
from mico_competition.scoring.program import score_scenarios
from mico_competition.scoring.reading import check_predictions, read_values
from mico_competition.support.counts import count_of
from mico_competition.support.files import PathLike

DIGITS = 4


@dataclass(frozen=True)
class About:
    """The texts of an entry: who submitted what, and when (`submitted`; None is now)."""

    name: str
    authors: tuple[str, ...] = ()
    link: str = ""
    description: str = ""
    command: str = ""
    commit: str = ""
    submitted: datetime | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of an entry, with names in Unicode's form NFKC; no time if that is now.

        Raises:
            ValueError: listing all values that entries cannot hold.
        """
        names = [self.name, *self.authors]
        name, *authors = (in_one_form(n) if isinstance(n, str) else n for n in names)
        values = {**asdict(self), "name": name, "authors": authors}
        del values["submitted"]
        if self.submitted is not None:
            values["submitted"] = time_text(check_submitted(self.submitted))
        faults = check_fields(values)
        if faults:
            raise ValueError(listing("This cannot stand in an entry:", faults))
        return values


def add(
    submission: PathLike,
    truths: Iterable[Truth],
    about: About,
    *,
    resamples: int = RESAMPLES,
    exact: bool = False,
) -> list[dict[str, Any]]:
    """Make the entries of a submission, one for each phase of its challenge in `truths`.

    Args:
        submission: a zip, or a folder with predictions: that of the challenge, or its parent.
        truths: the solutions, from `read_truth`; those of other challenges are ignored.
        about: the texts of the entry.
        resamples: the number of resamples of the bootstrap for intervals.
        exact: use exact scores in all phases, if the labels are public or the entries are not.

    Returns:
        Values for `entries.write_entry`.

    Raises:
        ValueError: listing all faults of the submission, without quoting any label.
    """
    about.fields()
    path = Path(submission)
    if path.is_dir():
        return _entries(path, None, truths, about, resamples, exact)
    if not path.is_file():
        raise ValueError(f"There is no file or folder {path}: name a submission.")
    with tempfile.TemporaryDirectory() as folder:
        unpacked = unpack_submission(path, Path(folder) / "submission")
        return _entries(unpacked, sha256_of(path), truths, about, resamples, exact)


def _entries(
    folder: Path,
    digest: str | None,
    truths: Iterable[Truth],
    about: About,
    resamples: int,
    exact: bool,
) -> list[dict[str, Any]]:
    mine = _of_one_challenge(folder, list(truths))
    faults: list[str] = []
    found = []
    for truth in mine:
        predictions, wrong = _read_predictions(folder, truth, zipped=digest is not None)
        faults += wrong
        found.append(predictions)
    if faults:
        head = f"This submission cannot be scored, {count_of(len(faults), 'fault')}:"
        raise ValueError(listing(head, faults))
    return [
        make_entry(truth, predictions, about, digest, resamples, exact)
        for truth, predictions in zip(mine, found)
    ]


def _of_one_challenge(folder: Path, truths: Sequence[Truth]) -> list[Truth]:
    """The solutions of the submission's challenge: the only one, or the one it names."""
    names = list(dict.fromkeys(truth.challenge for truth in truths))
    if len(names) > 1:
        names = [name for name in names if folder.name == name or (folder / name).is_dir()]
    if len(names) != 1:
        raise ValueError(
            "It is not clear of which challenge this submission is: its top folder should be "
            f"one of {', '.join(dict.fromkeys(truth.challenge for truth in truths))}."
        )
    return [truth for truth in truths if truth.challenge == names[0]]


def _read_predictions(
    folder: Path, truth: Truth, *, zipped: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The predictions by the paths of the solutions, and all faults."""
    if zipped:
        return check_predictions(str(folder), {k: v.size for k, v in truth.solutions.items()})
    # A local folder may hold other files too, even the models.
    parent = folder if (folder / truth.challenge).is_dir() else folder.parent
    if not (folder / truth.challenge).is_dir() and folder.name != truth.challenge:
        return {}, [f"{folder} holds no folder {truth.challenge}: name the predictions' folder."]
    predictions, faults = {}, []
    for place, solution in truth.solutions.items():
        name = f"{place}/{PREDICTION_FILE}"
        values, wrong = read_values(str(parent / name), solution.size, name)
        faults += wrong
        if values is not None:
            predictions[place] = values
    return predictions, faults


def make_entry(
    truth: Truth,
    predictions: Mapping[str, np.ndarray],
    about: About,
    submission_sha256: str | None = None,
    resamples: int = RESAMPLES,
    exact: bool = False,
) -> dict[str, Any]:
    """The values of an entry, from valid predictions and the solutions."""
    scores = score_scenarios(truth.solutions, predictions)
    intervals: Mapping[str, Any] = {}
    step = 0.0 if exact else get_phase(truth.challenge, truth.phase).step
    if step:  # only the rounded numbers are used from here on
        scores = {name: coarse(result, step) for name, result in scores.items()}
    else:
        intervals = intervals_of(truth.solutions, predictions, resamples=resamples)
    labels: dict[str, list[np.ndarray]] = {}
    for place, values in truth.solutions.items():
        labels.setdefault(place.split("/")[1], []).append(values)
    return {
        "format": FORMAT,
        "challenge": truth.challenge,
        "phase": truth.phase,
        "submitted": time_text(datetime.now(UTC)),
        **about.fields(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "mico_competition": __version__,
        },
        "data_version": truth.data_version,
        "predictions_sha256": predictions_sha256(truth.solutions, predictions),
        "submission_sha256": submission_sha256,
        "average": {
            "score": round(average(scores, RANKED), DIGITS),
            "interval": _rounded(intervals.get(f"average_{RANKED}")),
        },
        "scenarios": {
            name: {
                "models": len(labels[name]),
                "scores": {key: round(result[key], DIGITS) for key in SCALARS},
                "intervals": {key: _rounded(intervals.get(name, {}).get(key)) for key in SCALARS},
                "roc": _curve(result, np.concatenate(labels[name])),
            }
            for name, result in scores.items()
        },
    }


def _rounded(interval: Sequence[float] | None) -> list[float] | None:
    """An interval as it is stored; None if it is unknown, as for a single model."""
    if interval is None or any(map(math.isnan, interval)):
        return None
    return [round(float(end), DIGITS) for end in interval]


def _curve(result: Mapping[str, Any], labels: np.ndarray) -> dict[str, list[float]]:
    """The part of a curve that may be public, since all of it would reveal the labels."""
    members = int(labels.sum())
    curve = shown_curve(result, {"members": members, "nonmembers": labels.size - members})
    return {
        "fpr": [round(rate, DIGITS) for rate in curve.fpr],
        "tpr": [round(rate, DIGITS) for rate in curve.tpr],
    }


def predictions_sha256(places: Iterable[str], predictions: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of the predictions, independent of their number format and order.

    It covers a line for each model, in the order of scenarios and ids, with the model's path, a
    colon, and its values joined by commas, each as the shortest decimal of the same float64.
    """
    digest = hashlib.sha256()
    for place in places:
        line = ",".join(map(repr, predictions[place].tolist()))
        digest.update(f"{place}:{line}\n".encode())
    return digest.hexdigest()
