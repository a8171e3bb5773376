"""Checks that parts of fleets, trained in several places, fit together, and lists all faults.

No message quotes a seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.lengths import read_metadata
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import get_task
from mico_competition.fleets.continuing import check_stated
from mico_competition.fleets.finished import (
    Stated,
    damage,
    files_in,
    hashes,
    recorded_files,
)
from mico_competition.fleets.ledger import Entry, Ledger
from mico_competition.support.counts import ids_text
from mico_competition.training.settings import Settings, comparable

# What a fleet's models share beside its settings -> what a message calls it.
_SHARED = {
    "dataset_fingerprint": "the dataset, or the way in which its records are prepared,",
    "architecture_fingerprint": "what the model's code, or its tokenizer, computes",
    "training_fingerprint": "what the training code computes",
    "noise_multiplier": "the noise multiplier",
    "splits_of_2022": "the scheme of the seeds (--splits_of_2022)",
}
_AGAIN = "train one of them again as the other was trained"


@dataclass(frozen=True)
class Part:
    """The models of one scenario in one of the folders, and the files of those that are finished.

    Attributes:
        ledger: the ledger in the folder.
        files: size, time and SHA-256 of the files of each finished model, by id.
    """

    ledger: Ledger
    files: Mapping[int, Stated]

    @property
    def folder(self) -> Path:
        """The folder that was given as --out when the part was trained."""
        return self.ledger.out

    @property
    def entries(self) -> dict[int, Entry]:
        """The entries of the ledger by model id."""
        return {entry.model_id: entry for entry in self.ledger.entries}

    @classmethod
    def read(
        cls, folder: Path, scenario: str, seen: Callable[[], object]
    ) -> tuple[Part | None, list[str]]:
        """Read a part, hash all of its files, and list the faults of its models.

        `seen` is called after each finished model.
        """
        try:
            ledger = Ledger.read(folder, scenario)
            assert ledger is not None  # its folder has one
            check_stated(ledger)
            damaged = damage(ledger, verify=True, seen=seen)
        except (ValueError, OSError) as error:
            return None, [f"{error}"]
        recorded, faults = recorded_files(ledger), []
        files = {}
        for entry in ledger.entries:
            model_id = entry.model_id
            where = ledger.folder_of(model_id)
            if not where.is_dir():
                continue
            fault = damaged.get(model_id) or _contradiction(ledger, entry)
            files[model_id] = recorded[model_id] if model_id in recorded else files_in(where)
            if fault is None and any(_leads_outside(name) for name in files[model_id]):
                fault = "its line in files.jsonl holds a name that is no plain path below it"
            if fault is not None:
                faults.append(
                    f"{where}: {fault.rstrip('.')}. Put back a copy of the folder, or move it "
                    "away: the merged fleet then trains the model."
                )
        for where in _outside_ledger(ledger):
            faults.append(
                f"{where} is not in the ledger, so no merged fleet would hold it: put back the "
                "line of ledger.jsonl, or move the folder away."
            )
        return cls(ledger, files), faults


def faults_between(parts: Sequence[Part]) -> list[str]:
    """What keeps the parts of one scenario from being one fleet, in sentences."""
    first, *others = parts
    faults = [fault for other in others for fault in _differences(first, other)]
    for one, other in combinations(parts, 2):
        faults += _clashes(one, other)
    return faults + list(_copies(parts))


def shared_seeds(parts: Iterable[Part]) -> Iterator[str]:
    """Sentences on models that share a seed, of all scenarios."""
    first: dict[Any, str] = {}
    pairs: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        for entry in part.ledger.entries:
            name = f"{part.ledger.settings.scenario}/model_{entry.model_id}"
            seeds = {f"seed_{kind}": seed for kind, seed in vars(entry.seeds).items()}
            for kind, seed in {**seeds, "train_seed": entry.train_seed}.items():
                key = (kind == "train_seed", seed)
                other = name if seed is None else first.setdefault(key, name)
                if other != name and kind not in pairs.setdefault((other, name), []):
                    pairs[other, name].append(kind)
    for (one, other), kinds in pairs.items():
        yield (
            f"{one} and {other} have the same {', '.join(kinds)}: whoever learns the members of "
            "one learns those of the other. Remove one from its ledger.jsonl, move its folder "
            "away, and train it again with fresh seeds."
        )


def _leads_outside(name: str) -> bool:
    """Whether a name is not the plain path of a file below a model's folder."""
    path = PurePosixPath(name)
    plain = str(path) == name and all(len(os.fsencode(part)) < 256 for part in path.parts)
    return path.is_absolute() or ".." in path.parts or not plain


