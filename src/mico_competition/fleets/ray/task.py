"""The task that runs on a node of a Ray cluster: it trains a block and returns the folders.

Ray calls `train` in a separate process.  The task leaves no files on the node.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition import __version__
from mico_competition.competition.table import get_task
from mico_competition.data.fingerprint import dataset_fingerprint, remember_fingerprint
from mico_competition.fleets.fleet import Block, checkpoints_of, train_block
from mico_competition.fleets.ledger import CHECKPOINTS
from mico_competition.fleets.memory import NotEnoughMemory, check_memory
from mico_competition.fleets.running import reports_of
from mico_competition.fleets.shared_data import Rebuild, parts_of
from mico_competition.models.inputs import Data
from mico_competition.models.text_models import base_config
from mico_competition.support.files import PRIVATE, make_folder, write_text
from mico_competition.training.accounting import Mechanism
from mico_competition.training.checkpoint import Checkpoint
from mico_competition.training.fingerprints import architecture_fingerprint
from mico_competition.training.recipe import training_fingerprint
from mico_competition.training.run_report import RunReport
from mico_competition.training.settings import Settings

Files = dict[str, np.ndarray]  # a folder: path below it -> bytes

_PREFIX = "mico_task_"
_TOKEN = "ray.token"
_ABANDONED_SECONDS = 60.0  # an unlocked folder this old belongs to a task that was killed


@dataclass(frozen=True)
class SharedFolder:
    """The ledger's folder, which a node uses only if it is the same one there.

    Attributes:
        path: the absolute path, to which models in training write checkpoints and reports.
        token: the content of a file in it.
        minutes: between two checkpoints; 0 writes none.
        track: the tracker to which runs report, if there is one.
    """

    path: Path
    token: str
    minutes: float
    track: str | None

    @classmethod
    def create(cls, path: Path, minutes: float, track: str | None) -> SharedFolder:
        """Write the file by which nodes recognise the folder."""
        shared = cls(Path(make_folder(path, PRIVATE)), secrets.token_hex(16), minutes, track)
        write_text(path / _TOKEN, shared.token, access=PRIVATE)
        return shared

    def is_here(self) -> bool:
        """Whether this node sees it."""
        try:
            return (self.path / _TOKEN).read_text(encoding="utf-8") == self.token
        except (OSError, UnicodeDecodeError):
            return False

    def remove(self) -> None:
        """Remove the file again."""
        (self.path / _TOKEN).unlink(missing_ok=True)


@dataclass(frozen=True)
class Job:
    """What all tasks share; each node keeps one copy in its object store."""

    settings: Settings
    arrays: dict[str, np.ndarray]
    rebuild: Rebuild
    tokenizer: Any
    threads: int
    cuda: bool
    versions: dict[str, str]
    dataset_fingerprint: str | None = None
    architecture_fingerprint: str | None = None
    training_fingerprint: str | None = None
    shared: SharedFolder | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        data: Data,
        tokenizer: Any,
        threads: int,
        architecture_fingerprint: str | None = None,
        training_fingerprint: str | None = None,
    ) -> Job:
        """The job of training on `data`, which is on the CPU; `cuda` is False at first."""
        parts, rebuild = parts_of(data)
        arrays = {name: part.contiguous().numpy() for name, part in parts.items()}
        return cls(
            settings,
            arrays,
            rebuild,
            tokenizer,
            threads,
            False,
            versions(),
            dataset_fingerprint(data),
            architecture_fingerprint,
            training_fingerprint,
        )

    def data(self) -> Data:
        """The dataset, in memory that all tasks of a node share."""
        with warnings.catch_warnings():  # the memory is read-only, and nothing writes to it
            warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
            parts = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        data = self.rebuild(parts)
        if self.dataset_fingerprint is not None:
            remember_fingerprint(data, self.dataset_fingerprint)
        return data


@dataclass(frozen=True)
class Result:
    """What a task returns.

    Attributes:
        folders: the folders of finished models, by id.
        error, fatal, lost: as in `fleet.Outcome`.
        node: the name of the node.
        shared: whether the node sees the ledger's folder.
    """

    folders: dict[int, Files]
    error: str | None
    fatal: bool
    lost: bool = False
    node: str = ""
    shared: bool = True


def versions() -> dict[str, str]:
    """The versions that must agree on all machines for a seed to give the same model."""
    return {"mico_competition": __version__, "torch": torch.__version__.partition("+")[0]}


def check_versions(wanted: Mapping[str, str], where: str) -> str:
    """Return this node's name; ValueError if its versions are not those `wanted`."""
    node = os.uname().nodename
    for name, version in versions().items():
        if version != wanted[name]:
            raise ValueError(
                f"{name} is {version} on {node} and {wanted[name]} where {where}: install the "
                "same on every node."
            )
    return node


