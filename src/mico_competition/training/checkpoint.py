"""Checkpoints of a run in progress: a private folder from which a killed run goes on.

The folder holds checkpoint.json (which run it is, and how far), the state in a file
(`checkpoint_files`), and a lock file, so that two processes never go on from the same state at the
same time.  Nothing is written before the first checkpoint is due.

Whoever reads a checkpoint learns the seeds, the batches to come and the noise: it is as secret as
the training set.  Only its owner can read it, and it is removed when the model is whole.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from mico_competition.competition.splits import Seeds, parse_seed
from mico_competition.competition.table import PRECISIONS
from mico_competition.support.files import PathLike
from mico_competition.support.locks import lock_file
from mico_competition.support.stopping import under_way
from mico_competition.support.untrusted import read_limited_json
from mico_competition.training.checkpoint_facts import check_facts
from mico_competition.training.checkpoint_files import (
    ABOUT,
    BEGINNING,
    About,
    Kept,
    read_about,
    read_state,
    write_about,
    write_state,
)
from mico_competition.training.random_numbers import undisturbed

MINUTES = 15.0  # between two checkpoints; a run that is shorter writes none

_LOCK = "lock"
_LOOK_SECONDS = 0.2  # between two tries to get the lock

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
            texts = read_limited_json(self.folder / ABOUT)["facts"]["seeds"]
            return Seeds(*(parse_seed("seeds", text) for text in texts))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Remove the checkpoint of a model that is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def opened(
    checkpoint: Checkpoint | None, facts: Callable[[], Mapping[str, Any]], *, load: bool = True
) -> Iterator[OpenCheckpoint | None]:
    """Go on from the checkpoint in this block, if there is one, and write further ones.

    Args:
        checkpoint: where; None yields None.
        facts: what must be the same for a run to go on; see `facts_of`.
        load: whether to load the newest state; else the caller loads one.

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
        if load:
            run.load()
        with under_way(run.is_long):
            yield run
    finally:
        run.close()


class OpenCheckpoint:
    """The checkpoint of a run that is under way.

    Attributes:
        folder: where it is.
        kept: the states that the checkpoint has, the newest first; none for a run that begins.
        state: the one that was loaded, to go on from.
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
        self._about: About | None = None
        self._settled: Kept | None = None  # the last state that a whole stack has, or one model
        self.kept: Sequence[Kept] = ()
        self.state: dict[str, Any] | None = None
        self.steps = 0
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
        if not (self.folder / ABOUT).exists():
            return  # killed while it wrote the first one
        if not self._place.minutes:
            raise ValueError(
                f"There is a checkpoint of this model in {self.folder}: leave "
                "--checkpoint_minutes 0 out to go on from it, or remove the folder to train the "
                "model anew."
            )
        try:
            about = read_about(self.folder)
        except ValueError:
            self._warn_of_damage()
            return
        # Runs of earlier versions were in float32.
        check_facts(self.folder, {"precision": PRECISIONS[0], **about.facts}, self.facts)
        self._about, self.kept = about, about.kept

    def load(self, steps: int | None = None) -> None:
        """Load the newest state, or the one after `steps` steps; a damaged one is not used."""
        chosen = next((kept for kept in self.kept if steps in (None, kept.steps)), None)
        if chosen is None or chosen.state is None:
            return
        try:
            self.state = read_state(self.folder, chosen)
        except Exception:  # torch has many errors for a damaged file
            self._warn_of_damage()
            return
        assert self._about is not None
        self._settled = chosen
        self.steps, self.seconds = chosen.steps, self._about.seconds
        self.resumed = self._about.resumed + 1

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
        if self._about is not None:
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
        reason = self.try_write(state, steps)
        if reason:
            _log.warning("A checkpoint could not be written to %s (%s).", self.folder, reason)
        return not reason

    def try_write(self, state: Mapping[str, Any], steps: int, *, settled: bool = True) -> str:
        """Write the state after `steps` steps, or return the reason why it could not be written.

        Args:
            state: what `RunState.state_dict` gave.
            steps: the number of steps.
            settled: whether the state before is needed no longer; else call `settle` then.
        """
        self._due = time.monotonic() + self._seconds_between
        try:
            if self._lock is None:
                self._take_lock()
            number = self._about.number + 1 if self._about else 1
            newest = write_state(self.folder, number, state, steps)
            seconds = self.seconds + (time.monotonic() - self._started) / self._models
            earlier = None if settled else self._settled or BEGINNING
            about = About(number, newest, earlier, round(seconds, 3), self.resumed, self.facts)
            write_about(self.folder, about)
        except BusyError as error:
            self._seconds_between = self._due = math.inf
            return f"{error} This process writes no checkpoints"
        except OSError as error:
            return error.strerror or str(error)
        except RuntimeError as error:  # torch has one when the disk is full
            return f"the disk may be full: {str(error).splitlines()[0]}"
        self._about = about
        if settled:
            self._settled = newest
        return ""

    def settle(self) -> None:
        """Called when all models of a stack have their newest state: keep no earlier one."""
        assert self._about is not None
        about = replace(self._about, earlier=None)
        with suppress(OSError):  # then both are kept
            write_about(self.folder, about)
            self._about, self._settled = about, about.newest

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
        if not (self.folder / ABOUT).exists():
            with suppress(OSError):
                (self.folder / _LOCK).unlink()
                self.folder.rmdir()
        self._lock.close()
