"""`mico train`: 2022's flags -> settings and seeds -> one trained model.

The scripts in `training/` call it with their task.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any

from mico_competition.competition.layout import model_path
from mico_competition.competition.table import (
    CHALLENGES,
    OPTIMIZERS,
    SCENARIOS,
    TASKS,
    Phase,
    get_scenario,
    get_task,
    phase_of,
    phases_of,
    use,
)
from mico_competition.support.command_line import (
    Parser,
    UsageError,
    load_torch,
    model_ids,
    path_or_name,
    run_command,
    usage,
)
from mico_competition.support.progress import say, tracked
from mico_competition.support.reports import add_json, report
from mico_competition.training.settings import Settings, resolve

_SEEDS = ("seed_challenge", "seed_training", "seed_membership")

# 2022's launchers give these too.  They have no effect: data are in memory, and progress is timed.
_IGNORED_2022 = ("dataloader_num_workers", "logging_steps")

# flag -> (type, help); the scenario fills in missing flags.
_FLAGS: dict[str, tuple[Any, str]] = {
    "len_training": (int, "n, training records, members included"),
    "len_challenge": (int, "m: m members and m non-members are challenged"),
    "target_epsilon": (float, "epsilon to train for; > 0"),
    "target_delta": (float, "delta to train for; in (0, 1)"),
    "max_grad_norm": (float, "C, the clipping norm of per-example gradients"),
    "batch_size": (int, "L, the (expected) size of a logical batch"),
    "max_physical_batch_size": (int, "most examples in one forward pass: memory and speed"),
    "num_epochs": (int, "epochs of ceil(n / L) steps"),
    "learning_rate": (float, "initial learning rate"),
    "lr_scheduler_gamma": (
        float,
        "factor of the learning rate, applied every --lr_scheduler_step epochs",
    ),
    "lr_scheduler_step": (int, "see --lr_scheduler_gamma"),
    "max_evaluation_records": (
        int,
        "most records outside the training set to measure accuracy on (default: all)",
    ),
    "model_name": (
        path_or_name,
        "pretrained text model: a folder, or a name on the Hugging Face Hub",
    ),
}


def add_train(parser: argparse.ArgumentParser, task: str | None = None) -> None:
    """Add the flags of training to `parser`; a script of one task has no --task."""
    scenarios = [s.name for s in SCENARIOS.values() if task in (None, s.task)]
    parser.add_argument(
        "--scenario",
        choices=scenarios,
        help="fills in all settings below; `mico tracks` lists scenarios",
    )
    if task is None:
        parser.add_argument("--task", choices=TASKS, help="the task, if no scenario is given")
    add_settings(parser)
    parser.add_argument(
        "--disable_dp", action="store_const", const=True, help="train without privacy"
    )
    parser.add_argument(
        "--train_seed",
        type=int,
        help="makes the run reproducible on one machine; keep it secret",
    )
    parser.add_argument(
        "--split_seed",
        type=int,
        help="derives the three seeds below as 2022 did; for trials and phase train only, since "
        "anybody with seed_challenge can find the others by trying split seeds",
    )
    for name in _SEEDS:
        parser.add_argument(
            f"--{name}",
            type=_seed_of(name),
            metavar="SEED",
            help="one of the model's three split seeds: 32 hexadecimal digits, or a decimal "
            "integer for 2022's scheme; by default all three are fresh",
        )
    parser.add_argument(
        "--model_id",
        type=model_ids,
        metavar="ID[-ID]",
        help="the model's id, which determines its phase; a range trains all, with fresh seeds",
    )
    add_data(parser)
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="with --scenario and --model_id: <challenge>/<scenario>/<phase>/model_<id> is "
        "created below it (default: .); otherwise the model's own folder",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the run and print its settings; train nothing"
    )
    add_checkpoints(parser)
    add_json(parser)
    parser.set_defaults(run=run_train, task=task)


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what is written while a model trains to `parser`."""
    parser.add_argument(
        "--track",
        choices=("tensorboard", "mlflow"),
        help="plot runs while they train: TensorBoard, or MLflow (MLFLOW_TRACKING_URI); private "
        "runs show no loss, since epsilon does not cover it",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=_minutes,
        metavar="MINUTES",
        help="time between two checkpoints of a model, from which the same command goes on if it "
        "is killed (default: 15, so shorter runs have none; 0: no checkpoints)",
    )


