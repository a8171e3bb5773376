"""A fleet's ledger: the models to train and their seeds, written before the first is trained.

    <out>/fleet/<scenario>/settings.json    what all models of the fleet share
                           ledger.jsonl     id, phase, seeds, and train seed or secure mode of each
                           files.jsonl      sizes and hashes of finished models (`finished`)
                           events.jsonl     what happened when
                           failures.log     tracebacks
                           checkpoints/     states of models in training (`training.checkpoint`)
                           running/         how far they are (`running`)
                           tracked/         what TensorBoard plots of them
                           replaced/        models that were trained anew, as they were (`renewal`)
    <out>/<challenge>/<scenario>/<phase>/model_<i>    exists exactly when the model is done

The ledger holds every secret of the competition, so only its owner may read it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mico_competition.competition.challenge import read_seeds
from mico_competition.competition.layout import model_path
from mico_competition.competition.splits import Seeds, draw_seeds, parse_seed, seed_text
from mico_competition.competition.table import (
    PRECISIONS,
    SEED_FILES,
    Scenario,
    current,
    get_scenario,
    phase_of,
    phases_of,
)
from mico_competition.support.files import PRIVATE, PathLike, make_folder, written_aside
from mico_competition.support.untrusted import parse_json, read_limited_json, read_limited_text
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import Settings

CHECKPOINTS, RUNNING = "checkpoints", "running"
_SETTINGS, _LEDGER = "settings.json", "ledger.jsonl"
_LARGEST = 1 << 28


@dataclass(frozen=True)
class Entry:
    """One model of the ledger; `train_seed` is None in secure mode."""

    model_id: int
    seeds: Seeds
    train_seed: int | None = field(repr=False)

    @classmethod
    def draw(cls, model_id: int, *, secure_mode: bool, splits_of_2022: bool) -> Entry:
        """A model with fresh seeds from the operating system."""
        seeds = draw_seeds(scheme_of_2022=splits_of_2022)
        return cls(model_id, seeds, None if secure_mode else secrets.randbits(63))

    def line(self, phase: str) -> str:
        """This entry, of a model of `phase`, as a line of the ledger."""
        seeds = {f"seed_{name}": seed_text(seed) for name, seed in vars(self.seeds).items()}
        return json.dumps(
            {
                "model_id": self.model_id,
                "phase": phase,
                **seeds,
                "train_seed": self.train_seed,
                "secure_mode": self.train_seed is None,
            }
        )

    @classmethod
    def of_line(cls, line: str) -> Entry:
        """Read a line of the ledger; ValueError or KeyError if it is not an entry."""
        row = parse_json(line)
        seeds = Seeds(*(parse_seed(name, row[name]) for name in SEED_FILES))
        if type(row["model_id"]) is not int or type(row["train_seed"]) not in (int, type(None)):
            raise ValueError("model_id or train_seed is not a whole number.")
        return cls(row["model_id"], seeds, row["train_seed"])


@dataclass(frozen=True)
class Ledger:
    """A fleet's models, ordered by id, and what they share.

    The fingerprints (of the dataset, of what the models' code computes, and of how it trains) and
    the noise multiplier make sure that a later run does not continue the fleet with others.  So
    does `stated`, the settings that the scenario's row stated when the fleet was begun; it is None
    in a ledger of an earlier version.
    """

    out: Path
    settings: Settings
    dataset_fingerprint: str
    splits_of_2022: bool
    entries: tuple[Entry, ...] = ()
    architecture_fingerprint: str | None = None
    training_fingerprint: str | None = None
    noise_multiplier: float | None = None
    stated: Mapping[str, Any] | None = None

    @property
    def scenario(self) -> Scenario:
        """The row of the fleet's scenario."""
        assert self.settings.scenario is not None
        return get_scenario(self.settings.scenario)

    @property
    def mechanism(self) -> Mechanism | None:
        """The mechanism of its runs, if the ledger holds their noise."""
        if self.noise_multiplier is None:
            return None
        settings = self.settings
        return Mechanism(self.noise_multiplier, settings.sample_rate, settings.num_steps)

    @property
    def folder(self) -> Path:
        """The folder of the ledger and the fleet's other files."""
        assert self.settings.scenario is not None
        return fleet_folder(self.out, self.settings.scenario)

    def folder_of(self, model_id: int) -> Path:
        """The folder of model `model_id`."""
        return model_path(self.out, self.scenario, self._phase_of(model_id), model_id)

    def _phase_of(self, model_id: int) -> str:
        return phase_of(model_id, self.scenario.challenge).name

    def checkpoint_folder(self, model_id: int) -> Path:
        """The folder of the checkpoint of model `model_id` while it is trained."""
        return self.folder / CHECKPOINTS / f"model_{model_id}"

    def forget_running(self, model_id: int) -> None:
        """Remove the report of a model that is whole, or has failed."""
        (self.folder / RUNNING / f"model_{model_id}.json").unlink(missing_ok=True)
        with suppress(OSError):  # others are there
            (self.folder / RUNNING).rmdir()

    def remove_checkpoint(self, model_id: int) -> None:
        """Remove the checkpoint of a model that is whole."""
        shutil.rmtree(self.checkpoint_folder(model_id), ignore_errors=True)
        with suppress(OSError):  # others are there
            (self.folder / CHECKPOINTS).rmdir()

    def with_models(self, model_ids: Iterable[int]) -> Ledger:
        """This ledger with an entry for each of `model_ids`; existing entries do not change."""
        have = {entry.model_id for entry in self.entries}
        new = [
            Entry.draw(i, secure_mode=self.settings.secure_mode, splits_of_2022=self.splits_of_2022)
            for i in sorted(set(model_ids) - have)
        ]
        entries = sorted((*self.entries, *new), key=lambda entry: entry.model_id)
        return replace(self, entries=tuple(entries))

    def with_new_seeds(self, model_ids: Iterable[int]) -> Ledger:
        """This ledger with new seeds for each of `model_ids`."""
        again = set(model_ids)
        kept = {entry.model_id for entry in self.entries} - again
        return self.only(kept).with_models(again)

    def only(self, model_ids: Iterable[int]) -> Ledger:
        """This ledger without the other models; it must not be written to disk."""
        wanted = set(model_ids)
        return replace(self, entries=tuple(e for e in self.entries if e.model_id in wanted))

    def done(self) -> set[int]:
        """The ids of the models whose folders exist."""
        return {e.model_id for e in self.entries if self.folder_of(e.model_id).is_dir()}

    def check_done(self) -> None:
        """Raise ValueError if a model's folder exists but has other seeds than its entry."""
        for entry in self.entries:
            path = self.folder_of(entry.model_id)
            if path.exists() and not (path.is_dir() and read_seeds(path) == entry.seeds):
                raise ValueError(
                    f"{path} does not have the seeds of the ledger in {self.folder}: it was not "
                    "trained by this fleet. Move it away or choose another --out. If `mico fleet "
                    f"{self.scenario.name} --new_seeds` was stopped, give that command again."
                )

    def write(self) -> None:
        """Write the settings, then the ledger: atomically, synced to disk, private to the owner."""
        make_folder(self.folder, PRIVATE)
        shared = {
            "format": 3,
            "settings": _finite(vars(self.settings)),
            "stated": None if self.stated is None else _finite(self.stated),
            "dataset_fingerprint": self.dataset_fingerprint,
            "architecture_fingerprint": self.architecture_fingerprint,
            "training_fingerprint": self.training_fingerprint,
            "noise_multiplier": self.noise_multiplier,
            "splits_of_2022": self.splits_of_2022,
        }
        _write_private(self.folder / _SETTINGS, json.dumps(shared, indent=2) + "\n")
        lines = "".join(f"{e.line(self._phase_of(e.model_id))}\n" for e in self.entries)
        _write_private(self.folder / _LEDGER, lines)

    @classmethod
    def read(cls, out: PathLike, scenario: str) -> Ledger | None:
        """The ledger of `scenario` in `out`, or None if no fleet was begun there.

        Raises:
            ValueError: if the files are damaged.
        """
        folder = fleet_folder(out, scenario)
        if not (folder / _LEDGER).is_file():
            return None
        try:
            shared = read_limited_json(folder / _SETTINGS)
            lines = read_limited_text(folder / _LEDGER, _LARGEST).splitlines()
            lines = [line for line in lines if line.strip()]
            entries = tuple(dict.fromkeys(Entry.of_line(line) for line in lines))
            stated = shared.get("stated")
            ledger = cls(
                Path(out),
                Settings(**_number(shared["settings"])),
                shared["dataset_fingerprint"],
                shared["splits_of_2022"],
                tuple(sorted(entries, key=lambda entry: entry.model_id)),
                shared["architecture_fingerprint"],
                shared["training_fingerprint"],
                shared["noise_multiplier"],
                None if stated is None else _number(stated),
            )
            phases = dict(_phase_in(line) for line in lines)
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
            raise ValueError(  # a line is never quoted: it holds secrets
                f"{folder} does not hold the settings and ledger of a fleet: restore {_SETTINGS} "
                f"and {_LEDGER}, or choose another --out."
            ) from None
        _refuse_moved(ledger, phases)
        _refuse_twins(ledger)
        return ledger

    def clear_leftovers(self) -> None:
        """Remove what a killed run left but nobody needs; call it only while no other run works."""
        folders = {self.folder_of(entry.model_id).parent for entry in self.entries}
        for folder in folders:
            for path in folder.glob(".model_*"):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        for model_id in self.done():
            self.remove_checkpoint(model_id)
        for path in (self.folder / RUNNING).glob(".*"):
            path.unlink(missing_ok=True)
        for entry in self.entries:  # what goes on is shown until it reports again
            if not self.checkpoint_folder(entry.model_id).is_dir():
                self.forget_running(entry.model_id)


def append_line(path: Path, line: str) -> None:
    """Append a line to a private file, after the torn line that a killed process may have left."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        torn = end and file.read(1) != b"\n"
        file.write(f"{chr(10) if torn else ''}{line}\n".encode())


def _refuse_twins(ledger: Ledger) -> None:
    """Raise ValueError if two entries have the same id or the same seeds."""
    for what in ("model_id", "seeds"):
        seen: dict[Any, Entry] = {}
        for entry in ledger.entries:
            other = seen.setdefault(getattr(entry, what), entry)
            if other is not entry:
                both = f"model_{other.model_id} and model_{entry.model_id} with the same seeds"
                raise ValueError(
                    f"{ledger.folder / _LEDGER} holds "
                    f"{both if what == 'seeds' else f'model_{entry.model_id} twice'}: restore it, "
                    "or remove the line that does not match the model's folder."
                )


def _refuse_moved(ledger: Ledger, phases: Mapping[int, str]) -> None:
    """Raise ValueError if a model is not in the phase, by id, that it was drawn for."""
    known = phases_of(ledger.scenario.challenge)
    for model_id, phase in phases.items():
        now = next((p.name for p in known.values() if model_id in p.model_ids), None)
        if now != phase:
            raise ValueError(
                f"{ledger.folder / _LEDGER} has model_{model_id} in phase {phase}, and "
                f"{current().path or 'the table'} now has it in {now or 'none'}: put the range of "
                f"the phase back, restore {_SETTINGS} and {_LEDGER}, or choose another --out."
            )


def _phase_in(line: str) -> tuple[int, str]:
    """The id and the phase in a line of the ledger."""
    row = parse_json(line)
    return row["model_id"], row["phase"]


def _finite(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for JSON, which has no infinity: the target epsilon becomes text."""
    return {**settings, "target_epsilon": str(settings["target_epsilon"])}


def _number(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `_finite` was given; fleets of earlier versions are of float32."""
    epsilon = float(settings["target_epsilon"])
    return {"precision": PRECISIONS[0], **settings, "target_epsilon": epsilon}


def fleet_folder(out: PathLike, scenario: str) -> Path:
    """The folder below `out` that holds the ledger of a fleet of `scenario`."""
    return Path(out) / "fleet" / scenario


def fleets_in(out: PathLike) -> list[str]:
    """The scenarios for which a fleet was begun in `out`, sorted."""
    return sorted(path.parent.name for path in Path(out).glob(f"fleet/*/{_LEDGER}"))


def _write_private(path: Path, text: str) -> None:
    with written_aside(path, durable=True, access=PRIVATE) as aside:
        aside.write_text(text, encoding="utf-8")
