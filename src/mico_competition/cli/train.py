"""`mico train`: 2022's flags -> settings and seeds -> one trained model.

The scripts in `training/` call it with their task.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mico_competition.cli.train_runs import folders_of, runs_of, seeds_of
from mico_competition.competition.table import (
    OPTIMIZERS,
    PRECISIONS,
    SCENARIOS,
    SEED_FILES,
    TASKS,
    use,
)
from mico_competition.support.command_line import (
    Parser,
    UsageError,
    load_torch,
    model_ids,
    output_folder,
    path_or_name,
    run_command,
    usage,
)
from mico_competition.support.progress import say, tracked
from mico_competition.support.reports import add_json
from mico_competition.support.stopping import politely
from mico_competition.training.settings import Settings, resolve

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
    "max_physical_batch_size": (
        int,
        "most examples of a model in one forward pass: memory and speed",
    ),
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
    if task is None:
        parser.add_argument(
            "scenario",
            metavar="SCENARIO",
            nargs="?",
            choices=scenarios,
            action=_Scenario,
            help="the same as --scenario",
        )
    parser.add_argument(
        "--scenario",
        choices=scenarios,
        action=_Scenario,
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
    for name in SEED_FILES:
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
        help="the model's id, which determines its phase; a range trains all that are not "
        "finished, with fresh seeds",
    )
    add_data(parser)
    parser.add_argument(
        "--output_dir",
        type=output_folder,
        help="with --scenario and --model_id: <challenge>/<scenario>/<phase>/model_<id> is "
        "created below it (default: .); otherwise the model's own folder",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the run and print its settings; train nothing"
    )
    add_checkpoints(parser)
    add_json(parser)
    parser.set_defaults(run=run_train, task=task)


class _Scenario(argparse.Action):
    """The scenario, named with its flag or without, but not two of them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values is None:
            return
        if namespace.scenario not in (None, values):
            parser.error(f"name one scenario, not both {namespace.scenario} and {values}")
        namespace.scenario = values


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
        "--precision",
        choices=PRECISIONS,
        help="of forward and backward passes; norms, sums, noise and weights of private training "
        "are float32 in all three (default: the scenario's, float32)",
    )
    parser.add_argument(
        "--cuda_graphs",
        action="store_const",
        const=True,
        help="on a GPU, repeat the passes of a step from a recording, which starts them "
        "faster; not measured on a GPU yet",
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
    """Resolve the settings, check them, load the data, train what is missing, and sum up."""
    settings = settings_of(args)
    if args.json and not args.dry_run:
        raise UsageError("--json is for --dry_run.")
    seeds = seeds_of(args)
    folders = folders_of(args)
    if args.dry_run:
        from mico_competition.cli.train_plan import print_plan

        print_plan(args, settings, folders)
        return
    load_torch()
    check_track(args)
    from mico_competition.data.datasets import load_dataset
    from mico_competition.models.inputs import prepare
    from mico_competition.training.train import mechanism_of
    from mico_competition.training.train_many import train_many

    mechanism_of(settings)  # before data are read
    data, tokenizer = prepare(
        settings.task,
        load_dataset(settings.task, args.dataset_dir, args.download),
        settings.model_name,
    )
    minutes = checkpoint_minutes(args)
    runs = runs_of(args, settings, data, seeds, folders, minutes)
    trained = train_many(settings, data, runs, tokenizer=tokenizer)
    shown = tracked(trained, "Models", "model", total=len(runs), show=len(runs) > 1)
    with politely():
        for run, metadata in zip(runs, shown):
            say(_summary(metadata, run.folder))


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
