"""Commitments to the labels that a release withholds, so that anybody can verify them later.

With a release the organiser publishes, for each model with a withheld solution, the SHA-256 of the
solution, the withheld seeds and a salt.  When these are revealed, anybody can check that they are
those of the release (docs/METHODS.md, section 12.3, formula 98).  The hash covers these fields,
each preceded by its length in bytes, as 8 bytes with the most significant first:

    "mico commitment 1", challenge, "<scenario>/<phase>/model_<i>", salt (32 bytes),
    then name and text of each withheld file, in the order of the table:
    seeds as `splits.seed_text` writes them, the solution as "0,1,..." without spaces

Without the salt of 32 random bytes, an attacker could hash the likeliest solutions until one
matches, and would know that it is right.  The organiser keeps the salts in
`<trained>/<challenge>/openings.json` until they are revealed.
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
from mico_competition.competition.rows import OPENINGS_FILE
from mico_competition.competition.solutions import membership, read_solution
from mico_competition.competition.splits import parse_seed, seed_text
from mico_competition.competition.table import (
    PHASE_NAMES,
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
SALT_BYTES = 32
_DOMAIN = "mico commitment 1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 26  # the most bytes of a file that is read here

# relative_path of a model -> {"salt": hex, "commitment": hex, "seeds": of `marks_of`}
Openings = dict[str, dict[str, str]]

# For each amendment: its line of amendments.jsonl, and the openings that it replaced.
History = list[dict[str, Any]]


def commitment(challenge: str, relative_path: str, salt: bytes, withheld: Mapping[str, str]) -> str:
    """Compute the commitment to a model's withheld files.

    Args:
        challenge: the name of the challenge.
        relative_path: `<scenario>/<phase>/model_<i>`.
        salt: 32 random bytes.
        withheld: the canonical text of each withheld file by name, in the order of the table.

    Returns:
        64 hexadecimal digits.
    """
    fields: list[str | bytes] = [_DOMAIN, challenge, relative_path, salt]
    for name, text in withheld.items():
        fields += [name, text]
    digest = hashlib.sha256()
    for field in fields:
        content = field if isinstance(field, bytes) else field.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def opens(
    challenge: str, relative_path: str, opening: Mapping[str, str], texts: Mapping[str, str]
) -> bool:
    """Whether the salt of `opening` and these texts give its commitment."""
    value = commitment(challenge, relative_path, bytes.fromhex(opening["salt"]), texts)
    return hmac.compare_digest(value.encode(), opening["commitment"].encode())


def marks_of(salt: bytes, texts: Mapping[str, str]) -> list[str]:
    """Salted hashes of the withheld seeds, by which an amendment finds that one is used again."""
    seeds = (text for name, text in texts.items() if name in SEED_FILES)
    return [hashlib.sha256(salt + seed.encode()).hexdigest() for seed in seeds]


def withheld_names(scenario: Scenario, phase: str) -> tuple[str, ...]:
    """The seed and solution files that a release withholds, in the order of the table."""
    disclosed = disclosed_files(scenario, phase)
    return tuple(name for name in (*SEED_FILES, SOLUTION_FILE) if name not in disclosed)


def withheld_texts(model: ModelFolder) -> dict[str, str]:
    """The canonical text of each file of a trained model that a release withholds, by name.

    Raises:
        ValueError: if a file is missing or invalid; as `read_solution`.
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
    """Whether the labels follow from the membership seed; True if either is missing."""
    if "seed_membership" not in texts or SOLUTION_FILE not in texts:
        return True
    labels = texts[SOLUTION_FILE].split(",")
    return labels == list(map(str, membership(texts["seed_membership"], len(labels)).tolist()))


def commit(
    root: PathLike,
    challenge: str,
    models: Sequence[ModelFolder],
    stored: Openings | None = None,
) -> Openings:
    """The openings of all `models` with withheld files: stored ones, and new ones for the rest.

    `stored` are by default those below `root`.  Nothing is written; call `save_openings` before
    the release appears.

    Raises:
        ValueError: as `withheld_texts`; or naming a model whose solution or seeds are not those
            of its stored commitment.
    """
    openings = read_openings(root, challenge) if stored is None else dict(stored)
    for model in models:
        texts = withheld_texts(model)
        if not texts:
            continue
        if model.relative_path not in openings:
            salt = secrets.token_bytes(SALT_BYTES)
            value = commitment(challenge, model.relative_path, salt, texts)
            opening = {"salt": salt.hex(), "commitment": value}
            openings[model.relative_path] = {**opening, "seeds": " ".join(marks_of(salt, texts))}
        elif not opens(challenge, model.relative_path, openings[model.relative_path], texts):
            raise ValueError(
                f"The solution or a seed of {model.path} is not what was committed to: put back "
                f"what was released; or, if that was published and the model had to be replaced, "
                f"use --amend; or, if it was never published, remove {model.relative_path} from "
                f"{openings_path(root, challenge)}."
            )
    return openings


@contextmanager
def only_release(root: PathLike, challenge: str) -> Iterator[None]:
    """Lock a trained challenge, so that two releases at the same time do not draw two salts."""
    with folder_lock(Path(root) / challenge, f"another `mico release` of {challenge}"):
        yield


