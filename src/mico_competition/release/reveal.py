"""Reveals the labels that a release withheld, and verifies revealed labels by its commitments.

The organiser calls `reveal`, which reads the trained models.  Anybody can call the other functions,
which read nothing but the release and the revealed file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mico_competition.competition.layout import release_folder, walk_challenge, walk_phase
from mico_competition.competition.lengths import len_challenge_of
from mico_competition.competition.table import (
    PHASE_NAMES,
    SCORED_PHASES,
    SOLUTION_FILE,
    get_challenge,
    get_phase,
    get_scenario,
)
from mico_competition.release.commitments import (
    are_openings,
    consistent,
    opens,
    read_commitments,
    read_object,
    read_openings,
    withheld_names,
    withheld_texts,
)
from mico_competition.support.files import PRIVATE, PUBLIC, PathLike, write_text

_NOT_TRAINED = "name the folder that was released."
_NOT_REVEALED = "name a file that `mico reveal` wrote"


def revealed_file(phase: str) -> str:
    """The name of the revealed file of a phase in a release."""
    return f"revealed_{phase}.json"


def reveal(root: PathLike, challenge: str, phase: str) -> dict[str, Any]:
    """Collect the openings of one phase's commitments, to be published.

    Args:
        root: the folder with `<challenge>/...` as training wrote it, and the openings of its
            release.
        challenge: the name of the challenge.
        phase: the name of the phase to reveal.

    Returns:
        The content of a revealed file: the salt, the withheld seeds and the solution of every
        model of the phase.

    Raises:
        ValueError: if there are no commitments for the phase, if a model is missing or was
            trained after the release, or if a solution or seed is not that of the commitment.
    """
    get_phase(challenge, phase)
    folder = Path(root) / challenge
    openings = read_openings(root, challenge)
    committed = [relative_path for relative_path in openings if _phase_of(relative_path) == phase]
    if not committed:
        raise ValueError(
            f"Nothing of phase {phase} below {folder} was committed to: `mico release` commits "
            "to solutions that it withholds; release first."
        )
    models = walk_challenge(folder, phases=[phase], fix=_NOT_TRAINED)
    gone = set(committed) - {model.relative_path for model in models}
    if gone:
        raise ValueError(f"{min(gone)} was released, but is not below {folder}: put it back.")
    revealed = {}
    for model in models:
        if model.relative_path not in openings:
            raise ValueError(f"{model.path} was not released: release it, or move it away.")
        texts, opening = withheld_texts(model), openings[model.relative_path]
        if not opens(challenge, model.relative_path, opening, texts):
            raise ValueError(
                f"The solution or a seed of {model.path} is not what was committed to: put back "
                "what was released."
            )
        revealed[model.relative_path] = {"salt": opening["salt"], **texts}
    return {"format": 1, "challenge": challenge, "phase": phase, "openings": revealed}


def as_text(revealed: dict[str, Any]) -> str:
    """The text of a revealed file."""
    return json.dumps(revealed, indent=2) + "\n"


def files_in(revealed: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (`<scenario>/<phase>/model_<i>/<file>`, content) of every revealed file."""
    for relative_path, opening in revealed["openings"].items():
        for name, text in opening.items():
            if name != "salt":
                yield f"{relative_path}/{name}", f"{text}\n"


def read_revealed(path: PathLike) -> dict[str, Any]:
    """Read a revealed file, in exactly the form that `mico reveal` writes.

    Raises:
        ValueError: if it has another form: its phase has no withheld labels, it is empty, it
            names a model of another phase, or it has additional keys.
    """
    value = read_object(Path(path), _NOT_REVEALED, 1 << 28)
    challenge, phase, openings = (value.get(key) for key in ("challenge", "phase", "openings"))
    if value.keys() != {"format", "challenge", "phase", "openings"} or value["format"] != 1:
        raise ValueError(f"{path} is not what `mico reveal` writes: fetch it again.")
    if not isinstance(phase, str) or phase not in SCORED_PHASES:
        known = " or ".join(SCORED_PHASES)
        raise ValueError(f"{path} does not say which phase it reveals ({known}): fetch it again.")
    if not isinstance(challenge, str) or not openings or not are_openings(openings, SOLUTION_FILE):
        raise ValueError(f"{path} is not what `mico reveal` writes: fetch it again.")
    for relative_path in openings:
        if _phase_of(relative_path) != phase:
            raise ValueError(f"{path} reveals {phase}, but names a model of another phase.")
    return value