def _outside_ledger(ledger: Ledger) -> list[Path]:
    """The folders of models that the ledger does not name, sorted."""
    known = {ledger.folder_of(entry.model_id) for entry in ledger.entries}
    below = ledger.out / ledger.scenario.challenge / ledger.scenario.name
    return sorted(path for path in below.glob("*/model_*") if path.is_dir() and path not in known)


def _contradiction(ledger: Ledger, entry: Entry) -> str | None:
    """How the files of a finished model contradict its entry or the ledger, if they do."""
    folder, settings = ledger.folder_of(entry.model_id), ledger.settings
    try:
        if read_seeds(folder) != entry.seeds:
            return "it does not have the seeds of the ledger: another run trained it"
        read_solution(folder, count=2 * settings.len_challenge)
        metadata = read_metadata(folder)
    except ValueError as error:
        return str(error)
    expected: dict[str, Any] = {
        "model_id": entry.model_id,
        "train_seed": entry.train_seed,
        "scenario": settings.scenario,
        "settings": comparable(settings.public()),
        "noise_multiplier": ledger.noise_multiplier,
        "dataset_fingerprint": ledger.dataset_fingerprint,
        "architecture_fingerprint": ledger.architecture_fingerprint,
    }
    privacy = metadata.get("privacy") or {}
    found = {**metadata, "noise_multiplier": privacy.get("noise_multiplier")}
    found["settings"] = comparable(metadata.get("settings") or {})
    wrong = [name for name, value in expected.items() if found.get(name) != value]
    if wrong:
        return f"its metadata.json does not state the {', '.join(wrong)} of the ledger"
    return None


def _differences(one: Part, other: Part) -> Iterator[str]:
    """What the models of two parts do not share, in sentences."""
    both = f"{one.folder} and {other.folder}"
    for name, values in _unequal(one.ledger.settings, other.ledger.settings):
        shown = "" if name == "train_seed" else f" ({values[0]} and {values[1]})"  # a secret
        yield f"{both} were trained with different --{name}{shown}: {_AGAIN}."
    for name, what in _SHARED.items():
        mine, yours = getattr(one.ledger, name), getattr(other.ledger, name)
        if mine != yours:
            shown = "" if name.endswith("fingerprint") else f" ({mine} and {yours})"
            yield f"{both} differ in {what}{shown}: {_AGAIN}."
    ours, theirs = one.ledger.stated, other.ledger.stated
    if ours is not None and theirs is not None and ours != theirs:
        names = ", ".join(name for name in ours if ours[name] != theirs.get(name))
        yield f"{both} were begun with different rows of the scenario ({names}): {_AGAIN}."


def _unequal(one: Settings, other: Settings) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The settings in which two parts differ, and both values."""
    ours, theirs = comparable(vars(one)), comparable(vars(other))
    for name in ours:
        if ours[name] != theirs[name]:
            yield name, (ours[name], theirs[name])


def _clashes(one: Part, other: Part) -> list[str]:
    """Sentences on ids that both parts have, with other seeds or other files."""
    ours, theirs, faults = one.entries, other.entries, []
    both = sorted(ours.keys() & theirs.keys())
    seeds = [i for i in both if ours[i] != theirs[i]]
    if seeds:
        faults.append(
            f"{one.folder} and {other.folder} both have model_{ids_text(seeds)}, with other "
            "seeds: an id belongs to one part. Remove these lines from one ledger.jsonl, and move "
            "their folders away."
        )
    finished = [i for i in both if i in one.files and i in other.files and i not in seeds]
    bytes_ = [i for i in finished if hashes(one.files[i]) != hashes(other.files[i])]
    if bytes_:
        faults.append(
            f"{one.folder} and {other.folder} both hold model_{ids_text(bytes_)}, with the same "
            "seeds and other files: keep one, and move the folders of the other away."
        )
    return faults


def _copies(parts: Sequence[Part]) -> Iterator[str]:
    """Sentences on models of other ids that have the same weights."""
    weights = get_task(parts[0].ledger.settings.task).weights[-1].split("|")
    first: dict[str, tuple[int, Path]] = {}
    for part in parts:
        for model_id, files in part.files.items():
            digest = next((files[name]["sha256"] for name in weights if name in files), None)
            if digest is None:
                continue
            other, folder = first.setdefault(digest, (model_id, part.folder))
            if other != model_id:
                yield (
                    f"model_{other} in {folder} and model_{model_id} in {part.folder} have the "
                    "same weights: one of them is a copy. Move its folder away: the merged fleet "
                    "then trains the model."
                )
