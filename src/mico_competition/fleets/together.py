"""The same trial in several processes at once, which share a GPU as the workers of a fleet do."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from mico_competition.fleets.shared_data import Rebuild, map_parts, parts_of, save_parts
from mico_competition.fleets.trial import Trial, trial
from mico_competition.models.inputs import Data
from mico_competition.support.scratch import scratch
from mico_competition.training.settings import Settings

_PATIENCE = 600.0  # seconds for which a process waits for the others

# What a process waits at; `_begin` sets it.
_state: dict[str, Any] = {}


def trial_together(count: int, settings: Settings, data: Data, **options: Any) -> Trial:
    """Measure as `trial` does, in `count` processes that take their steps at the same time.

    Args:
        count: the number of processes, >= 1; one is tried alone first, to compare with.
        settings, data, options: as for `trial`; the data are on the CPU.

    Returns:
        A trial whose times are means over the processes; its `gain` is how many times as many
        models an hour they train as one process does alone.
    """
    alone = trial(settings, data, **options)
    if count == 1:
        return alone
    parts, rebuild = parts_of(data)
    context = multiprocessing.get_context("spawn")
    with scratch(None, "mico-trial") as folder:
        save_parts(parts, folder / "dataset.pt")
        with ProcessPoolExecutor(
            count, context, initializer=_begin, initargs=(context.Barrier(count),)
        ) as executor:
            arguments = (settings, folder / "dataset.pt", rebuild, options)
            found = [executor.submit(_trial, *arguments) for _ in range(count)]
            trials = [each.result() for each in found]
    step = fmean(each.step_seconds for each in trials)
    return replace(
        alone,
        step_seconds=step,
        begin_seconds=fmean(each.begin_seconds for each in trials),
        sharing=count,
        gain=count * alone.step_seconds / step,
    )


def _begin(barrier: Any) -> None:
    """Make this process one of several."""
    _state["barrier"] = barrier


def _trial(settings: Settings, dataset: Path, rebuild: Rebuild, options: dict[str, Any]) -> Trial:
    """The trial of one process, whose steps begin with those of the others."""
    ready = _state["barrier"]
    try:
        data = rebuild(map_parts(dataset))
        return trial(settings, data, ready=lambda: ready.wait(_PATIENCE), **options)
    except Exception:
        ready.abort()  # nobody waits for this one
        raise
