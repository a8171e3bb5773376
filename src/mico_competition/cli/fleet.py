"""`mico fleet SCENARIO` and `mico fleet status DIR`: flags -> a ledger, a backend, a display."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.cli.command_line import model_ids
from mico_competition.cli.train import add_data, add_settings
from mico_competition.progress import Stage, on_terminal, say, stage
from mico_competition.tracks import SCENARIOS, get_scenario, phase_of
from mico_competition.training.settings import Settings, resolve

if TYPE_CHECKING:
    from mico_competition.fleets.fleet import Backend, Progress
    from mico_competition.fleets.ledger import Ledger


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of fleets."""
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        choices=[*SCENARIOS, "status"],
        help="a scenario's name; or `status`, then DIR",
    )
    parser.add_argument("dir", metavar="DIR", nargs="?", type=Path, help="for status: an --out")
    parser.add_argument(
        "--models", type=model_ids, metavar="ID-ID", help="ids to train, such as 0-199 or 0-9,100"
    )
    parser.add_argument("--out", type=Path, help="folder to write <challenge>/... and fleet/ into")
    parser.add_argument("--workers", type=int, help="processes (default: one a GPU, else a core)")
    parser.add_argument(
        "--threads", type=int, help="CPU threads of each (default: shared out; 1 with --ray)"
    )
    parser.add_argument(
        "--stack", type=int, help="models to train together (default: where that is faster)"
    )
    parser.add_argument(
        "--retries", type=int, default=2, help="tries more for models whose machine or process died"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="train on the Ray cluster at HOST:PORT, or `auto`"
    )
    parser.add_argument(
        "--gpus_per_task", type=float, help="with --ray: GPUs of each task, such as 0.25"
    )
    parser.add_argument(
        "--splits_of_2022",
        action="store_true",
        help="draw 2022's decimal seeds, whose splits can be searched (2^32); for comparison only",
    )
    add_settings(parser)
    add_data(parser)
    parser.set_defaults(run=run_fleet_verb)


def run_fleet_verb(args: argparse.Namespace) -> int:
    """Train what is missing, or print how far fleets are; gives the exit code."""
    if args.scenario == "status":
        return _status(args.dir)
    _check(args)
    from mico_competition.challenge_datasets import load_dataset
    from mico_competition.fleets.ledger import fleet_folder
    from mico_competition.fleets.lock import only_fleet
    from mico_competition.inputs import prepare

    task = get_scenario(args.scenario).task
    dataset = load_dataset(task, args.dataset_dir, args.download)
    data, tokenizer = prepare(task, dataset, args.model_name)
    with _private_files(), only_fleet(fleet_folder(args.out, args.scenario)):
        ledger = _ledger(args, data)
        return _train(args, ledger, _backend(args, ledger, data, tokenizer))


def _check(args: argparse.Namespace) -> None:
    if args.dir is not None:
        raise ValueError(f"{args.dir} is one argument too many: give the folder as --out.")
    if args.models is None or args.out is None:
        raise ValueError("Give --models, such as 0-199, and --out, the folder to write into.")
    for model_id in args.models:
        phase_of(model_id)
    for name in ("workers", "threads", "stack"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"Expected --{name} {value} >= 1.")
    if args.retries < 0:
        raise ValueError(f"Expected --retries {args.retries} >= 0.")
    if args.gpus_per_task is not None and args.ray is None:
        raise ValueError("--gpus_per_task is for --ray; without it, choose --workers.")
    if args.workers is not None and args.ray is not None:
        raise ValueError("--workers is for this machine; with --ray the cluster's size counts.")


def _ledger(args: argparse.Namespace, data: Any) -> Ledger:
    """The ledger in --out, with the models asked for; written before anything trains."""
    from mico_competition.fleets.ledger import Ledger
    from mico_competition.fleets.shared_data import fingerprint
    from mico_competition.training.settings import check

    ledger = Ledger.read(args.out, args.scenario)
    given = {name: getattr(args, name, None) for name in Settings.__dataclass_fields__}
    found = fingerprint(data)
    if ledger is None:
        settings = resolve(given)
        ledger = Ledger(args.out, settings, found, args.splits_of_2022)
    for name, value in given.items():
        kept = getattr(ledger.settings, name)
        if value is not None and value != kept:
            raise ValueError(
                f"The fleet in {ledger.folder} was begun with --{name} {kept}, not {value}: "
                "leave the flag out, or choose another --out."
            )
    if ledger.data_sha256 != found:
        raise ValueError(
            f"The dataset is not the one that the fleet in {ledger.folder} was begun with: give "
            "that one's --dataset_dir, or choose another --out."
        )
    if args.splits_of_2022 and not ledger.splits_of_2022:
        raise ValueError(
            f"The fleet in {ledger.folder} has keyed splits: leave --splits_of_2022 out."
        )
    check(ledger.settings, len(data))
    ledger = ledger.with_models(args.models)
    ledger.check_done()
    ledger.write()
    ledger.clear_leftovers()
    return ledger.only(args.models)


