"""Derives the content of every small file of a release from the trained models, and compares.

Files are compared byte for byte, so that order, spaces, number formats and repeated keys cannot
reveal anything either.  This module shares no code with those that write releases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import Any

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.lengths import Lengths, read_metadata
from mico_competition.competition.splits import Seed, parse_seed, seed_text
from mico_competition.competition.table import (
    METADATA_FILE,
    SEED_FILES,
    SOLUTION_FILE,
    current,
)
from mico_competition.release.leak_check.fields import (
    Fields,
    config_fields,
    field_faults,
    metadata_fields,
    public_part,
    special_tokens,
    tokenizer_fields,
)
from mico_competition.release.leak_check.patterns import withheld_of
from mico_competition.support.untrusted import TEXT_LIMIT, read_limited_json, read_limited_text

Trained = Mapping[str, ModelFolder]  # the trained models by `<scenario>/<phase>/model_<i>`
Openings = Mapping[str, Mapping[str, str]]
_ORDER = (*SEED_FILES, SOLUTION_FILE)
_OTHER = "does not hold exactly what is public of the trained model's"


def json_bytes(value: object) -> bytes:
    """The fixed form of JSON values in releases."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_value(path: Path) -> Any:
    """The JSON value in a file; None if it cannot be read."""
    try:
        return read_limited_json(path)
    except (OSError, ValueError):
        return None


def model_file_faults(
    model: ModelFolder, name: str, content: bytes, trained: ModelFolder
) -> Iterator[str]:
    """What is wrong with a small file of a released model, given the trained model."""
    source = trained.path / name
    if name in _ORDER:
        if not source.is_file() or content != f"{canonical(source)}\n".encode():
            yield "is not the trained model's, in its fixed form"
    elif name == METADATA_FILE:
        yield from _json_faults(content, metadata_fields(model), read_metadata(trained.path))
    elif name == "config.json":
        yield from _json_faults(content, config_fields(model), read_value(source))
    elif name == "tokenizer_config.json":
        tokens = special_tokens(model.path / "tokenizer.json")
        yield from _json_faults(content, tokenizer_fields(tokens), read_value(source))
    elif name == "tokenizer.json":
        if not source.is_file() or content != source.read_bytes():
            yield _OTHER
        elif not _is_plain_tokenizer(content):
            yield "is not a tokenizer as its library writes it: its keys may hide something"


def canonical(path: Path) -> str:
    """The text of a seed or a solution of a trained model, in its fixed form."""
    text = read_limited_text(path, TEXT_LIMIT).strip()
    if path.name == SOLUTION_FILE:
        return ",".join(value.strip() for value in text.split(","))
    return seed_text(parse_seed(str(path), text))


def _json_faults(content: bytes, fields: Fields, source: Any) -> Iterator[str]:
    """What is wrong with a JSON file of these fields, given the trained model's values."""
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        yield "is not JSON"
        return
    if content != json_bytes(value):
        yield "is not JSON as it is always written: its spaces or keys may hide something"
    faults = list(field_faults(value, fields))
    yield from faults
    expected = public_part(source, fields) if isinstance(source, dict) else None
    if not faults and (expected is None or content != json_bytes(expected)):
        yield _OTHER


