"""The truth of a phase, read for scoring at home; it never leaves this process.

A tree `<challenge>/<scenario>/<phase>/model_<i>/solution.csv`: the folder that training wrote, or
what `mico reference` made of it.  Imports no torch, since processes of `score_all` import this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mico_competition.competition.layout import release_folder, walk_phase
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import get_challenge, get_phase
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import read_limited_json

_LARGEST = 100_000_000
_MEND = "name the folder that training wrote <challenge>/... into, or that `mico reference` made."


@dataclass(frozen=True)
class Truth:
    """The solutions of one phase, by `<challenge>/<scenario>/<phase>/model_<i>`; never shown."""

    challenge: str
    phase: str
    data_version: str | None
    solutions: Mapping[str, np.ndarray] = field(repr=False)


def read_truth(
    root: PathLike, challenge: str, phase: str, data_version: str | None = None
) -> Truth:
    """The truth of a phase of a challenge below `root`.

    Args:
        root: holds `<challenge>/<scenario>/<phase>/model_<i>/solution.csv`.
        challenge: name of the challenge.
        phase: name of the phase.
        data_version: what to call these data; by default the SHA-256 of the commitments to them
            that a release made (they are salted, so that nobody can try labels on them).

    Raises:
        ValueError: if a scenario has no solutions there, or as `read_solution`.
    """
    folder = Path(root) / challenge
    get_phase(challenge, phase)
    solutions: dict[str, np.ndarray] = {}
    for scenario in get_challenge(challenge):
        models = walk_phase(folder, scenario, phase)
        if not models:
            raise ValueError(f"There are no solutions in {folder / scenario / phase}: {_MEND}")
        for model in models:
            solutions[f"{challenge}/{model.relative_path}"] = read_solution(model.path)
    version = data_version or _version_of(folder, list(solutions))
    return Truth(challenge, phase, version, solutions)


def _version_of(folder: Path, places: Sequence[str]) -> str | None:
    """SHA-256 of the commitments to the solutions, or None where they were not all committed to.

    Never of the solutions themselves: somebody with a good attack could hash likely labels until
    the hash matches.
    """
    for path, key in (
        (release_folder(folder) / "commitments.json", "commitments"),
        (folder / "openings.json", "openings"),
    ):
        if not path.is_file():
            continue
        kept = read_limited_json(path, _LARGEST)[key]
        digest = hashlib.sha256()
        for place in places:
            value = kept.get(place.partition("/")[2])
            value = value["commitment"] if isinstance(value, dict) else value
            if value is None:
                return None
            digest.update(f"{place} {value}\n".encode())
        return f"sha256:{digest.hexdigest()}"
    return None