def check_track(args: argparse.Namespace) -> None:
    """ImportError if the tracker's package is missing."""
    if args.track is not None:
        load_torch()
        from mico_competition.training.trackers import check_tracker

        check_tracker(args.track)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of minutes >= 0, got {text!r}")
    return value


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flags that override the scenario's settings to `parser`."""
    for name, (kind, text) in _FLAGS.items():
        parser.add_argument(f"--{name}", type=kind, help=text)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="the optimiser")
    parser.add_argument(
        "--grad_sample_mode",
        metavar="MODE",
        help="how per-example norms are computed: bookkeeping (the default), or Opacus' hooks, "
        "functorch or ghost",
    )
    parser.add_argument(
        "--secure_mode",
        action="store_const",
        const=True,
        help="batches and noise from AES-256 keyed by the operating system; cannot be repeated",
    )
    parser.add_argument(
        "--members_first",
        action="store_const",
        const=True,
        help="do not shuffle, as in 2022: members come first in every epoch (without privacy only)",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that a scenario, or the task, and the flags give."""
    with usage():
        return resolve({name: getattr(args, name, None) for name in Settings.__dataclass_fields__})


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the flags of datasets to `parser`."""
    parser.add_argument(
        "--dataset_dir",
        type=Path,
        default=Path("."),
        help="folder with the datasets (default: .)",
    )
    parser.add_argument(
        "--download", action="store_true", help="download the dataset if it is missing"
    )


def run_train(args: argparse.Namespace) -> None:
    """Resolve the settings, check them, load the data, train, and print a summary."""
    settings = settings_of(args)
    if args.json and not args.dry_run:
        raise UsageError("--json is for --dry_run.")
    seeds = _seeds(args)
    folders = _folders(args)
    if args.dry_run:
        plan = _plan(args, settings, folders[0])
        print(json.dumps(plan, indent=2))
        report("train plan", plan=plan)
        if "not_checked" in plan:
            print(_not_checked(args, settings, plan["not_checked"]), file=sys.stderr)
        return
    load_torch()
    check_track(args)
    from mico_competition.data.datasets import load_dataset
    from mico_competition.models.inputs import prepare
    from mico_competition.training.checkpoint import Checkpoint
    from mico_competition.training.run_report import RunReport
    from mico_competition.training.trackers import open_tracker
    from mico_competition.training.train import mechanism_of
    from mico_competition.training.train_many import Run, train_many

    mechanism_of(settings)  # before data are read
    data, tokenizer = prepare(
        settings.task,
        load_dataset(settings.task, args.dataset_dir, args.download),
        settings.model_name,
    )
    options = _checkpoint_options(args, settings, data)
    drawn = args.split_seed is None and args.seed_challenge is None
    runs = []
    for seed, folder, model_id in zip(seeds, folders, args.model_id or [None]):
        place = Checkpoint.beside(folder, **options)
        seed = place.seeds() or seed if drawn else seed  # those of the run that was killed
        told = None
        if args.track is not None:
            tracker = open_tracker(args.track, folder.parent / "tracked", folder.name, settings)
            told = RunReport(settings, tracker=tracker)
        runs.append(Run(seed, folder, model_id, settings.train_seed, place, told))
    trained = train_many(settings, data, runs, tokenizer=tokenizer)
    shown = tracked(trained, "Models", "model", total=len(runs), show=len(runs) > 1)
    for run, metadata in zip(runs, shown):
        say(_summary(metadata, run.folder))


def _checkpoint_options(args: argparse.Namespace, settings: Settings, data: Any) -> dict[str, Any]:
    """The options of the checkpoints of all models of a command."""
    from mico_competition.models.text_models import base_config
    from mico_competition.training.recipe import training_fingerprint

    @cache
    def code() -> str:
        task = get_task(settings.task)
        config = base_config(task, settings.model_name) if task.text else None
        return training_fingerprint(settings, data, config)

    return {"minutes": checkpoint_minutes(args), "code": code}


def checkpoint_minutes(args: argparse.Namespace) -> float:
    """The time between two checkpoints."""
    from mico_competition.training.checkpoint import MINUTES

    return MINUTES if args.checkpoint_minutes is None else float(args.checkpoint_minutes)


def _seed_of(name: str) -> Callable[[str], Any]:
    """The parser of flag --`name`; its error message does not repeat the seed."""

    def parse(text: str) -> Any:
        from mico_competition.competition.splits import parse_seed

        try:
            return parse_seed(name, text)
        except ValueError as mistake:
            raise argparse.ArgumentTypeError(str(mistake)) from None

    return parse


def _folders(args: argparse.Namespace) -> list[Path]:
    if args.model_id is None or args.scenario is None:
        if args.model_id and len(args.model_id) > 1:
            raise UsageError(
                "A range of --model_id needs --scenario, which determines the folders."
            )
        if args.output_dir is None and not args.dry_run:
            choice = "--model_id or " if args.model_id is None and args.scenario else ""
            raise UsageError(f"Give {choice}--output_dir.")
        return [args.output_dir or Path(".")]
    scenario, root = get_scenario(args.scenario), args.output_dir or Path(".")
    with usage():
        phases = [phase_of(i, scenario.challenge).name for i in args.model_id]
    return [model_path(root, scenario, phase, i) for phase, i in zip(phases, args.model_id)]


def _scored(args: argparse.Namespace, model_id: int) -> Phase | None:
    """The scored phase of the scenario's challenge, else of any, that has a model; or None."""
    challenges = [get_scenario(args.scenario).challenge] if args.scenario else CHALLENGES
    phases = [phase for challenge in challenges for phase in phases_of(challenge).values()]
    return next((p for p in phases if p.scored and model_id in p.model_ids), None)


def _seeds(args: argparse.Namespace) -> list[Any]:
    from mico_competition.competition.splits import Seeds, derive_seeds, draw_seeds

    ids = args.model_id or [None]
    given = [getattr(args, name) for name in _SEEDS]
    if len(ids) > 1 and (args.split_seed is not None or any(s is not None for s in given)):
        raise UsageError(
            "A range of --model_id draws fresh seeds: leave out --split_seed and --seed_*."
        )
    if all(seed is not None for seed in given):
        if args.split_seed is not None:
            raise UsageError("Give --split_seed, or the three --seed_*, not both.")
        return [Seeds(*given)]
    if any(seed is not None for seed in given):
        missing = [f"--{name}" for name, seed in zip(_SEEDS, given) if seed is None]
        raise UsageError(f"Give {' and '.join(missing)} too, or none of the three --seed_*.")
    scored = None if ids[0] is None else _scored(args, ids[0])
    if args.split_seed is not None and scored is not None:
        raise UsageError(
            f"--split_seed is not for phase {scored.name}: anybody with seed_challenge "
            f"can find the other seeds by trying; leave it out."
        )
    if args.split_seed is not None:
        return [derive_seeds(args.split_seed)]
    return [draw_seeds() for _ in ids]


def _plan(args: argparse.Namespace, settings: Settings, folder: Path) -> dict[str, Any]:
    """The resolved settings, the noise for the target, and the checks that passed; no seed.

    Raises:
        ValueError: as training would, for faults that show without training.
    """
    from mico_competition.training.model_folder import refuse_folder_in_use
    from mico_competition.training.preflight import check_run
    from mico_competition.training.train import mechanism_of

    if args.output_dir or (args.scenario and args.model_id):  # otherwise nobody has chosen it
        refuse_folder_in_use(folder)
    plan: dict[str, Any] = {**settings.public(), "output_dir": str(folder)}
    data, reason = _data_at_hand(args, settings)
    model_at_hand = not get_task(settings.task).text or Path(settings.model_name or "").is_dir()
    if model_at_hand:
        check_run(settings, data)
    parts = ["settings", *["model"] * model_at_hand, *["first records"] * (data is not None)]
    plan["checked"] = ", ".join(parts)
    if reason:
        plan["not_checked"] = reason
    mechanism = mechanism_of(settings)
    if mechanism is not None:
        plan["noise_multiplier"] = mechanism.noise_multiplier
        plan["epsilon"] = mechanism.epsilon(settings.target_delta)
    if data is not None:
        from mico_competition.cli.fleet_plan import estimate, values
        from mico_competition.models.inputs import prepare

        plan["cost"] = values(estimate(settings, prepare(settings.task, data, None)[0]))
    return plan


def _not_checked(args: argparse.Namespace, settings: Settings, reason: str) -> str:
    """A message that the data were not checked, with the command that fetches and checks them."""
    task = get_task(settings.task)
    if ":" in task.loader:  # `reason` begins with its name
        return f"mico: Not checked: the data. {reason.rstrip('.')}."
    sentence = f"mico: Not checked: the data. {reason[:1].upper()}{reason[1:].rstrip('.')}."
    if task.text or args.download:
        return sentence
    names = ("scenario", "task", *Settings.__dataclass_fields__, "dataset_dir")
    given = {name: getattr(args, name, None) for name in names}
    flags = [
        f"--{name}" if value is True else f"--{name} {quote(str(value))}"
        for name, value in given.items()
        if value is not None and (name, value) != ("dataset_dir", Path("."))
    ]
    command = " ".join(["mico train", *flags, "--download --dry_run"])
    return f"{sentence} `{command}` fetches and checks them."


def _data_at_hand(args: argparse.Namespace, settings: Settings) -> tuple[Any, str]:
    """The dataset, downloaded only on request; or None and the reason why it cannot be read."""
    from mico_competition.data.datasets import load_dataset

    if get_task(settings.task).text:
        return None, "sentences are tokenised when they are trained on"
    try:
        return load_dataset(settings.task, args.dataset_dir, args.download), ""
    except (OSError, ValueError) as error:
        if ":" in get_task(settings.task).loader and not isinstance(error, OSError):
            raise  # the loader of a competition's own ran, and gave something else than it should
        return None, str(error)


def _summary(metadata: dict[str, Any], folder: Path) -> str:
    results, privacy = metadata["results"], metadata["privacy"]
    cost = (
        f"epsilon {privacy['epsilon']:.3f}, delta {privacy['delta']:g}" if privacy else "no privacy"
    )
    accuracy = results["accuracy"]
    score = "no evaluation records" if accuracy is None else f"evaluation accuracy {accuracy:.4f}"
    return f"{folder}: {score}, {cost}, {metadata['wall_time_seconds']:.1f} s"


def main_of_task(task: str, argv: list[str] | None = None) -> int:
    """The command line of `training/train_<task>.py`."""
    use(None)  # 2022's commands, for 2022's tasks
    parser = Parser(prog=f"train_{task}.py", allow_abbrev=False)
    parser.description = f"Train one model of {TASKS[task].title}, privately or not."
    add_train(parser, task)
    for name in _IGNORED_2022:
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.set_defaults(optimizer=SCENARIOS[f"{task}_inf"].optimizer)  # a task's rows have one
    return run_command(parser, argv)
