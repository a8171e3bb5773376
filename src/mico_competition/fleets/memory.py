"""Whether training fits into memory, found out before a fleet's first model is trained.

A model that nobody keeps takes two steps of the largest batch that memory must hold, by the code
and with the settings of the fleet.  It has seeds of its own, so the models of the fleet are the
same with and without this probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from mico_competition.competition.table import get_task
from mico_competition.data.arrays import TokenDataset
from mico_competition.models.architectures import new_model
from mico_competition.models.inputs import Data
from mico_competition.models.padding import by_length
from mico_competition.support.memory_limits import (
    PeakMemory,
    free_memory,
    is_out_of_memory,
    own_memory,
    size_in_words,
)
from mico_competition.training.accounting import Mechanism
from mico_competition.training.fixed_shapes import fixed_length
from mico_competition.training.random_numbers import undisturbed
from mico_competition.training.settings import Settings
from mico_competition.training.streams import Streams, seeded
from mico_competition.training.train import fit_records, mechanism_of
from mico_competition.training.train_stack import fit_stack_records

_CUDA = 600 * 10**6  # bytes of a GPU that CUDA takes for each process, before any tensor


@dataclass(frozen=True)
class Needed:
    """The memory of a process that trains, in bytes.

    Attributes:
        standing: what the process holds before its first step.
        growth: the most that its steps take besides.
    """

    standing: int
    growth: int

    @property
    def total(self) -> int:
        """All that the process holds at most."""
        return self.standing + self.growth

    def fitting(self, free: int) -> int:
        """How many such processes fit, if `free` bytes are free beside what the first one holds."""
        return max(0, (free - self.growth) // max(1, self.total) + 1)


class NotEnoughMemory(ValueError):
    """A process cannot train as asked, for want of memory."""


def check_memory(
    settings: Settings,
    data: Data,
    *,
    device: torch.device,
    stack: int = 1,
    mechanism: Mechanism | None = None,
    sharing: int = 1,
    fewer: str = "a smaller --workers",
) -> None:
    """Raise `NotEnoughMemory` unless training fits into the memory that is free.

    Args:
        settings: the settings of the scenario.
        data: the whole dataset, on `device`.
        device: where it trains.
        stack: models that are trained together.
        mechanism: of a private run; by default that of the settings' target.
        sharing: processes that are to use the device's memory, this one among them; the others
            hold nothing yet.
        fewer: the flag that lowers their number.
    """
    free = _free(device)
    found = needed(settings, data, device=device, stack=stack, mechanism=mechanism)
    if free is None or found.fitting(free) >= sharing:
        return
    takes, most = size_in_words(found.growth), found.fitting(free)
    takes = f"{takes} more than the {size_in_words(found.standing)} that it holds before, and "
    takes += f"{size_in_words(free)} are free"
    if sharing > 1:
        takes += f" for {sharing} workers" + (f", of which {most} would fit" if most else "")
        fewer = fewer if most else ""
    else:
        fewer = ""
    raise NotEnoughMemory(_sentence(settings, stack, device, takes, fewer))


def _sentence(
    settings: Settings, stack: int, device: torch.device, takes: str, fewer: str = ""
) -> str:
    where = "the GPU's memory" if device.type == "cuda" else "memory"
    size = settings.max_physical_batch_size
    batch = min(size, largest_batch(settings))
    fixes = [fewer] if fewer else []
    fixes += [f"a smaller --stack than {stack}"] if stack > 1 else []
    fixes += [f"--max_physical_batch_size {max(1, batch // 2)} or less"] if batch > 1 else []
    fix = " or ".join(fixes) or "another machine"
    models = f"{stack} models" if stack > 1 else "A model"
    return (
        f"{models} of {settings.scenario or settings.task} would not fit into {where}: a worker's "
        f"step on {batch} records of each model takes {takes}. Give {fix}."
    )


def needed(
    settings: Settings,
    data: Data,
    *,
    device: torch.device,
    stack: int = 1,
    mechanism: Mechanism | None = None,
) -> Needed:
    """Measure what a process needs that trains; arguments as for `check_memory`.

    Raises:
        NotEnoughMemory: if the steps themselves run out of memory.
    """
    free = _free(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        standing, peak = own_memory(), PeakMemory()
    try:
        _two_steps(settings, data, device, stack, mechanism or mechanism_of(settings))
    except Exception as error:
        if is_out_of_memory(error):
            takes = f"more than the {size_in_words(free)} that are free" if free else "too much"
            raise NotEnoughMemory(_sentence(settings, stack, device, takes)) from error
        # What else training refuses in these records, it says when it trains on them.
    if device.type != "cuda":
        return Needed(standing, peak.growth())
    growth = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return Needed(before + _CUDA, growth)


def largest_batch(settings: Settings) -> int:
    """The most records of a batch; once in 10^9 draws, a Poisson batch has more."""
    if settings.disable_dp:
        return settings.batch_size
    return fixed_length(settings.expected_batch_size, settings.len_training)


def _two_steps(
    settings: Settings, data: Data, device: torch.device, stack: int, mechanism: Mechanism | None
) -> None:
    """Take two steps of at most two physical batches; more of them take no more memory."""
    settings = replace(settings, num_epochs=1)
    count = min(largest_batch(settings), 2 * settings.max_physical_batch_size)
    rows = _longest_first(data)[: settings.len_training].to(device)
    batch = torch.arange(count)
    options: dict[str, Any] = {
        "mechanism": mechanism,
        "epoch": lambda settings, sampling: iter([batch, batch]),
    }
    streams = [Streams(3 * i, 3 * i + 1, 3 * i + 2) for i in range(stack)]
    with undisturbed(), seeded(streams[0], deterministic=not settings.secure_mode):
        task = get_task(settings.task)
        models = [new_model(task, base_model=settings.model_name).to(device) for _ in streams]
        if stack > 1:
            rows = rows.expand(stack, -1).contiguous()
            fit_stack_records(settings, models, data, rows, streams, False, **options)
        else:
            fit_records(settings, models[0], data, rows, streams[0], False, **options)


def _longest_first(data: Data) -> torch.Tensor:
    """Positions of all records; sentences in the order of their lengths, the longest first."""
    if isinstance(data, TokenDataset):
        return by_length(data.attention_mask.cpu()).flip(0)
    return torch.arange(len(data))


def _free(device: torch.device) -> int | None:
    """Bytes that this process could still take of the device's memory."""
    if device.type != "cuda":
        return free_memory()
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