def _backend(args: argparse.Namespace, ledger: Ledger, data: Any, tokenizer: Any) -> Backend:
    if args.ray is not None:
        from mico_competition.fleets.ray_cluster import RayCluster

        return RayCluster(
            ledger,
            data,
            tokenizer,
            address=args.ray,
            threads=args.threads,
            gpus_per_task=args.gpus_per_task,
        )
    from mico_competition.fleets.workers import LocalWorkers

    return LocalWorkers(ledger, data, tokenizer, workers=args.workers, threads=args.threads)


def _train(args: argparse.Namespace, ledger: Ledger, backend: Backend) -> int:
    """Run the fleet under a display, and sum it up."""
    from mico_competition.fleets.fleet import run_fleet

    started = time.monotonic()
    progress = None
    steps = run_fleet(ledger, backend, stack=args.stack, retries=args.retries)
    try:
        with _stopped_politely(), closing(steps), _stage(ledger) as shown:
            for progress in steps:
                _show(shown, progress)
    except KeyboardInterrupt:
        done = progress.done if progress else 0
        print(
            f"mico: stopped with {done} of {len(ledger.entries)} models done; the same command "
            "goes on from here.",
            file=sys.stderr,
        )
        return 130
    assert progress is not None
    return _sum_up(ledger, progress, time.monotonic() - started)


@contextmanager
def _private_files() -> Iterator[None]:
    """Whatever a fleet writes holds seeds and labels: for its owner's eyes only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _stopped_politely() -> Iterator[None]:
    """A terminated fleet (Slurm sends SIGTERM) stops as with Ctrl-C."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stage(ledger: Ledger) -> AbstractContextManager[Stage]:
    return stage(
        ledger.settings.scenario or "",
        len(ledger.entries),
        "model",
        initial=len(ledger.done()),
    )


def _show(shown: Stage, progress: Progress) -> None:
    """Say how far the fleet is; where there is no bar, print a line a block."""
    shown.done = progress.done
    shown.note = f"{len(progress.failed)} failed, {progress.retries} retries"
    if progress.newly_done and not on_terminal():
        ids = ", ".join(f"model_{i}" for i in progress.newly_done)
        say(
            f"{shown.name}: {ids} done; {progress.done} of {progress.total} done, "
            f"{len(progress.failed)} failed"
        )


def _sum_up(ledger: Ledger, progress: Progress, seconds: float) -> int:
    print(
        f"{ledger.settings.scenario}: {progress.done} of {progress.total} models done, "
        f"{len(progress.failed)} failed, {progress.left} left, {progress.retries} retries, "
        f"{seconds:.0f} s."
    )
    for model_id, error in sorted(progress.failed.items()):
        print(f"  model_{model_id}: {error}", file=sys.stderr)
    if progress.failed:
        print(f"Tracebacks are in {ledger.folder / 'failures.log'}", file=sys.stderr)
    if progress.stopped:
        print(f"mico: {progress.stopped}", file=sys.stderr)
    return 1 if progress.failed or progress.left else 0


def _status(folder: Path | None) -> int:
    """Print how far the fleets in `folder` are; exit code 1 while any model is missing."""
    if folder is None:
        raise ValueError("Name the folder: mico fleet status DIR, where DIR is a fleet's --out.")
    from mico_competition.fleets.status import fleet_states

    states = fleet_states(folder)
    form = "{:17}{:>7}{:>7}{:>8}{:>7}  {:9}{:>10}  {}"
    print(form.format("scenario", "models", "done", "failed", "left", "state", "models/h", "left"))
    for state in states:
        rate = "-" if state.models_per_hour is None else f"{state.models_per_hour:.1f}"
        print(
            form.format(
                state.scenario,
                state.total,
                state.done,
                len(state.failed),
                state.left,
                "running" if state.running else "stopped",
                rate,
                state.time_left or "-",
            )
        )
    return 0 if all(state.done == state.total for state in states) else 1
