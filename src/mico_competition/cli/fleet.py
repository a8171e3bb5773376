"""`mico fleet SCENARIO`, `status DIR`, `merge DIR DIR`: flags -> a ledger, a backend, a display."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.cli.train import (
    add_checkpoints,
    add_data,
    add_settings,
    check_track,
    checkpoint_minutes,
    settings_of,
)
from mico_competition.competition.table import (
    SCENARIOS,
    get_scenario,
    get_task,
    phase_of,
    phases_of,
)
from mico_competition.support.command_line import (
    UsageError,
    load_torch,
    model_ids,
    output_folder,
    usage,
)
from mico_competition.support.counts import count_of
from mico_competition.support.progress import say, stage
from mico_competition.support.reports import add_json
from mico_competition.training.settings import Settings, check, stated_by

if TYPE_CHECKING:
    from mico_competition.fleets.fleet import Backend
    from mico_competition.fleets.ledger import Ledger


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the flags of fleets."""
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        choices=[*SCENARIOS, "status", "merge"],
        help="a scenario's name; or `status`, then DIR; or `merge`, then two DIR or more",
    )
    parser.add_argument(
        "dir", metavar="DIR", nargs="*", type=Path, help="for status and merge: an --out"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="for status: hash all files of finished models, not only those whose times changed",
    )
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=5.0,
        metavar="SECONDS",
        help="for status: show it again every SECONDS (default: 5) until no fleet runs",
    )
    parser.add_argument(
        "--scenario",
        dest="scenarios",
        metavar="NAME",
        action="append",
        choices=SCENARIOS,
        help="for merge: merge this one only, of all in the folders (may be repeated)",
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="for merge: make hard links instead of copies, where the disk allows it",
    )
    parser.add_argument(
        "--models",
        type=model_ids,
        metavar="ID-ID",
        help="model ids to train, such as 0-199 or 0-9,100 (default: those of all phases)",
    )
    parser.add_argument(
        "--out", type=output_folder, help="folder to write <challenge>/... and fleet/ into"
    )
    parser.add_argument(
        "--new_seeds",
        type=model_ids,
        metavar="ID-ID",
        help="give these models of the fleet in --out new seeds, and move away what was trained "
        "with the old ones; the fleet's next run trains them anew",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes (default: one for each GPU, else for each CPU); more than there are GPUs "
        "share them in turn, and --dry_run measures what that gains",
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads of each process (default: OMP_NUM_THREADS, else an equal share of the "
        "CPUs; 1 with --ray)",
    )
    parser.add_argument(
        "--stack",
        type=int,
        help="models to train together (default: 10 small MLPs, 50 on a GPU, and else 1)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=2,
        help="further tries for models whose machine or process died",
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
    add_checkpoints(parser)
    parser.add_argument(
        "--dry_run",
        "--estimate",
        action="store_true",
        help="train for some seconds and say what the fleet will cost; nothing is written",
    )
    add_json(parser)
    add_settings(parser)
    add_data(parser)
    parser.set_defaults(run=run_fleet_verb)


def run_fleet_verb(args: argparse.Namespace) -> int:
    """Train the missing models, or do what `status`, `merge` and --new_seeds say; exit code."""
    if args.scenario == "status":
        from mico_competition.cli.fleet_status import print_status

        if args.watch is not None and not 0.1 <= args.watch < 1e6:
            raise UsageError(f"Expected --watch {args.watch:g} >= 0.1 seconds.")
        if len(args.dir) > 1 or args.scenarios or args.link:
            raise UsageError(
                "`mico fleet status` takes one DIR; --scenario and --link are not its."
            )
        return print_status(next(iter(args.dir), None), args.verify, args.watch)
    if args.scenario == "merge":
        from mico_competition.cli.fleet_merge import run_merge

        with _private_files():
            return run_merge(args)
    if args.new_seeds is not None:
        from mico_competition.cli.fleet_renew import run_renewal

        with _private_files():
            return run_renewal(args)
    _check(args)
    load_torch()
    from mico_competition.cli.fleet_run import train
    from mico_competition.data.datasets import load_dataset
    from mico_competition.fleets.ledger import fleet_folder
    from mico_competition.fleets.lock import only_fleet
    from mico_competition.models.inputs import prepare

    task = get_scenario(args.scenario).task
    dataset = load_dataset(task, args.dataset_dir, args.download)
    data, tokenizer = prepare(task, dataset, args.model_name)
    if args.dry_run:
        from mico_competition.cli.fleet_plan import print_plan

        return print_plan(args, data, tokenizer)
    with _private_files(), only_fleet(fleet_folder(args.out, args.scenario)):
        ledger = _ledger(args, data)
        return train(args, ledger, _backend(args, ledger, data, tokenizer))


def _check(args: argparse.Namespace) -> None:
    if args.json and not args.dry_run:
        raise UsageError("--json is for `mico fleet status DIR`, `merge` and --dry_run.")
    if args.dry_run and args.ray is not None:
        raise UsageError("--dry_run measures this machine: leave --ray out.")
    if args.verify:
        raise UsageError("--verify is for `mico fleet status DIR`: a run always verifies.")
    if args.watch is not None:
        raise UsageError("--watch is for `mico fleet status DIR`: a run shows its progress.")
    check_track(args)
    if args.dir:
        raise UsageError(f"{args.dir[0]} is one argument too many: give the folder as --out.")
    if args.scenarios or args.link:
        raise UsageError("--scenario and --link are for `mico fleet merge DIR DIR`.")
    if args.out is None and not args.dry_run:
        raise UsageError("Give --out, the folder to write into.")
    challenge = get_scenario(args.scenario).challenge
    if args.models is None:
        args.models = sorted(i for p in phases_of(challenge).values() for i in p.model_ids)
    with usage():
        for model_id in args.models:
            phase_of(model_id, challenge)
    for name in ("workers", "threads", "stack"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"Expected --{name} {value} >= 1.")
    if args.retries < 0:
        raise UsageError(f"Expected --retries {args.retries} >= 0.")
    if args.gpus_per_task is not None and args.ray is None:
        raise UsageError("--gpus_per_task is for --ray; without it, choose --workers.")
    if args.workers is not None and args.ray is not None:
        raise UsageError("--workers is for this machine: leave it out with --ray.")


def _ledger(args: argparse.Namespace, data: Any) -> Ledger:
    """The ledger in --out, with the requested models; written before anything trains."""
    from mico_competition.fleets.continuing import begun, check_same, check_stated, with_noise
    from mico_competition.fleets.finished import check_finished, unwritten
    from mico_competition.fleets.ledger import Ledger
    from mico_competition.models.text_models import base_config
    from mico_competition.training.fingerprints import of_training
    from mico_competition.training.preflight import check_run
    from mico_competition.training.recipe import training_fingerprint

    ledger = Ledger.read(args.out, args.scenario)
    given = {name: getattr(args, name, None) for name in Settings.__dataclass_fields__}
    if ledger is not None:
        check_stated(ledger)
    settings = settings_of(args) if ledger is None else ledger.settings
    check(settings, len(data))
    task = get_task(settings.task)
    config = base_config(task, settings.model_name) if task.text else None
    found = {
        **of_training(task.name, data, config),
        "training_fingerprint": training_fingerprint(settings, data, config),
    }
    if ledger is None:
        dataset = str(found["dataset_fingerprint"])
        code = found["architecture_fingerprint"], found["training_fingerprint"]
        stated = stated_by(get_scenario(args.scenario))
        ledger = Ledger(args.out, settings, dataset, args.splits_of_2022, (), *code, stated=stated)
    if ledger.entries and not begun(ledger):  # a batch too large for memory can be fixed
        size = given["max_physical_batch_size"] or settings.max_physical_batch_size
        ledger = replace(ledger, settings=replace(settings, max_physical_batch_size=size))
    for name, value in given.items():
        kept = getattr(ledger.settings, name)
        if value is not None and value != kept:
            raise ValueError(
                f"The fleet in {ledger.folder} was begun with --{name} {kept}, not {value}: "
                "leave the flag out, or choose another --out."
            )
    check_same(ledger, found)
    if args.splits_of_2022 and not ledger.splits_of_2022:
        raise ValueError(
            f"The fleet in {ledger.folder} has keyed splits: leave --splits_of_2022 out."
        )
    check_run(ledger.settings, data)
    before = len(ledger.entries)
    ledger = with_noise(ledger, not ledger.entries).with_models(args.models)
    if 0 < before < len(ledger.entries):
        more = count_of(len(ledger.entries) - before, "model")
        say(f"This command adds {more} to the fleet's {before} (--models says which)")
    # Also models that an earlier run finished but did not record.
    looked_at = ledger.only({*args.models, *unwritten(ledger)})
    with stage("Checking finished models", len(looked_at.done()), "model") as shown:
        check_finished(looked_at, seen=shown.update)
    ledger.check_done()
    ledger.write()
    ledger.clear_leftovers()
    return ledger.only(args.models)


def _backend(args: argparse.Namespace, ledger: Ledger, data: Any, tokenizer: Any) -> Backend:
    minutes = checkpoint_minutes(args)
    if args.ray is not None:
        from mico_competition.fleets.ray.cluster import RayCluster

        return RayCluster(
            ledger,
            data,
            tokenizer,
            address=args.ray,
            threads=args.threads,
            gpus_per_task=args.gpus_per_task,
            checkpoint_minutes=minutes,
            track=args.track,
        )
    from mico_competition.fleets.workers import LocalWorkers

    return LocalWorkers(
        ledger,
        data,
        tokenizer,
        workers=args.workers,
        threads=args.threads,
        checkpoint_minutes=minutes,
        track=args.track,
    )


@contextmanager
def _private_files() -> Iterator[None]:
    """Files of a fleet hold seeds and labels: only their owner may read them."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
