"""The byte patterns by which the leak check recognises withheld secrets.

The secrets of a model are its seeds and solution, as far as the table does not disclose them, and
what follows from them: the lists of members and of other training records.  This module makes
patterns of each in all forms in which software usually writes such values.  A secret is never part
of a message.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mico_competition.competition.challenge import ChallengeDataset, read_seeds
from mico_competition.competition.layout import ModelFolder
from mico_competition.competition.lengths import Lengths, read_metadata
from mico_competition.competition.splits import Seed, seed_text
from mico_competition.competition.table import (
    SCENARIOS,
    SEED_FILES,
    SOLUTION_FILE,
    TASKS,
    disclosed_files,
    get_scenario,
)
from mico_competition.release.leak_check.byte_search import SHORTEST
from mico_competition.support.files import PathLike

_LABELS, _INDICES = 64, 8  # consecutive entries in a pattern of a solution, and of a list
_FEWEST_LABELS = 16  # fewer labels occur by chance
_SHORTEST_NAME = 5
_SEPARATORS = (",", ", ", " ", "\n")
_LABEL_TYPES = ("u1", "<i2", "<i4", "<i8", ">i4", ">i8", "<f4", "<f8")
_INDEX_TYPES = ("<u2", "<i4", "<i8")


@dataclass(frozen=True)
class Secret:
    """A kind of secret (`seed_membership`, `solution.csv`, ...), and its model."""

    what: str
    of: str


Patterns = dict[bytes, Secret]


@dataclass(frozen=True)
class Secrets:
    """The patterns of one model's lists.

    `numbers` are patterns for a text in which everything but digits is replaced by commas.
    """

    lists: Patterns = field(default_factory=dict)
    numbers: Patterns = field(default_factory=dict)


def withheld_of(model: ModelFolder) -> tuple[str, ...]:
    """The seed and solution files of `model` that the table does not disclose."""
    disclosed = disclosed_files(get_scenario(model.scenario), model.phase)
    return tuple(name for name in (*SEED_FILES, SOLUTION_FILE) if name not in disclosed)


def seeds_of(model: ModelFolder) -> Patterns:
    """The patterns of all withheld seeds of a trained model.

    Raises:
        ValueError: if a seed is missing, so that it cannot be searched for.
    """
    found: Patterns = {}
    for name, seed in _hidden_seeds(model).items():
        found.update(dict.fromkeys(_seed_forms(seed), Secret(name, model.relative_path)))
    train_seed = read_metadata(model.path).get("train_seed")
    if isinstance(train_seed, int) and len(str(train_seed)) >= SHORTEST:
        found.update(
            dict.fromkeys(_seed_forms(train_seed), Secret("train_seed", model.relative_path))
        )
    return found


def is_searchable(model: ModelFolder) -> bool:
    """Whether all withheld seeds are long enough that they cannot be guessed."""
    return all(len(seed_text(seed)) >= SHORTEST for seed in _hidden_seeds(model).values())


def _hidden_seeds(model: ModelFolder) -> dict[str, Seed]:
    seeds = dict(zip(SEED_FILES, vars(read_seeds(model.path)).values()))
    for name, seed in seeds.items():
        if seed is None:
            raise ValueError(f"There is no {name} in {model.path}: it cannot be searched for.")
    return {name: seeds[name] for name in withheld_of(model) if name in SEED_FILES}


def secrets_of(model: ModelFolder) -> Secrets:
    """The patterns of the withheld lists of a trained model: labels, members, records.

    Args:
        model: a folder as training wrote it, with all three seeds.
    """
    withheld, points, secrets = withheld_of(model), _points(model), Secrets()
    if SOLUTION_FILE in withheld:
        labels = np.array(points.get_solutions())
        _add_labels(secrets, labels, points.challenge_indices.numpy(), model.relative_path)
        _add_digests(secrets, labels, model.relative_path)
        _add_members(secrets, points, model.relative_path)
    if "seed_training" in withheld:
        _add_training(secrets, points, model.relative_path)
    return secrets


def _points(model: ModelFolder) -> ChallengeDataset:
    """The splits of a trained model, over indices instead of records."""
    lengths = Lengths.of(model.path)
    seeds = read_seeds(model.path)
    return ChallengeDataset(
        range(lengths.len_dataset or model.task.len_dataset),  # type: ignore[arg-type]
        lengths.check_training(None),
        lengths.check_challenge(None),
        seeds.challenge,
        seeds.training,
        seeds.membership,
    )


def machine_paths(trained: PathLike) -> Patterns:
    """The organiser's folders: of the trained models, home, and the current one."""
    trained, secret = Path(trained), Secret("a path of the organiser's machine", "")
    folders = {Path(os.path.abspath(trained)), trained.resolve(), Path.cwd()}
    with suppress(RuntimeError):  # no home, as for an account without a name
        folders.add(Path.home())
    texts = [str(folder).encode() for folder in folders]
    return {text: secret for text in texts if len(text) >= SHORTEST}


def machine_names() -> re.Pattern[bytes] | None:
    """The names of the organiser's account and machine, unless the table contains them."""
    table = f"{TASKS} {SCENARIOS}".lower()
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with suppress(OSError, KeyError):  # no account has this number, as in some containers
        names.add(getpass.getuser())
    telling = [re.escape(n) for n in names if len(n) >= _SHORTEST_NAME and n.lower() not in table]
    if not telling:
        return None
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(telling)})(?![A-Za-z0-9])".encode())