def _phase_of(relative_path: str) -> str | None:
    """The phase in `<scenario>/<phase>/model_<i>`; None for anything else."""
    parts = relative_path.split("/")
    return parts[1] if len(parts) == 3 and parts[1] in PHASE_NAMES else None


def verify(released: PathLike, revealed: PathLike) -> tuple[int, list[str]]:
    """Verify a revealed file by the commitments of a release.

    Args:
        released: a released challenge folder, beside which `<challenge>.release` lies.
        revealed: a file that `mico reveal` wrote.

    Returns:
        The number of models whose labels match their commitments, and a sentence for each fault:
        labels that do not match or are not half zeros, models with a commitment that are not
        revealed, models that were revealed or released without a commitment.

    Raises:
        ValueError: if a file is missing or damaged, if the two belong to different challenges, or
            if the release has no commitments for the phase.
    """
    challenge, committed = read_commitments(released)
    opened = read_revealed(revealed)
    openings, phase = opened["openings"], opened["phase"]
    if opened["challenge"] != challenge:
        raise ValueError(f"{revealed} is not of the challenge that {released} holds: {challenge}.")
    expected = [relative_path for relative_path in committed if _phase_of(relative_path) == phase]
    if not expected:
        raise ValueError(
            f"{released} commits to nothing of phase {phase}, so nothing can be verified."
        )
    faults = [
        f"{relative_path}: it is not revealed."
        for relative_path in expected
        if relative_path not in openings
    ]
    lengths = _lengths(Path(released), challenge, phase)
    for relative_path in lengths.keys() - committed.keys():
        faults.append(f"{relative_path}: it was released, and there is no commitment to it.")
    sound = 0
    for relative_path, opening in openings.items():
        fault = _fault(
            challenge,
            relative_path,
            opening,
            committed.get(relative_path),
            lengths.get(relative_path),
        )
        faults += [f"{relative_path}: {fault}"] if fault else []
        sound += not fault
    return sound, sorted(faults)


def _lengths(released: Path, challenge: str, phase: str) -> dict[str, int]:
    """m of each model of `phase` in the released folder."""
    return {
        model.relative_path: len_challenge_of(model.path)
        for scenario in get_challenge(challenge)
        for model in walk_phase(released, scenario, phase)
    }


def _fault(
    challenge: str, relative_path: str, opening: dict[str, str], value: str | None, m: int | None
) -> str | None:
    """What is wrong with a model's opening, given its commitment and number of members."""
    if value is None:
        return "there is no commitment to it."
    texts = {name: text for name, text in opening.items() if name != "salt"}
    scenario, phase, _ = relative_path.split("/")
    if tuple(texts) != withheld_names(get_scenario(scenario), phase) or not opens(
        challenge, relative_path, {"salt": opening["salt"], "commitment": value}, texts
    ):
        return "its labels, seeds or salt are not those committed to."
    if not consistent(texts):
        return "its labels are not those that its seed_membership gives."
    labels = texts[SOLUTION_FILE].split(",")
    if m is not None and len(labels) != 2 * m:
        return f"it has {len(labels)} labels, but the release says {2 * m}."
    return None


def sums_of(revealed: dict[str, Any]) -> dict[str, str]:
    """The SHA-256, by name, of the revealed file in a release and of all files it reveals."""
    challenge = revealed["challenge"]
    texts = {f"{challenge}.release/{revealed_file(revealed['phase'])}": as_text(revealed)}
    texts |= {f"{challenge}/{name}": text for name, text in files_in(revealed)}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def write_solutions(revealed: dict[str, Any], folder: PathLike) -> int:
    """Write revealed solutions and seeds to `<folder>/<scenario>/<phase>/model_<i>/`.

    If `folder` is a released challenge folder, the revealed file is written beside it too, so
    that `check_files` accepts the new files, and everybody can read them; in other folders only
    their owner can.

    Returns:
        The number of models.

    Raises:
        ValueError: if a file exists with other content; then nothing is written.
    """
    files = {Path(folder) / name: text for name, text in files_in(revealed)}
    side = release_folder(folder)
    if side.is_dir():
        files[side / revealed_file(revealed["phase"])] = as_text(revealed)
    for path, text in files.items():
        if path.exists() and path.read_bytes() != text.encode():
            raise ValueError(f"{path} holds something else: choose another folder.")
    access = PUBLIC if side.is_dir() else PRIVATE
    for path, text in files.items():
        write_text(path, text, access=access)
    return len(revealed["openings"])