def public_commitments(
    challenge: str, models: Sequence[ModelFolder], openings: Openings
) -> dict[str, Any]:
    """The content of a release's commitments.json: commitments without the salts."""
    paths = [model.relative_path for model in models if model.relative_path in openings]
    return as_public(
        challenge,
        {relative_path: openings[relative_path]["commitment"] for relative_path in paths},
    )


def as_public(challenge: str, committed: Mapping[str, str]) -> dict[str, Any]:
    """The content of commitments.json, from the commitments by model."""
    return {"format": 1, "challenge": challenge, "commitments": dict(committed)}


def openings_path(root: PathLike, challenge: str) -> Path:
    """The file of the openings of a challenge trained below `root`."""
    return Path(root) / challenge / OPENINGS_FILE


def read_openings(root: PathLike, challenge: str) -> Openings:
    """Read the openings below trained folder `root`; empty if there are no commitments yet.

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


def read_history(root: PathLike, challenge: str) -> History:
    """Read the amendments below trained folder `root`; empty if there are none.

    Raises:
        ValueError: if the file is damaged.
    """
    path = openings_path(root, challenge)
    if not path.is_file():
        return []
    history = read_object(path, "restore it from a copy").get("amendments", [])
    if not isinstance(history, list) or not all(
        isinstance(past, dict)
        and isinstance(past.get("line"), str)
        and are_openings(past.get("replaced"), "commitment")
        for past in history
    ):
        raise ValueError(f"{path} is damaged: restore it from a copy.")
    return history


def save_openings(
    root: PathLike, challenge: str, openings: Openings, amendment: Mapping[str, Any] | None = None
) -> None:
    """Write the openings atomically, readable by their owner only.

    Args:
        root: the folder with `<challenge>/...` as training wrote it.
        challenge: the name of the challenge.
        openings: the openings of all models of the release.
        amendment: a new amendment, with its line and the openings that it replaced.

    Raises:
        ValueError: if another release has stored other salts meanwhile, which can happen on file
            systems without locks; then a release with these openings must not appear.
    """
    path, kept = openings_path(root, challenge), read_openings(root, challenge)
    history, replaced = read_history(root, challenge), (amendment or {}).get("replaced", {})
    if any(
        opening not in (openings.get(relative_path), replaced.get(relative_path))
        for relative_path, opening in kept.items()
    ):
        raise ValueError(f"{path} was changed by another release meanwhile: release again.")
    if openings == kept and amendment is None:
        return
    content: dict[str, Any] = {"format": 1, "challenge": challenge, "openings": openings}
    if history or amendment is not None:
        content["amendments"] = [*history, *([amendment] if amendment is not None else [])]
    with written_aside(path, durable=True, access=PRIVATE) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_commitments(challenge_folder: PathLike) -> tuple[str, dict[str, str]]:
    """Read the challenge's name and the commitments (64 hexadecimal digits each) of a release.

    Args:
        challenge_folder: the released challenge folder, beside which `<challenge>.release` lies.

    Raises:
        ValueError: if commitments.json is missing or empty, or holds anything but commitments to
            models of the challenge.
    """
    path = release_folder(challenge_folder) / COMMITMENTS_FILE
    challenge, committed = commitments_in(path)
    if not committed:
        raise ValueError(f"{path} commits to nothing, so nothing can be verified.")
    return challenge, committed


def commitments_in(path: Path) -> tuple[str, dict[str, str]]:
    """The challenge's name and the commitments in a file commitments.json; they may be none.

    Raises:
        ValueError: if the file is missing, or holds anything but commitments to models of the
            challenge.
    """
    public = read_object(path, NO_RELEASE)
    challenge, committed = public.get("challenge"), public.get("commitments")
    if (
        public.keys() != {"format", "challenge", "commitments"}
        or not isinstance(challenge, str)
        or not isinstance(committed, dict)
        or not all(isinstance(v, str) and _DIGEST.fullmatch(v) for v in committed.values())
        or not all(_is_withheld(challenge, relative_path) for relative_path in committed)
    ):
        raise ValueError(f"{path} is not a release's commitments: fetch it again.")
    return challenge, committed


def _is_withheld(challenge: str, relative_path: str) -> bool:
    """Whether `relative_path` names a model of the challenge with withheld files."""
    scenario, phase, folder = [*relative_path.split("/"), "", ""][:3]
    return (
        relative_path.count("/") == 2
        and scenario in get_challenge(challenge)
        and phase in PHASE_NAMES
        and model_id_of(folder) is not None
        and bool(withheld_names(SCENARIOS[scenario], phase))
    )


def read_object(path: Path, fix: str, limit: int = _LARGEST) -> dict[str, Any]:
    """Read the JSON object in a file of at most `limit` bytes; ValueError with `fix` if not."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}: {fix}.")
    values = read_limited_json(path, limit, fix=fix)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a JSON object: {fix}.")
    return values


def are_openings(values: object, name: str) -> TypeGuard[Openings]:
    """Whether `values` are openings: texts by path and name, with a salt and a `name` for each."""
    try:
        return isinstance(values, dict) and all(
            len(bytes.fromhex(opening["salt"])) == SALT_BYTES
            and all(isinstance(text, str) for text in (opening[name], *opening.values()))
            for opening in values.values()
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
