"""Whether the files above the models hold what they must and no more: worked out anew, compared.

`release.json` from the trained models' metadata, commitments by their form, checksums from the
files themselves: a field that holds something else may hold a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import Any

from mico_competition.challenge import read_seeds
from mico_competition.layout import ModelFolder
from mico_competition.lengths import Lengths, read_metadata
from mico_competition.releases.leak_patterns import withheld_of
from mico_competition.splits import Seed
from mico_competition.tracks import SEED_FILES

_DIGEST = re.compile(r"[0-9a-f]{64}")


def summary_faults(
    path: Path, challenge: str, released: Sequence[ModelFolder], trained: Mapping[str, ModelFolder]
) -> Iterator[str]:
    """What is wrong with release.json at `path`; `trained` are the trained models by place."""
    expected = {"format": 1, "challenge": challenge, "scenarios": _rows(released, trained)}
    if not _agree(read_value(path), expected):
        yield "holds more, or else, than what is disclosed"


def commitments_faults(
    path: Path, challenge: str, released: Sequence[ModelFolder], trained: Mapping[str, ModelFolder]
) -> Iterator[str]:
    """What is wrong with commitments.json at `path`, beside the commitments' values."""
    found = read_value(path)
    places = {m.place for m in released if withheld_of(trained.get(m.place, m))}
    values = found.pop("commitments", None) if isinstance(found, dict) else None
    if not (
        found == {"format": 1, "challenge": challenge}
        and isinstance(values, dict)
        and values.keys() == places
        and all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in values.values())
    ):
        yield "holds more, or else, than a commitment to each withheld solution"


def sums_faults(path: Path, sums: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with SHA256SUMS at `path`; `sums` are those of all files beside and below."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    if path.read_bytes() != "".join(lines).encode():
        yield "does not hold exactly the checksums of the files beside it"


def seed_faults(trained: Mapping[str, ModelFolder]) -> Iterator[tuple[str, str]]:
    """Withheld seeds that need no leak: (place, sentence) where one is near any other seed.

    Seeds that were counted up, or used twice, are found by whoever has one of them.
    """
    for keyed, near in ((True, 2**64), (False, 2**20)):
        known = sorted(
            (_number(seed), place, name in withheld_of(model))
            for place, model in trained.items()
            for name, seed in zip(SEED_FILES, vars(read_seeds(model.path)).values())
            if isinstance(seed, bytes) == keyed and seed is not None
        )
        for one, other in pairwise(known):
            if other[0] - one[0] < near:
                for place in {place for _, place, withheld in (one, other) if withheld}:
                    yield place, "has a withheld seed that is, or nearly is, another seed"


def _number(seed: Seed) -> int:
    return int.from_bytes(seed, "big") if isinstance(seed, bytes) else seed % 2**64


def read_value(path: Path) -> Any:
    """The JSON value in a file, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _rows(
    released: Sequence[ModelFolder], trained: Mapping[str, ModelFolder]
) -> dict[str, dict[str, Any]]:
    """What release.json must say of each scenario; accuracy is that of phase train alone."""
    rows: dict[str, dict[str, Any]] = {}
    accuracies: dict[str, list[float]] = {}
    for model in released:
        folder = trained.get(model.place, model).path
        metadata, lengths = read_metadata(folder), Lengths.of(folder)
        row = rows.setdefault(model.scenario, {"phases": {}, "accuracy": None})
        row["phases"][model.phase] = row["phases"].get(model.phase, 0) + 1
        row["privacy"] = read_metadata(model.path).get("privacy")
        row["len_dataset"] = lengths.len_dataset or model.task.len_dataset
        row["len_training"] = lengths.check_training(None)
        row["len_challenge"] = lengths.check_challenge(None)
        accuracy = (metadata.get("results") or {}).get("accuracy")
        if model.phase == "train" and accuracy is not None:
            accuracies.setdefault(model.scenario, []).append(accuracy)
    for scenario, values in accuracies.items():
        rows[scenario]["accuracy"] = sum(values) / len(values)
    return rows


def _agree(found: Any, expected: Any) -> bool:
    """Whether two JSON values are the same, but for rounding."""
    if isinstance(expected, dict):
        same = isinstance(found, dict) and found.keys() == expected.keys()
        return same and all(_agree(found[key], value) for key, value in expected.items())
    if isinstance(expected, float) and isinstance(found, float):
        return isclose(found, expected, rel_tol=1e-12)
    return type(found) is type(expected) and found == expected