def key_forms(key: bytes) -> Iterator[bytes]:
    """The forms of a key: each half raw and in hexadecimal, in both byte orders; and base64."""
    for half in (key[: len(key) // 2], key[len(key) // 2 :]):
        for part in (half, half[::-1]):
            yield part
            yield part.hex().encode()
            yield part.hex().upper().encode()
    yield from _base64_forms(key)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """The text that `raw` leaves in the base64 of data around it, at each of three alignments."""
    for lead in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(bytes(lead) + raw)
            yield whole[-(-8 * lead // 6) : 8 * (lead + len(raw)) // 6]


def _seed_forms(seed: Seed) -> Iterator[bytes]:
    """A seed as text and as bytes; for a seed of 2022, also the 32 bits that matter."""
    if isinstance(seed, bytes):
        yield from key_forms(seed)
        for order in ("big", "little"):
            yield str(int.from_bytes(seed, order)).encode()
        return
    texts = [str(seed), f"{seed % 2**64:x}", f"{seed % 2**64:X}"]
    yield from (text.encode() for text in texts if len(text) >= SHORTEST)
    if len(str(seed % 2**32)) >= SHORTEST + 1:
        yield str(seed % 2**32).encode()
    if seed % 2**64 >= 2**32:  # half the bytes of a smaller one are zeros, which occur anywhere
        for order in ("big", "little"):
            raw = (seed % 2**64).to_bytes(8, order)  # type: ignore[arg-type]
            yield raw
            yield from _base64_forms(raw)


def _blocks(values: np.ndarray, size: int, stride: int) -> Iterator[np.ndarray]:
    """Runs of `size` entries, one within any `size` + `stride` entries; or all entries."""
    last = max(len(values) - size, 0)
    for start in sorted({*range(0, last + 1, stride), last}):
        yield values[start : start + size]


def _add_labels(
    secrets: Secrets, labels: np.ndarray, indices: np.ndarray, relative_path: str
) -> None:
    """Add runs of labels, plain and inverted, as text, bits, and numbers of several types."""
    if len(labels) < _FEWEST_LABELS:
        return
    secret = Secret(SOLUTION_FILE, relative_path)
    for all_labels in (labels, 1 - labels):
        for run in _blocks(all_labels, _LABELS, _LABELS // 2):
            texts = list(map(str, run.tolist()))
            forms = [*_texts(texts), "".join(texts).encode(), _joined(".0,", texts)]
            forms += [run.astype(kind).tobytes() for kind in _LABEL_TYPES]
            secrets.lists.update(dict.fromkeys(forms, secret))
            secrets.numbers[b"," + _joined(",", texts) + b","] = secret
            secrets.numbers[b"," + _joined(",0,", texts) + b","] = secret
        for order in ("big", "little"):
            packed = np.packbits(all_labels, bitorder=order)[: len(labels) // 8]
            for bits in _blocks(packed, SHORTEST, SHORTEST):
                if len(bits) == SHORTEST:
                    secrets.lists[bits.tobytes()] = secret
        for numbers in (indices, np.arange(len(labels))):
            pairs = np.stack([numbers, all_labels], axis=1)
            for run in _blocks(pairs, 2 * _INDICES, _INDICES):
                text = _joined(",", map(str, run.flatten().tolist()))
                secrets.numbers[b"," + text + b","] = secret


def _add_digests(secrets: Secrets, labels: np.ndarray, relative_path: str) -> None:
    """Add unsalted hashes of a solution, by which an attacker could confirm a guess."""
    if len(labels) < _LABELS:  # so few labels that models may share them
        return
    secret = Secret(f"an unsalted hash of {SOLUTION_FILE}", relative_path)
    text = _joined(",", map(str, labels.tolist()))
    for content in (text, text + b"\n"):
        for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
            digest = hashlib.new(name, content, usedforsecurity=False)
            secrets.lists[digest.hexdigest().encode()] = secret
            secrets.lists[digest.digest()] = secret


def _add_members(secrets: Secrets, points: ChallengeDataset, relative_path: str) -> None:
    """Add the lists of members and of non-members, as indices into dataset and challenge."""
    indices = points.challenge_indices.numpy()
    for who, part in (("members", points.member), ("non-members", points.nonmember)):
        positions = np.array(part.indices)
        ranks = np.sort(positions)
        lists = (positions, ranks, indices[positions], indices[ranks], np.sort(indices[positions]))
        _add_lists(secrets, lists, Secret(f"the list of {who}", relative_path))


def _add_training(secrets: Secrets, points: ChallengeDataset, relative_path: str) -> None:
    """Add the heads of the lists of other training records and of evaluation records."""
    training = points.train_indices[points.len_challenge :].numpy()
    evaluation = points.evaluation_indices.numpy()
    for who, records in (("training records", training), ("evaluation records", evaluation)):
        heads = (records[:_LABELS], np.sort(records)[:_LABELS])
        _add_lists(secrets, heads, Secret(f"the list of {who}", relative_path))


def _add_lists(secrets: Secrets, lists: Iterable[np.ndarray], secret: Secret) -> None:
    for values in lists:
        for run in _blocks(values, _INDICES, _INDICES):
            # Consecutive numbers occur in vocabularies, and reveal little.
            if len(run) < _INDICES or np.ptp(run) < _INDICES + 3:
                continue
            texts = list(map(str, run.tolist()))
            kinds = _INDEX_TYPES if run.max() < 2**16 else _INDEX_TYPES[1:]
            forms = [*_texts(texts), *(run.astype(kind).tobytes() for kind in kinds)]
            secrets.lists.update(dict.fromkeys(forms, secret))
            secrets.numbers[b"," + _joined(",", texts) + b","] = secret


def _texts(texts: list[str]) -> list[bytes]:
    return [_joined(separator, texts) for separator in _SEPARATORS]


def _joined(separator: str, texts: Iterable[str]) -> bytes:
    return separator.join(texts).encode()