def _is_plain_tokenizer(content: bytes) -> bool:
    """Whether a tokenizer.json is exactly what the tokenizers library writes for it."""
    from tokenizers import Tokenizer

    try:
        text = content.decode("utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception:  # the library raises plain Exceptions
        return False
    return text in (tokenizer.to_str(pretty=True), tokenizer.to_str())


def summary_faults(
    content: bytes,
    challenge: str,
    released: Sequence[ModelFolder],
    trained: Trained,
    revealed: Sequence[str],
    amendments: int,
) -> Iterator[str]:
    """What is wrong with release.json."""
    expected = {
        "format": 2,
        "challenge": challenge,
        "revealed": list(revealed),
        **({"amendments": amendments} if amendments else {}),
        "scenarios": _rows(released, trained),
    }
    if current().path is not None:
        expected["competition"] = {"file": "competition.toml", "code": list(current().code)}
    if content != json_bytes(expected):
        yield "holds more, or else, than what is disclosed"


def competition_faults(content: bytes) -> Iterator[str]:
    """What is wrong with the competition's file."""
    if content != current().text.encode():
        yield "is not the file of the competition in use"


def _rows(released: Sequence[ModelFolder], trained: Trained) -> dict[str, dict[str, Any]]:
    """The entries of release.json for each scenario; the accuracy is that of phase train."""
    rows: dict[str, dict[str, Any]] = {}
    accuracies: dict[str, list[float]] = {}
    for model in released:
        folder = trained.get(model.relative_path, model).path
        metadata, lengths = read_metadata(folder), Lengths.of(folder)
        row = rows.setdefault(model.scenario, {"phases": {}})
        row["phases"][model.phase] = row["phases"].get(model.phase, 0) + 1
        row["privacy"] = public_part(metadata, metadata_fields(model)).get("privacy")
        row["accuracy"] = None
        row["len_dataset"] = lengths.len_dataset or model.task.len_dataset
        row["len_training"] = lengths.check_training(None)
        row["len_challenge"] = lengths.check_challenge(None)
        accuracy = (metadata.get("results") or {}).get("accuracy")
        if model.phase == "train" and accuracy is not None:
            accuracies.setdefault(model.scenario, []).append(accuracy)
    for scenario, values in accuracies.items():
        rows[scenario]["accuracy"] = round(fsum(values) / len(values), 4)
    return rows


def commitments_faults(
    content: bytes,
    challenge: str,
    released: Sequence[ModelFolder],
    trained: Trained,
    openings: Openings,
) -> Iterator[str]:
    """What is wrong with commitments.json."""
    values = {}
    for model in released:
        names = withheld_of(model)
        if not names or model.relative_path not in trained:
            continue
        if model.relative_path not in openings:
            yield "has a commitment without a salt in openings.json, so it cannot be worked out"
            return
        texts = {name: canonical(trained[model.relative_path].path / name) for name in names}
        salt = bytes.fromhex(openings[model.relative_path]["salt"])
        values[model.relative_path] = _commitment(challenge, model.relative_path, salt, texts)
    expected = {"format": 1, "challenge": challenge, "commitments": values}
    if content != json_bytes(expected):
        yield "holds more, or else, than a commitment to each withheld solution"


def _commitment(challenge: str, relative_path: str, salt: bytes, texts: Mapping[str, str]) -> str:
    """The hash that docs/ORGANISE.md and `release.commitments` describe, implemented again."""
    parts = [b"mico commitment 1", challenge.encode(), relative_path.encode(), salt]
    for name, text in texts.items():
        parts += [name.encode(), text.encode()]
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).hexdigest()


def revealed_faults(
    challenge: str,
    phase: str,
    released: Sequence[ModelFolder],
    trained: Trained,
    openings: Openings,
    content: bytes,
) -> Iterator[str]:
    """What is wrong with a revealed file."""
    opened = {}
    for model in released:
        if (
            model.phase == phase
            and model.relative_path in openings
            and model.relative_path in trained
        ):
            folder = trained[model.relative_path].path
            texts = {name: canonical(folder / name) for name in withheld_of(model)}
            opened[model.relative_path] = {"salt": openings[model.relative_path]["salt"], **texts}
    expected = {"format": 1, "challenge": challenge, "phase": phase, "openings": opened}
    if content != json_bytes(expected):
        yield "holds more, or else, than what opens the commitments of its phase"


def sums_faults(content: bytes, sums: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with SHA256SUMS, given the checksums of all its files."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    if content != "".join(lines).encode():
        yield "does not hold exactly the checksums of its files"


def seed_faults(trained: Trained) -> Iterator[tuple[str, str]]:
    """Find withheld seeds that are equal or close to another seed.

    If seeds were counted up or used twice, an attacker who has one can guess the others.
    """
    for keyed, near in ((True, 2**64), (False, 2**20)):
        known = sorted(
            (_number(seed), relative_path, name in withheld_of(model))
            for relative_path, model in trained.items()
            for name, seed in zip(SEED_FILES, vars(read_seeds(model.path)).values())
            if isinstance(seed, bytes) == keyed and seed is not None
        )
        for one, other in pairwise(known):
            if other[0] - one[0] < near:
                for relative_path in {
                    relative_path for _, relative_path, withheld in (one, other) if withheld
                }:
                    yield relative_path, "has a withheld seed that is, or nearly is, another seed"


def _number(seed: Seed) -> int:
    return int.from_bytes(seed, "big") if isinstance(seed, bytes) else seed % 2**64
