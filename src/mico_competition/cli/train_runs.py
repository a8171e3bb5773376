"""The models of one `mico train`: their folders and seeds, and which of them are to be trained."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mico_competition.competition.layout import ModelFolder, model_path
from mico_competition.competition.table import (
    CHALLENGES,
    METADATA_FILE,
    SEED_FILES,
    Phase,
    get_scenario,
    get_task,
    phase_of,
    phases_of,
)
from mico_competition.support.command_line import UsageError, usage
from mico_competition.support.progress import say
from mico_competition.training.settings import Settings, comparable

if TYPE_CHECKING:
    from mico_competition.training.train_many import Run

# What a message calls a fact whose values it does not give.
_WORDS = {
    "seeds": "other split seeds",
    "train_seed": "another train_seed",
    "dataset_fingerprint": "another dataset",
    "architecture_fingerprint": "code whose model computes something else",
}


def folders_of(args: argparse.Namespace) -> list[Path]:
    """The folder of each model of a command."""
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


def seeds_of(args: argparse.Namespace) -> list[Any]:
    """The seeds of each model of a command: those that were given, or fresh ones."""
    from mico_competition.competition.splits import Seeds, derive_seeds, draw_seeds

    ids = args.model_id or [None]
    given = [getattr(args, name) for name in SEED_FILES]
    if len(ids) > 1 and (args.split_seed is not None or any(s is not None for s in given)):
        raise UsageError(
            "A range of --model_id draws fresh seeds: leave out --split_seed and --seed_*."
        )
    if all(seed is not None for seed in given):
        if args.split_seed is not None:
            raise UsageError("Give --split_seed, or the three --seed_*, not both.")
        return [Seeds(*given)]
    if any(seed is not None for seed in given):
        missing = [f"--{name}" for name, seed in zip(SEED_FILES, given) if seed is None]
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


def runs_of(
    args: argparse.Namespace,
    settings: Settings,
    data: Any,
    seeds: Sequence[Any],
    folders: Sequence[Path],
    minutes: float,
) -> list[Run]:
    """The runs of the models that are not finished yet.

    Raises:
        ValueError: if a model is finished with other settings, data or code, or is damaged.
    """
    from mico_competition.training.checkpoint import Checkpoint
    from mico_competition.training.run_report import RunReport
    from mico_competition.training.trackers import open_tracker
    from mico_competition.training.train_many import Run

    facts, code = _facts_of(settings, data)
    drawn = args.split_seed is None and args.seed_challenge is None
    runs = []
    for seed, folder, model_id in zip(seeds, folders, args.model_id or [None]):
        place = Checkpoint.beside(folder, minutes=minutes, code=code)
        if args.scenario and model_id is not None and (folder / METADATA_FILE).is_file():
            model = ModelFolder(args.scenario, folder.parent.name, model_id, folder)
            _check_finished(model, facts(), None if drawn else seed)
            place.remove()  # killed when the model was just whole
            say(f"{folder} is finished: it is left as it is")
            continue
        seed = place.seeds() or seed if drawn else seed  # those of the run that was killed
        told = None
        if args.track is not None:
            tracker = open_tracker(args.track, folder.parent / "tracked", folder.name, settings)
            told = RunReport(settings, tracker=tracker)
        runs.append(Run(seed, folder, model_id, settings.train_seed, place, told))
    return runs


def _facts_of(
    settings: Settings, data: Any
) -> tuple[Callable[[], Mapping[str, Any]], Callable[[], str]]:
    """What computes the facts of finished models, and what the training fingerprint, once each."""
    from mico_competition.models.text_models import base_config
    from mico_competition.training.fingerprints import of_training
    from mico_competition.training.recipe import training_fingerprint
    from mico_competition.training.train import mechanism_of

    task = get_task(settings.task)

    def config() -> Any:
        return base_config(task, settings.model_name) if task.text else None

    @cache
    def facts() -> Mapping[str, Any]:
        mechanism = mechanism_of(settings)
        return {
            **comparable(settings.public()),
            **of_training(settings.task, data, config()),
            "train_seed": settings.train_seed,
            "noise_multiplier": None if mechanism is None else mechanism.noise_multiplier,
        }

    @cache
    def code() -> str:
        return training_fingerprint(settings, data, config())

    return facts, code


def _check_finished(model: ModelFolder, facts: Mapping[str, Any], seeds: Any) -> None:
    """Raise ValueError if a finished model is not what this command would train, or is damaged.

    `seeds` are those that the command names; None if it draws them.
    """
    from mico_competition.competition.challenge import read_seeds
    from mico_competition.competition.lengths import read_metadata
    from mico_competition.release.whole import check_whole

    check_whole([model])
    metadata = read_metadata(model.path)
    privacy = metadata.get("privacy") or {}
    there = {**metadata, **comparable(metadata.get("settings") or {})}
    there["noise_multiplier"] = privacy.get("noise_multiplier")
    if seeds is not None:
        facts = {**facts, "seeds": seeds}
        there["seeds"] = read_seeds(model.path)
    for name, value in facts.items():
        if there.get(name) != value:
            was = _WORDS.get(name, f"{name}={there.get(name)!r}")
            now = "" if name in _WORDS else f", and this command has {name}={value!r}"
            raise ValueError(
                f"{model.path} holds a model that was trained with {was}{now}: leave its id out, "
                "remove the folder, or choose another --output_dir."
            )
