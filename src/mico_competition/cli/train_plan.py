"""`mico train --dry_run`: the checked settings of a run and what it will cost."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from mico_competition.competition.table import METADATA_FILE, get_task
from mico_competition.support.reports import report
from mico_competition.training.settings import Settings


def print_plan(args: argparse.Namespace, settings: Settings, folders: Sequence[Path]) -> None:
    """Check the first model that is to be trained, and print the settings and costs."""
    folder = next((f for f in folders if not (f / METADATA_FILE).is_file()), folders[0])
    plan = _plan(args, settings, folder)
    print(json.dumps(plan, indent=2))
    report("train plan", plan=plan)
    if "not_checked" in plan:
        print(_not_checked(args, settings, plan["not_checked"]), file=sys.stderr)


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
