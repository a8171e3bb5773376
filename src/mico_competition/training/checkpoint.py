"""Checkpoints of a run in progress: a private folder from which a killed run goes on.

The folder holds checkpoint.json (which run it is, and how far), the state in a file that
checkpoint.json names with its SHA-256, and a lock file, so that two processes never go on from the
same state at the same time.  Nothing is written before the first checkpoint is due.

Whoever reads a checkpoint learns the seeds, the batches to come and the noise: it is as secret as
the training set.  Only its owner can read it, and it is removed when the model is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from mico_competition.competition.splits import Seeds, parse_seed, seed_text
from mico_competition.competition.table import PRECISIONS
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.support.locks import lock_file
from mico_competition.support.stopping import under_way
from mico_competition.support.untrusted import read_limited_json
from mico_competition.training.accounting import Mechanism
from mico_competition.training.model_folder import software_versions
from mico_competition.training.random_numbers import undisturbed
from mico_competition.training.settings import Settings

MINUTES = 15.0  # between two checkpoints; a run that is shorter writes none

_ABOUT, _LOCK = "checkpoint.json", "lock"
_STATE = re.compile(r"state_[0-9]+\.pt")
_LOOK_SECONDS = 0.2  # between two tries to get the lock

# What a message calls a fact; of other facts it gives the two values, and of seeds nothing.
_WORDS = {
    "seeds": "other split seeds",
    "train_seed": "another train_seed",
    "dataset_fingerprint": "another dataset",
    "architecture_fingerprint": "code whose model computes something else",
    "training_fingerprint": "code that trains in another way",
}

_log = logging.getLogger(__name__)


class BusyError(ValueError):
    """Another process is training the model."""


@dataclass(frozen=True)
class Checkpoint:
    """Where the checkpoints of one model are kept, and how often they are written.

    Attributes:
        folder: the folder of the checkpoint, on a disk that a later try sees too.
        minutes: the time between two checkpoints, > 0; 0 writes none, and refuses to begin anew
            where there is one.
        code: the `training_fingerprint` of the run, or what computes it when it is needed.
        keep: whether somebody else removes the folder when the model is whole.
        wait_seconds: how long to wait for another process that trains the model.
    """

    folder: Path
    minutes: float = MINUTES
    code: str | Callable[[], str] | None = None
    keep: bool = False
    wait_seconds: float = 0.0

    @classmethod
    def beside(cls, model_folder: PathLike, **options: Any) -> Checkpoint:
        """The checkpoint of a model that is trained by itself."""
        folder = Path(model_folder).absolute()
        return cls(folder.parent / f".checkpoint-{folder.name}", **options)

    def seeds(self) -> Seeds | None:
        """The split seeds of the run that the checkpoint is of; None if there is no checkpoint."""
        try:
            texts = read_limited_json(self.folder / _ABOUT)["facts"]["seeds"]
            return Seeds(*(parse_seed("seeds", text) for text in texts))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Remove the checkpoint of a model that is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def opened(
    checkpoint: Checkpoint | None, facts: Callable[[], Mapping[str, Any]]
) -> Iterator[OpenCheckpoint | None]:
    """Go on from the checkpoint in this block, if there is one, and write further ones.

    Args:
        checkpoint: where; None yields None.
        facts: what must be the same for a run to go on; see `facts_of`.

    Raises:
        BusyError: if another process has the checkpoint.
        ValueError: if the checkpoint is of another run.
    """
    if checkpoint is None:
        yield None
        return
    run = OpenCheckpoint(checkpoint, facts)
    try:
        run.read()
        with under_way(run.is_long):
            yield run
    finally:
        run.close()


def facts_of(
    settings: Settings,
    seeds: Seeds,
    device: torch.device,
    fingerprints: Mapping[str, str | None],
    mechanism: Mechanism | None,
) -> dict[str, Any]:
    """What must be the same for a run to go on: settings, seeds, data, software and noise."""
    hidden = ("max_evaluation_records", "cuda_graphs")  # which change no weight
    return {
        "format": 1,
        "seeds": [seed_text(seed) for seed in vars(seeds).values()],
        **{name: value for name, value in vars(settings).items() if name not in hidden},
        **fingerprints,
        "device": device.type,
        "noise_multiplier": None if mechanism is None else mechanism.noise_multiplier,
        **{f"the version of {name}": value for name, value in software_versions().items()},
    }


class OpenCheckpoint:
    """The checkpoint of a run that is under way.

    Attributes:
        folder: where it is.
        state: the state to go on from; None for a run that begins.
        steps: the number of steps that were taken before that state; 0 for a run that begins.
        seconds: the time that was spent on it before.
        resumed: how often the run was resumed, this time included.
        part: the finished fraction of its steps.
    """

    def __init__(self, place: Checkpoint, facts: Callable[[], Mapping[str, Any]]) -> None:
        self._place, self._find_facts = place, facts
        self.folder = place.folder
        self._facts: dict[str, Any] | None = None
        self._lock: IO[str] | None = None
        self._seconds_between = 60 * place.minutes if place.minutes else math.inf
        self._number, self.steps = 0, 0
        self.state: dict[str, Any] | None = None
        self.seconds, self.resumed, self.part = 0.0, 0, 0.0
        self._begin_now(models=1)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of this run, as JSON gives them back."""
        if self._facts is None:
            code = self._place.code
            if callable(code):
                with undisturbed():  # it may be called between two steps
                    code = code()
            facts = {**self._find_facts(), "training_fingerprint": code}
            self._facts = json.loads(json.dumps(facts))
        assert self._facts is not None
        return self._facts

    def read(self) -> None:
        """Lock and read the checkpoint, if there is one; see `opened`."""
        if not self.folder.is_dir():
            return
        self._take_lock()
        if not (self.folder / _ABOUT).exists():
            return  # killed while it wrote the first one
        if not self._place.minutes:
            raise ValueError(
                f"There is a checkpoint of this model in {self.folder}: leave "
                "--checkpoint_minutes 0 out to go on from it, or remove the folder to train the "
                "model anew."
            )
        try:
            about = read_limited_json(self.folder / _ABOUT)
            # Runs of earlier versions were in float32.
            there = {"precision": PRECISIONS[0], **about["facts"]}
            number, steps = int(about["number"]), int(about["steps"])
        except (ValueError, KeyError, TypeError):
            self._warn_of_damage()
            return
        self._number = number
        self._compare(there)
        try:
            seconds, resumed = float(about["seconds"]), int(about["resumed"]) + 1
            self.state = _read_state(self.folder / str(about["state"]), about["sha256"])
        except Exception:  # torch has many errors for a damaged file
            self._warn_of_damage()
            return
        self.steps, self.seconds, self.resumed = steps, seconds, resumed

    def _take_lock(self) -> None:
        deadline = time.monotonic() + self._place.wait_seconds
        while (lock := lock_file(self.folder / _LOCK)) is None:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"Another process is training the model whose checkpoint is in "
                    f"{self.folder}: wait for it, or stop it."
                )
            time.sleep(_LOOK_SECONDS)
        self._lock = lock

    def _warn_of_damage(self) -> None:
        _log.warning(
            "The checkpoint in %s is damaged, so the model is trained from its first step.",
            self.folder,
        )

    def _compare(self, there: dict[str, Any]) -> None:
        """Raise ValueError, naming the fact, if the checkpoint is of another run."""
        for name, value in self.facts.items():
            if name in there and there[name] == value:
                continue
            was = _WORDS.get(name, f"{name}={there.get(name)!r}")
            now = "" if name in _WORDS else f", and this one has {name}={value!r}"
            raise ValueError(
                f"{self.folder} holds the checkpoint of a run with {was}{now}: go on with "
                "what that run had, or remove the folder to train the model anew."
            )

    def begin(self, models: int = 1) -> dict[str, Any] | None:
        """Called when training begins: give the state to go on from, and hold it no longer.

        Args:
            models: how many are trained together, and share the time.
        """
        self._begin_now(models)
        state, self.state = self.state, None
        return state

    def _begin_now(self, models: int) -> None:
        self._started, self._models = time.monotonic(), models
        self._due = self._started + self._seconds_between

    def tell(self, steps: int) -> None:
        """Say that the run goes on from a step."""
        _log.warning("Going on from step %d, of which %s has a checkpoint.", steps, self.folder)

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints: not if it was told not to, or another does."""
        return math.isfinite(self._seconds_between)

    def is_long(self) -> bool:
        """Whether the run has a checkpoint, or takes so long at its pace that it will have one."""
        if self._number:
            return True
        seconds = time.monotonic() - self._started
        return bool(self.part) and seconds / self.part >= self._seconds_between

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() >= self._due

    def write(self, state: Mapping[str, Any], steps: int) -> bool:
        """Write the state after `steps` steps; training goes on if that fails, with a warning.

        Returns:
            Whether it was written.
        """
        written = False
        try:
            if self._lock is None:
                self._take_lock()
            self._write(state, steps)
            written = True
        except BusyError as error:
            _log.warning("%s This process writes no checkpoints.", error)
            self._seconds_between = math.inf
        except (OSError, RuntimeError) as error:  # torch raises the latter when the disk is full
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            _log.warning("A checkpoint could not be written to %s (%s).", self.folder, reason)
        self._due = time.monotonic() + self._seconds_between
        return written

    def _write(self, state: Mapping[str, Any], steps: int) -> None:
        number = self._number + 1
        name = f"state_{number}.pt"
        with written_aside(self.folder / name, durable=True, access=PRIVATE) as aside:
            torch.save(dict(state), aside)
            digest = _sha256(aside)
        about = {
            "number": number,
            "state": name,
            "sha256": digest,
            "steps": steps,
            "seconds": round(self.seconds + (time.monotonic() - self._started) / self._models, 3),
            "resumed": self.resumed,
            "facts": self.facts,
        }
        with written_aside(self.folder / _ABOUT, durable=True, access=PRIVATE) as aside:
            aside.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        self._number = number
        for path in self.folder.iterdir():
            if _STATE.fullmatch(path.name) and path.name != name:
                path.unlink(missing_ok=True)

    def done(self) -> None:
        """Called when the model is whole: remove the checkpoint."""
        if self._lock is not None and not self._place.keep:
            self._place.remove()

    def drop(self, models: Sequence[int]) -> None:
        """Remove the checkpoint of a run that cannot succeed; `models` is [0], itself."""
        if self._lock is not None:
            self._place.remove()

    def close(self) -> None:
        """Release the lock; a folder without a checkpoint is removed first."""
        if self._lock is None:
            return
        if not (self.folder / _ABOUT).exists():
            with suppress(OSError):
                (self.folder / _LOCK).unlink()
                self.folder.rmdir()
        self._lock.close()


def _read_state(path: Path, sha256: str) -> dict[str, Any]:
    if not _STATE.fullmatch(path.name) or _sha256(path) != sha256:
        raise ValueError("other bytes than were written")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
