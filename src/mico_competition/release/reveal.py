"""Reveal what a release withheld, and verify it: the other half of `commitments`.

`reveal` is the organiser's, and needs what training wrote; all the rest is anybody's, and reads
nothing but a release and the revealed file.
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
    PHASES,
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
    """The name that a revealed file has in a release."""
    return f"revealed_{phase}.json"


def reveal(root: PathLike, challenge: str, phase: str) -> dict[str, Any]:
    """What opens the commitments of one phase; public once it is handed out.

    Args:
        root: holds `<challenge>/...` as training wrote it, and the openings of its release.
        challenge: name of the challenge.
        phase: name of the phase to reveal.

    Returns:
        JSON values: place -> salt, withheld seeds and solution, for every model of the phase.

    Raises:
        ValueError: if nothing of the phase was committed to; if a model is gone, or was trained
            after the release; if a solution or seed is not what was committed to.
    """
    get_challenge(challenge), get_phase(phase)
    folder = Path(root) / challenge
    openings = read_openings(root, challenge)
    committed = [place for place in openings if _phase_of(place) == phase]
    if not committed:
        raise ValueError(
            f"Nothing of phase {phase} below {folder} was committed to: `mico release` commits "
            "to solutions that it withholds; release first."
        )
    models = walk_challenge(folder, phases=[phase], mend=_NOT_TRAINED)
    gone = set(committed) - {model.place for model in models}
    if gone:
        raise ValueError(f"{min(gone)} was released, but is not below {folder}: put it back.")
    revealed = {}
    for model in models:
        if model.place not in openings:
            raise ValueError(f"{model.path} was not released: release it, or take it away.")
        texts, opening = withheld_texts(model), openings[model.place]
        if not opens(challenge, model.place, opening, texts):
            raise ValueError(
                f"The solution or a seed of {model.path} is not what was committed to: put back "
                "what was released."
            )
        revealed[model.place] = {"salt": opening["salt"], **texts}
    return {"format": 1, "challenge": challenge, "phase": phase, "openings": revealed}


def as_text(revealed: dict[str, Any]) -> str:
    """What a revealed file holds."""
    return json.dumps(revealed, indent=2) + "\n"


def files_in(revealed: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(`<scenario>/<phase>/model_<i>/<file>`, content) of every file that was revealed."""
    for place, opening in revealed["openings"].items():
        for name, text in opening.items():
            if name != "salt":
                yield f"{place}/{name}", f"{text}\n"


def read_revealed(path: PathLike) -> dict[str, Any]:
    """A revealed file, of the form that `mico reveal` writes and of no other.

    Raises:
        ValueError: if it is anything else: its phase is not one whose labels are withheld, it
            opens nothing, it names what is no model of that phase, or it has further keys.
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
    for place in openings:
        if _phase_of(place) != phase:
            raise ValueError(f"{path} reveals {phase}, and names a model of another phase.")
    return value


def _phase_of(place: str) -> str | None:
    """The phase in `<scenario>/<phase>/model_<i>`; None for anything else."""
    parts = place.split("/")
    return parts[1] if len(parts) == 3 and parts[1] in PHASES else None


def verify(released: PathLike, revealed: PathLike) -> tuple[int, list[str]]:
    """Hold a revealed file against the commitments of a release.

    Args:
        released: a released challenge folder, beside which `<challenge>.release` lies.
        revealed: a file that `mico reveal` wrote.

    Returns:
        The number of models whose labels are those committed to, and a sentence for each other
        one: labels that do not match or are not a 0 for each 1, models that were committed to
        and are not revealed, models that were revealed or released and never committed to.

    Raises:
        ValueError: if a file is missing or damaged, if the two are not of one challenge, or if
            the release commits to nothing of the phase, so that nothing can be verified.
    """
    challenge, committed = read_commitments(released)
    opened = read_revealed(revealed)
    openings, phase = opened["openings"], opened["phase"]
    if opened["challenge"] != challenge:
        raise ValueError(f"{revealed} is not of the challenge that {released} holds: {challenge}.")
    expected = [place for place in committed if _phase_of(place) == phase]
    if not expected:
        raise ValueError(
            f"{released} commits to nothing of phase {phase}, so nothing can be verified."
        )
    faults = [f"{place}: it is not revealed." for place in expected if place not in openings]
    lengths = _lengths(Path(released), challenge, phase)
    for place in lengths.keys() - committed.keys():
        faults.append(f"{place}: it was released, and there is no commitment to it.")
    sound = 0
    for place, opening in openings.items():
        fault = _fault(challenge, place, opening, committed.get(place), lengths.get(place))
        faults += [f"{place}: {fault}"] if fault else []
        sound += not fault
    return sound, sorted(faults)


def _lengths(released: Path, challenge: str, phase: str) -> dict[str, int]:
    """m of each model of `phase` that is in the released folder."""
    return {
        model.place: len_challenge_of(model.path)
        for scenario in get_challenge(challenge)
        for model in walk_phase(released, scenario, phase)
    }


def _fault(
    challenge: str, place: str, opening: dict[str, str], value: str | None, m: int | None
) -> str | None:
    """What is wrong with one model's opening, given its commitment and its number of members."""
    if value is None:
        return "there is no commitment to it."
    texts = {name: text for name, text in opening.items() if name != "salt"}
    scenario, phase, _ = place.split("/")
    if tuple(texts) != withheld_names(get_scenario(scenario), phase) or not opens(
        challenge, place, {"salt": opening["salt"], "commitment": value}, texts
    ):
        return "its labels, seeds or salt are not those committed to."
    if not consistent(texts):
        return "its labels are not those that its seed_membership gives."
    labels = texts[SOLUTION_FILE].split(",")
    if m is not None and len(labels) != 2 * m:
        return f"it has {len(labels)} labels, and the release says {2 * m}."
    return None


def sums_of(revealed: dict[str, Any]) -> dict[str, str]:
    """Name -> SHA-256 of the revealed file in a release, and of all files that come with it."""
    challenge = revealed["challenge"]
    texts = {f"{challenge}.release/{revealed_file(revealed['phase'])}": as_text(revealed)}
    texts |= {f"{challenge}/{name}": text for name, text in files_in(revealed)}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def write_solutions(revealed: dict[str, Any], folder: PathLike) -> int:
    """Write revealed solutions and seeds to `<folder>/<scenario>/<phase>/model_<i>/`.

    Gives the number of models.  If `folder` is a released challenge folder, the revealed file
    goes beside it too, so that `check_files` knows where the new files come from, and everybody
    can read them; elsewhere only their owner can.

    Raises:
        ValueError: if a file of other content stands there; nothing is written then.
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
