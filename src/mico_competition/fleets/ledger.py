"""What a fleet has set out to train: one line a model, written before the first one trains.

    <out>/fleet/<scenario>/settings.json    what every model of the fleet shares
                           ledger.jsonl     id, phase, seeds, and train seed or secure mode of each
                           files.jsonl      sizes and hashes of finished models (`finished`)
                           events.jsonl     what happened when; failures.log: with tracebacks
    <out>/<challenge>/<scenario>/<phase>/model_<i>    is there exactly when the model is done

The ledger holds every secret of the competition, so only its owner may read it.  Nothing is
trained here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import Seeds, draw_seeds, parse_seed, seed_text
from mico_competition.competition.table import SEED_FILES, get_scenario, phase_of
from mico_competition.support.files import PRIVATE, PathLike, make_folder, written_aside
from mico_competition.support.untrusted import parse_json, read_limited_json, read_limited_text
from mico_competition.training.settings import Settings

_SETTINGS, _LEDGER = "settings.json", "ledger.jsonl"
_LARGEST = 1 << 28


@dataclass(frozen=True)
class Entry:
    """One model that is to be trained; `train_seed` is None in secure mode."""

    model_id: int
    seeds: Seeds
    train_seed: int | None = field(repr=False)

    @classmethod
    def draw(cls, model_id: int, *, secure_mode: bool, splits_of_2022: bool) -> Entry:
        """A model with fresh seeds from the operating system."""
        seeds = draw_seeds(scheme_of_2022=splits_of_2022)
        return cls(model_id, seeds, None if secure_mode else secrets.randbits(63))

    def line(self) -> str:
        """This entry as a line of the ledger."""
        seeds = {f"seed_{name}": seed_text(seed) for name, seed in vars(self.seeds).items()}
        return json.dumps(
            {
                "model_id": self.model_id,
                "phase": phase_of(self.model_id).name,
                **seeds,
                "train_seed": self.train_seed,
                "secure_mode": self.train_seed is None,
            }
        )

    @classmethod
    def of_line(cls, line: str) -> Entry:
        """The entry in a line of the ledger; ValueError or KeyError if it holds none."""
        row = parse_json(line)
        seeds = Seeds(*(parse_seed(name, row[name]) for name in SEED_FILES))
        phase_of(row["model_id"])
        if type(row["model_id"]) is not int or type(row["train_seed"]) not in (int, type(None)):
            raise ValueError("model_id or train_seed is no whole number.")
        return cls(row["model_id"], seeds, row["train_seed"])


@dataclass(frozen=True)
class Ledger:
    """A fleet's models, ordered by id, and what they share.

    The fingerprints are of the dataset, of what the models' code computes and of how it trains, so
    that no second run goes on with others; so is the noise of private training.  In ledgers of
    earlier versions training_fingerprint is None.
    """

    out: Path
    settings: Settings
    dataset_fingerprint: str
    splits_of_2022: bool
    entries: tuple[Entry, ...] = ()
    architecture_fingerprint: str | None = None
    training_fingerprint: str | None = None
    noise_multiplier: float | None = None

    @property
    def folder(self) -> Path:
        """Where the fleet keeps its own files."""
        assert self.settings.scenario is not None
        return fleet_folder(self.out, self.settings.scenario)

    def place(self, model_id: int) -> Path:
        """The folder of model `model_id`."""
        assert self.settings.scenario is not None
        scenario = get_scenario(self.settings.scenario)
        return model_path(self.out, scenario, phase_of(model_id).name, model_id)

    def with_models(self, model_ids: Iterable[int]) -> Ledger:
        """This ledger with a line for each of `model_ids`; lines it has stay as they are."""
        have = {entry.model_id for entry in self.entries}
        new = [
            Entry.draw(i, secure_mode=self.settings.secure_mode, splits_of_2022=self.splits_of_2022)
            for i in sorted(set(model_ids) - have)
        ]
        entries = sorted((*self.entries, *new), key=lambda entry: entry.model_id)
        return replace(self, entries=tuple(entries))

    def only(self, model_ids: Iterable[int]) -> Ledger:
        """This ledger without the other models; not to be written."""
        wanted = set(model_ids)
        return replace(self, entries=tuple(e for e in self.entries if e.model_id in wanted))

    def done(self) -> set[int]:
        """Ids of the models whose folders are there."""
        return {e.model_id for e in self.entries if self.place(e.model_id).is_dir()}

    def check_done(self) -> None:
        """ValueError naming a folder that stands in a model's place and is not that model."""
        for entry in self.entries:
            place = self.place(entry.model_id)
            if place.exists() and not (place.is_dir() and read_seeds(place) == entry.seeds):
                raise ValueError(
                    f"{place} does not have the seeds of the ledger in {self.folder}: it was not "
                    "trained by this fleet. Move it away or choose another --out."
                )

    def write(self) -> None:
        """Write settings, then the ledger; each whole, on the disk itself, its owner's alone."""
        make_folder(self.folder, PRIVATE)
        shared = {
            "format": 3,
            "settings": {
                **vars(self.settings),
                "target_epsilon": str(self.settings.target_epsilon),
            },
            "dataset_fingerprint": self.dataset_fingerprint,
            "architecture_fingerprint": self.architecture_fingerprint,
            "training_fingerprint": self.training_fingerprint,
            "noise_multiplier": self.noise_multiplier,
            "splits_of_2022": self.splits_of_2022,
        }
        _write_private(self.folder / _SETTINGS, json.dumps(shared, indent=2) + "\n")
        lines = "".join(f"{entry.line()}\n" for entry in self.entries)
        _write_private(self.folder / _LEDGER, lines)

    @classmethod
    def read(cls, out: PathLike, scenario: str) -> Ledger | None:
        """The ledger of `scenario` in `out`, or None if no fleet was begun there.

        Raises:
            ValueError: if the files hold something else.
        """
        folder = fleet_folder(out, scenario)
        if not (folder / _LEDGER).is_file():
            return None
        try:
            shared = read_limited_json(folder / _SETTINGS)
            values = shared["settings"]
            values["target_epsilon"] = float(values["target_epsilon"])
            lines = read_limited_text(folder / _LEDGER, _LARGEST).splitlines()
            entries = tuple(dict.fromkeys(Entry.of_line(line) for line in lines if line.strip()))
            ledger = cls(
                Path(out),
                Settings(**values),
                shared["data_sha256" if shared["format"] == 1 else "dataset_fingerprint"],
                shared["splits_of_2022"],
                tuple(sorted(entries, key=lambda entry: entry.model_id)),
                shared.get("architecture_fingerprint"),
                shared["training_fingerprint"] if shared["format"] >= 3 else None,
                shared.get("noise_multiplier"),
            )
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
            raise ValueError(  # a line is never quoted: it holds secrets
                f"{folder} does not hold the settings and ledger of a fleet: restore {_SETTINGS} "
                f"and {_LEDGER}, or choose another --out."
            ) from None
        _refuse_twins(ledger)
        return ledger

    def clear_leftovers(self) -> None:
        """Remove what a killed run was writing when it died; only while no other run is at work."""
        folders = {self.place(entry.model_id).parent for entry in self.entries}
        for folder in folders:
            for path in folder.glob(".model_*"):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a private file, below what a kill may have left of another line."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        torn = end and file.read(1) != b"\n"
        file.write(f"{chr(10) if torn else ''}{line}\n".encode())


def _refuse_twins(ledger: Ledger) -> None:
    """ValueError for a model with two sets of seeds, or seeds with two models."""
    for what in ("model_id", "seeds"):
        seen: dict[Any, Entry] = {}
        for entry in ledger.entries:
            other = seen.setdefault(getattr(entry, what), entry)
            if other is not entry:
                both = f"model_{other.model_id} and model_{entry.model_id} with the same seeds"
                raise ValueError(
                    f"{ledger.folder / _LEDGER} holds "
                    f"{both if what == 'seeds' else f'model_{entry.model_id} twice'}: restore it, "
                    "or take out the line that is not of the model's folder."
                )


def fleet_folder(out: PathLike, scenario: str) -> Path:
    """Where a fleet of `scenario` keeps its own files below `out`."""
    return Path(out) / "fleet" / scenario


def fleets_in(out: PathLike) -> list[str]:
    """Scenarios that a fleet was begun for in `out`, sorted."""
    return sorted(path.parent.name for path in Path(out).glob(f"fleet/*/{_LEDGER}"))


def _write_private(path: Path, text: str) -> None:
    with written_aside(path, durable=True, access=PRIVATE) as aside:
        aside.write_text(text, encoding="utf-8")
