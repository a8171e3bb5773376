"""What a fleet will cost: time, energy, disk and memory, from a short trial of its models."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from mico_competition.competition.layout import model_path
from mico_competition.competition.table import get_scenario, phase_of
from mico_competition.fleets.trial import Trial
from mico_competition.support.memory_limits import all_memory
from mico_competition.training.settings import Settings

_ZIP_ENTRY = 76  # bytes of a file's two headers in a zip, without its name, which both hold


@dataclass(frozen=True)
class Cost:
    """What the missing models of a fleet will cost on this machine.

    Times are in seconds and sizes in bytes.  `wall_seconds` is for `workers` processes at once,
    `worker_seconds` the sum over them.  Sizes of `disk` are of all models, those of the release and
    its archives without the few files that describe it.
    """

    models: int
    missing: int
    steps: int
    trial: Trial
    workers: int
    wall_seconds: float
    worker_seconds: float
    disk: Mapping[str, int]
    free_disk: int | None
    memory: int
    all_memory: int | None

    @property
    def gpu_hours(self) -> float:
        """Hours of GPUs, each shared as in the trial; 0 on a machine without one."""
        hours = self.worker_seconds / 3600 / self.trial.sharing
        return hours if self.trial.device == "cuda" else 0.0

    @property
    def kilowatt_hours(self) -> float | None:
        """The energy of the GPUs in these hours; None if their power is not known."""
        watts = self.trial.watts
        return None if watts is None else watts * self.gpu_hours / 1000

    @property
    def bound(self) -> str:
        """What bounds the fleet, in a sentence."""
        needed = sum(self.disk.values())
        if self.free_disk is not None and needed > self.free_disk:
            return "the disk, which has less space free than training, release and archives take"
        if self.all_memory is not None and self.memory > self.all_memory:
            fit = max(1, self.all_memory * self.workers // self.memory)
            return f"memory: at most {fit} of the {self.workers} workers fit, so give --workers"
        blocks = ceil(self.missing / self.trial.stack)
        if blocks <= self.workers:
            return "the time of one model: there are as many workers as models to train"
        if self.trial.gain is not None and self.trial.gain <= 1:
            return "the GPUs, on each of which several workers train no more than one does"
        what = "GPUs" if self.trial.device == "cuda" else "CPUs"
        return f"the {what}: twice as many workers take half the time"


def cost(
    settings: Settings,
    measured: Trial,
    model_ids: Iterable[int],
    *,
    missing: int | None = None,
    workers: int = 1,
    out: Path | None = None,
) -> Cost:
    """The cost of a fleet, from a trial.

    Args:
        settings: the settings of its scenario.
        measured: the trial of its models.
        model_ids: the ids of all its models.
        missing: how many of them are still to be trained; by default all.
        workers: processes that train at once.
        out: the folder that will be written to, or a folder that will hold it.
    """
    ids = list(model_ids)
    missing = len(ids) if missing is None else missing
    steps = settings.num_steps
    whole, rest = divmod(missing, measured.stack)
    one = measured.begin_seconds + steps * measured.step_seconds
    blocks = [one] * whole + [one * rest / measured.stack] * bool(rest)
    rounds = [blocks[i : i + workers] for i in range(0, len(blocks), workers)]
    used = min(workers, len(blocks)) or 1
    return Cost(
        models=len(ids),
        missing=missing,
        steps=steps,
        trial=measured,
        workers=workers,
        wall_seconds=sum(max(part) for part in rounds) + measured.worker_seconds * bool(blocks),
        worker_seconds=sum(blocks) + measured.worker_seconds * min(workers, len(blocks)),
        disk=_disk(settings, measured, ids, missing),
        free_disk=None if out is None else _free(out),
        memory=used * measured.memory,
        all_memory=_all_memory(measured.device, used),
    )


def _disk(settings: Settings, measured: Trial, ids: list[int], missing: int) -> dict[str, int]:
    """Bytes of training (missing models only), of the release and of its archives."""
    found = {"training": missing * sum(measured.files["trained"].values())}
    if settings.scenario is None:
        return found
    scenario = get_scenario(settings.scenario)
    found.update(release=0, archives=0)
    for model_id in ids:
        phase = phase_of(model_id, scenario.challenge).name
        folder = model_path("", scenario, phase, model_id)
        for name, size in measured.files[phase].items():
            found["release"] += size
            found["archives"] += size + _ZIP_ENTRY + 2 * len(str(folder / name).encode())
    return found


def _free(path: Path) -> int | None:
    """Free bytes of the file system that `path` is or will be on."""
    there = next((part for part in (path, *path.absolute().parents) if part.exists()), None)
    return None if there is None else shutil.disk_usage(there).free


def _all_memory(device: str, workers: int) -> int | None:
    """Bytes of memory of this machine, or of the GPUs that so many workers use."""
    if device == "cuda":
        count = torch.cuda.device_count()
        each = [torch.cuda.get_device_properties(i).total_memory for i in range(count)]
        return sum(each[i % count] for i in range(min(workers, count)))
    return all_memory()
