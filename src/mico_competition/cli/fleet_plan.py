"""`mico fleet SCENARIO --dry_run`: what the fleet will cost; nothing is written."""

from __future__ import annotations

import argparse
from math import ceil
from typing import TYPE_CHECKING, Any

from mico_competition.cli.train import settings_of
from mico_competition.support.memory_limits import size_in_words
from mico_competition.support.progress import stage
from mico_competition.support.reports import report
from mico_competition.support.terminal import table
from mico_competition.training.settings import Settings, check

if TYPE_CHECKING:
    from mico_competition.fleets.cost import Cost


def print_plan(args: argparse.Namespace, data: Any, tokenizer: Any) -> int:
    """Check the settings, train for some seconds, and print what the missing models will cost."""
    import torch

    from mico_competition.fleets.ledger import Ledger
    from mico_competition.support.cpus import share_cpus
    from mico_competition.training.preflight import check_run
    from mico_competition.training.train_many import stack_of

    ledger = None if args.out is None else Ledger.read(args.out, args.scenario)
    settings = settings_of(args) if ledger is None else ledger.settings
    check(settings, len(data))
    check_run(settings, data)
    done = set() if ledger is None else ledger.only(args.models).done()
    gpus = torch.cuda.device_count()
    workers, threads = share_cpus(args.workers, args.threads, devices=gpus)
    found = estimate(
        settings,
        data,
        tokenizer,
        model_ids=args.models,
        missing=len(set(args.models) - done),
        stack=args.stack or stack_of(settings),
        workers=workers,
        threads=threads,
        sharing=ceil(workers / gpus) if gpus else 1,
        out=args.out,
    )
    print("\n".join(lines(found, args.scenario)))
    report("fleet plan", plan=values(found))
    return 0


def estimate(
    settings: Settings,
    data: Any,
    tokenizer: Any = None,
    *,
    model_ids: Any = (0,),
    missing: int | None = None,
    stack: int = 1,
    threads: int | None = None,
    sharing: int = 1,
    **options: Any,
) -> Cost:
    """The cost of a fleet or, by default, of one model.

    With `sharing` > 1 so many processes are tried on one GPU. Other `options` go to `cost.cost`.
    """
    from mico_competition.fleets.cost import cost
    from mico_competition.fleets.together import trial_together
    from mico_competition.models.inputs import default_device

    missing = len(model_ids) if missing is None else missing
    with stage("Trial"):
        measured = trial_together(
            sharing,
            settings,
            data,
            tokenizer=tokenizer,
            stack=max(1, min(stack, missing)),
            threads=threads,
            device=default_device(),
        )
    return cost(settings, measured, model_ids, missing=missing, **options)


def values(found: Cost) -> dict[str, Any]:
    """The cost as values of a report."""
    return {
        "models": found.models,
        "missing": found.missing,
        "steps": found.steps,
        "seconds_a_step": found.trial.step_seconds,
        "stack": found.trial.stack,
        "workers": found.workers,
        "device": found.trial.device,
        "hours": found.wall_seconds / 3600,
        "worker_hours": found.worker_seconds / 3600,
        "gpu_hours": found.gpu_hours,
        "workers_on_a_gpu": found.trial.sharing,
        "gain_of_sharing": found.trial.gain,
        "gpu_kilowatt_hours": found.kilowatt_hours,
        "disk_bytes": dict(found.disk),
        "free_bytes": found.free_disk,
        "memory_bytes": found.memory,
        "bound": found.bound,
    }


def lines(found: Cost, name: str) -> list[str]:
    """The cost as a table for people."""
    trial, disk = found.trial, found.disk
    together = f", {trial.stack} models together" if trial.stack > 1 else ""
    free = "" if found.free_disk is None else f"; {size_in_words(found.free_disk)} are free"
    gpus = "no GPU here" if not found.gpu_hours else duration(3600 * found.gpu_hours)
    sizes = ", ".join(f"{what} {size_in_words(count)}" for what, count in disk.items())
    rows = [
        ("models", f"{found.models} of {name}, {found.missing} to train"),
        ("steps", f"{found.steps:,} a model, {found.steps * found.missing:,} in all"),
        (
            "a step",
            f"{trial.step_seconds:.3g} s ({trial.steps} steps on the {trial.device}, threads: "
            f"{trial.threads}{together})",
        ),
        (
            "time",
            f"{duration(found.wall_seconds)} with {found.workers} at once; "
            f"{duration(found.worker_seconds)} of work",
        ),
        ("GPU hours", gpus),
        *_sharing(found),
        *_energy(found),
        ("disk", f"{size_in_words(sum(disk.values()))}: {sizes}{free}"),
        ("memory", size_in_words(found.memory)),
        ("bound by", found.bound),
    ]
    return table(("", "estimate"), rows)


def _sharing(found: Cost) -> list[tuple[str, str]]:
    """The row about several workers on one GPU, if they were tried."""
    trial = found.trial
    if trial.gain is None:
        return []
    text = f"{trial.sharing} workers on one GPU train {trial.gain:.2f} times as much as one"
    return [("sharing", text)]


def _energy(found: Cost) -> list[tuple[str, str]]:
    """The row about energy, if a GPU's power is known."""
    if found.kilowatt_hours is None:
        return []
    return [("energy", f"{found.kilowatt_hours:.3g} kWh: a GPU drew {found.trial.watts:.0f} W")]


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours.

    >>> duration(8), duration(600), duration(9000)
    ('8.0 s', '10.0 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