def check_code(job: Job, data: Data, node: str) -> None:
    """Raise ValueError if this node's code computes or trains in another way than the fleet's."""
    task = get_task(job.settings.task)
    config = base_config(task, job.settings.model_name) if task.text else None
    expected = job.architecture_fingerprint
    if expected is not None and architecture_fingerprint(task, data, config) != expected:
        raise ValueError(
            f"The {task.architecture} of the code on {node} computes something else than that of "
            "the machine the fleet was started on: install the same on every node."
        )
    expected = job.training_fingerprint
    if expected is not None and training_fingerprint(job.settings, data, config) != expected:
        raise ValueError(
            f"The code on {node} trains in another way than that of the machine the fleet was "
            "started on: install the same on every node."
        )


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `train` or `try_memory` in a task."""
    return function(*arguments)


def try_memory(job: Job, stack: int, sharing: int, mechanism: Mechanism | None) -> str | None:
    """Try whether training fits into the memory of this node; if not, a sentence that says so.

    Args:
        job: what the fleet's tasks share.
        stack: models that are trained together.
        sharing: tasks that are to use the memory of this one's device.
        mechanism: of a private run.

    Raises:
        ValueError: if this node's software differs from that of the fleet's machine.
    """
    node, data, device = _begun(job)
    fewer = "a larger --gpus_per_task" if job.cuda else "a larger --threads"
    options: dict[str, Any] = {"stack": stack, "sharing": sharing, "mechanism": mechanism}
    try:
        check_memory(job.settings, data.to(device), device=device, fewer=fewer, **options)
    except NotEnoughMemory as error:
        return f"{error} (on {node})"
    return None


def _begun(job: Job) -> tuple[str, Data, torch.device]:
    """This node's name, the dataset and the device of a task; ValueError as for `train`."""
    node = check_versions(job.versions, "the fleet was started")
    torch.set_num_threads(job.threads)
    data = job.data()
    check_code(job, data, node)
    return node, data, torch.device("cuda" if job.cuda else "cpu")


def train(job: Job, block: Block) -> Result:
    """Train `block` and return its folders.

    Raises:
        ValueError: if this node's software differs from that of the fleet's machine.
    """
    node, data, device = _begun(job)
    shared = job.shared if job.shared is not None and job.shared.is_here() else None
    checkpoints: list[Checkpoint | None] = [None] * len(block.entries)
    reports: list[RunReport | None] = [None] * len(block.entries)
    if shared is not None:
        code, minutes = job.training_fingerprint, shared.minutes
        if minutes:  # the machine of the fleet removes them when it has the models
            place = shared.path / CHECKPOINTS
            checkpoints = [*checkpoints_of(place, block, minutes, code, keep=True)]
        reports = [*reports_of(shared.path, block, job.settings, shared.track)]
    with _temporary_folder() as parent:
        paths = {model_id: parent / f"model_{model_id}" for model_id in block.model_ids}
        outcome = train_block(
            job.settings,
            data.to(device),
            block,
            list(paths.values()),
            checkpoints,
            reports,
            tokenizer=job.tokenizer,
            device=device,
            progress=False,
        )
        folders = {i: _read(path) for i, path in paths.items() if path.is_dir()}
    error = outcome.error
    if error is not None:
        error = f"{error.rstrip()} (on {node})"  # in the last line, which messages quote
    seen = shared is not None or job.shared is None
    return Result(folders, error, outcome.fatal, outcome.lost, node, seen)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A private temporary folder of this task.

    A task that is killed leaves its folder behind, and the next task on the node removes it.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is another user's, in use, or already gone
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                with _locked(left):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _locked(Path(folder)):
        yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock `folder`, at most until this process ends; OSError if another process has locked it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _read(folder: Path) -> Files:
    """A folder's files as arrays of bytes, which Ray transfers without copying."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): np.fromfile(path, np.uint8) for path in paths}
