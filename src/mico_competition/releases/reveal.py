"""Reveal what a release withheld, and verify it: the other half of `commitments`.

`reveal` is the organiser's, and needs what training wrote; `verify` is anybody's, and reads
nothing but a released folder and the revealed file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mico_competition.files import PathLike
from mico_competition.layout import walk_challenge
from mico_competition.releases.commitments import (
    COMMITMENTS_FILE,
    are_openings,
    consistent,
    opens,
    read_object,
    read_openings,
    withheld_texts,
)
from mico_competition.tracks import SOLUTION_FILE, get_challenge, get_phase

_NOT_TRAINED = "name the folder that was released."


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
    committed = [place for place in openings if place.split("/")[1:2] == [phase]]
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


def verify(released: PathLike, revealed: PathLike) -> tuple[int, list[str]]:
    """Hold a revealed file against the commitments of a release.

    Args:
        released: a released challenge folder, of which only commitments.json is read.
        revealed: a file that `mico reveal` wrote.

    Returns:
        The number of models whose labels are those committed to, and a sentence for each other
        one: labels that do not match, models without a commitment, models not revealed.

    Raises:
        ValueError: if a file is missing or damaged, or the two are not of one challenge.
    """
    path = Path(released) / COMMITMENTS_FILE
    public = read_object(path, "name a released challenge folder")
    opened = read_object(Path(revealed), "name a file that `mico reveal` wrote")
    committed, openings = public.get("commitments"), opened.get("openings")
    if not isinstance(committed, dict):
        raise ValueError(f"{path} holds no commitments: fetch it again.")
    if not are_openings(openings, SOLUTION_FILE):
        raise ValueError(f"{revealed} is not what `mico reveal` writes: fetch it again.")
    challenge, phase = opened.get("challenge"), opened.get("phase")
    if not isinstance(challenge, str) or public.get("challenge") != challenge:
        raise ValueError(f"{revealed} is not of the challenge that {released} holds.")
    expected = [place for place in committed if place.split("/")[1:2] == [phase]]
    faults = [f"{place}: it is not revealed." for place in expected if place not in openings]
    wrong = {
        place: fault
        for place, opening in openings.items()
        if (fault := _fault(challenge, place, opening, committed.get(place)))
    }
    faults += [f"{place}: {fault}" for place, fault in wrong.items()]
    return len(openings) - len(wrong), faults


def _fault(challenge: str, place: str, opening: dict[str, str], value: object) -> str | None:
    """What is wrong with one model's opening, given its commitment."""
    if not isinstance(value, str):
        return "there is no commitment to it."
    texts = {name: text for name, text in opening.items() if name != "salt"}
    if not opens(challenge, place, {"salt": opening["salt"], "commitment": value}, texts):
        return "its labels, seeds or salt are not those committed to."
    if not consistent(texts):
        return "its labels are not those that its seed_membership gives."
    return None


def as_text(revealed: dict[str, Any]) -> str:
    """What a revealed file holds."""
    return json.dumps(revealed, indent=2) + "\n"
