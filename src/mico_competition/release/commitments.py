"""Commitments to what a release withholds, so that labels revealed later can be verified.

With a release the organiser publishes, for each model with a withheld solution, the SHA-256 of the
solution, the withheld seeds and a salt.  Once they are revealed anybody can check that they are
those that the models were released with (docs/METHODS.md, section 12.3, formula 94).  The hash is
of these fields, each preceded by its length in bytes, as 8 bytes with the most significant first:

    "mico commitment 1", challenge, "<scenario>/<phase>/model_<i>", salt (32 bytes),
    then name and text of each withheld file, in the order of the table:
    seeds as `splits.seed_text` writes them, the solution as "0,1,..." without spaces

Without the salt, whoever has a good attack could hash the solutions it finds likeliest until one
fits, and would know it for the truth; 32 random bytes leave nothing to try.  Salts stay with the
organiser, in `<trained>/<challenge>/openings.json`, until they are revealed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from mico_competition.competition.layout import ModelFolder, model_id_of, read_text, release_folder
from mico_competition.competition.solutions import membership, read_solution
from mico_competition.competition.splits import parse_seed, seed_text
from mico_competition.competition.table import (
    PHASES,
    SCENARIOS,
    SEED_FILES,
    SOLUTION_FILE,
    Scenario,
    disclosed_files,
    get_challenge,
    get_scenario,
)
from mico_competition.release.archives import NO_RELEASE
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.support.scratch import folder_lock
from mico_competition.support.untrusted import read_limited_json

COMMITMENTS_FILE = "commitments.json"
OPENINGS_FILE = "openings.json"
SALT_BYTES = 32
_DOMAIN = "mico commitment 1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 26  # bytes of a file that is read here

Openings = dict[str, dict[str, str]]  # place -> {"salt": hex, "commitment": hex}


def commitment(challenge: str, place: str, salt: bytes, withheld: Mapping[str, str]) -> str:
    """The commitment to a model's withheld files, 64 hexadecimal digits.

    Args:
        challenge: name of the challenge.
        place: `<scenario>/<phase>/model_<i>`.
        salt: 32 random bytes.
        withheld: name of each withheld file, in the order of the table -> its canonical text.
    """
    fields: list[str | bytes] = [_DOMAIN, challenge, place, salt]
    for name, text in withheld.items():
        fields += [name, text]
    digest = hashlib.sha256()
    for field in fields:
        content = field if isinstance(field, bytes) else field.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def opens(challenge: str, place: str, opening: Mapping[str, str], texts: Mapping[str, str]) -> bool:
    """Whether the salt of `opening` and these texts give the commitment of `opening`."""
    value = commitment(challenge, place, bytes.fromhex(opening["salt"]), texts)
    return hmac.compare_digest(value.encode(), opening["commitment"].encode())


def withheld_names(scenario: Scenario, phase: str) -> tuple[str, ...]:
    """The seed and solution files that a release withholds, in the order of the table."""
    disclosed = disclosed_files(scenario, phase)
    return tuple(name for name in (*SEED_FILES, SOLUTION_FILE) if name not in disclosed)


def withheld_texts(model: ModelFolder) -> dict[str, str]:
    """Name -> canonical text of each file of a trained model that a release withholds.

    Raises:
        ValueError: if one is missing or not of its form; as `read_solution`.
    """
    texts = {}
    for name in withheld_names(get_scenario(model.scenario), model.phase):
        path = model.path / name
        if name == SOLUTION_FILE:
            texts[name] = ",".join(map(str, read_solution(model.path).tolist()))
        elif path.is_file():
            texts[name] = seed_text(parse_seed(str(path), read_text(path)))
        else:
            raise ValueError(f"There is no {name} in {model.path}: train the model again.")
    return texts


def consistent(texts: Mapping[str, str]) -> bool:
    """Whether the labels are those that the membership seed gives, where both are there."""
    if "seed_membership" not in texts or SOLUTION_FILE not in texts:
        return True
    labels = texts[SOLUTION_FILE].split(",")
    return labels == list(map(str, membership(texts["seed_membership"], len(labels)).tolist()))


def commit(root: PathLike, challenge: str, models: Sequence[ModelFolder]) -> Openings:
    """Openings of all `models` with something withheld: those on file, and fresh ones.

    Nothing is written: `save_openings` does, before a release with them is seen.

    Raises:
        ValueError: as `withheld_texts`; or naming a model whose solution or seeds are not those
            that were committed to before.
    """
    openings = read_openings(root, challenge)
    for model in models:
        texts = withheld_texts(model)
        if not texts:
            continue
        if model.place not in openings:
            salt = secrets.token_bytes(SALT_BYTES)
            value = commitment(challenge, model.place, salt, texts)
            openings[model.place] = {"salt": salt.hex(), "commitment": value}
        elif not opens(challenge, model.place, openings[model.place], texts):
            raise ValueError(
                f"The solution or a seed of {model.path} is not what was committed to: put back "
                f"what was released; or, if that was never published, take {model.place} out of "
                f"{openings_path(root, challenge)}."
            )
    return openings


@contextmanager
def only_release(root: PathLike, challenge: str) -> Iterator[None]:
    """Hold the lock of a trained challenge, so that two releases never draw two sets of salts."""
    with folder_lock(Path(root) / challenge, f"another `mico release` of {challenge}"):
        yield


def public_commitments(
    challenge: str, models: Sequence[ModelFolder], openings: Openings
) -> dict[str, Any]:
    """What commitments.json of a release holds: place -> commitment, without the salts."""
    places = [model.place for model in models if model.place in openings]
    return {
        "format": 1,
        "challenge": challenge,
        "commitments": {place: openings[place]["commitment"] for place in places},
    }


def openings_path(root: PathLike, challenge: str) -> Path:
    """Where the openings of a challenge trained below `root` are kept."""
    return Path(root) / challenge / OPENINGS_FILE


def read_openings(root: PathLike, challenge: str) -> Openings:
    """The openings on file below trained folder `root`; none if nothing was committed to yet.

    Raises:
        ValueError: if the file is damaged.
    """
    path = openings_path(root, challenge)
    if not path.is_file():
        return {}
    openings = read_object(path, "restore it from a copy").get("openings")
    if not are_openings(openings, "commitment"):
        raise ValueError(f"{path} is damaged: restore it from a copy.")
    return openings


def save_openings(root: PathLike, challenge: str, openings: Openings) -> None:
    """Put openings on file, readable by their owner only; whole or not at all.

    Raises:
        ValueError: if another release has drawn other salts meanwhile, which only file systems
            without locks allow; a release with these must not be seen then.
    """
    path, kept = openings_path(root, challenge), read_openings(root, challenge)
    if any(openings.get(place) != opening for place, opening in kept.items()):
        raise ValueError(f"{path} was changed by another release meanwhile: release again.")
    if openings == kept:
        return
    content = {"format": 1, "challenge": challenge, "openings": openings}
    with written_aside(path, durable=True, access=PRIVATE) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_commitments(challenge_folder: PathLike) -> tuple[str, dict[str, str]]:
    """The challenge that a release is of, and its commitments: place -> 64 hexadecimal digits.

    Args:
        challenge_folder: the folder that commitments.json lies beside, in `<challenge>.release`.

    Raises:
        ValueError: if there is no such file, or it commits to nothing, or holds anything but
            commitments to models of the challenge.
    """
    path = release_folder(challenge_folder) / COMMITMENTS_FILE
    public = read_object(path, NO_RELEASE)
    challenge, committed = public.get("challenge"), public.get("commitments")
    if (
        public.keys() != {"format", "challenge", "commitments"}
        or not isinstance(challenge, str)
        or not isinstance(committed, dict)
        or not all(isinstance(v, str) and _DIGEST.fullmatch(v) for v in committed.values())
        or not all(_is_withheld(challenge, place) for place in committed)
    ):
        raise ValueError(f"{path} is not a release's commitments: fetch it again.")
    if not committed:
        raise ValueError(f"{path} commits to nothing, so nothing can be verified.")
    return challenge, committed


def _is_withheld(challenge: str, place: str) -> bool:
    """Whether `place` is that of a model of the challenge of which something is withheld."""
    scenario, phase, folder = [*place.split("/"), "", ""][:3]
    return (
        place.count("/") == 2
        and scenario in get_challenge(challenge)
        and phase in PHASES
        and model_id_of(folder) is not None
        and bool(withheld_names(SCENARIOS[scenario], phase))
    )


def read_object(path: Path, mend: str, limit: int = _LARGEST) -> dict[str, Any]:
    """The JSON object in a file of so many bytes; ValueError with `mend` if there is none."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}: {mend}.")
    values = read_limited_json(path, limit, mend=mend)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a JSON object: {mend}.")
    return values


def are_openings(values: object, name: str) -> TypeGuard[Openings]:
    """Whether `values` are texts by place and name, with a whole salt and a `name` for each."""
    try:
        return isinstance(values, dict) and all(
            len(bytes.fromhex(opening["salt"])) == SALT_BYTES
            and all(isinstance(text, str) for text in (opening[name], *opening.values()))
            for opening in values.values()
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
