"""Checks of single rows of a competition's file, beyond the form of their values.

Each fault comes with its column, or with "" for the whole row.
"""

from __future__ import annotations

from collections.abc import Iterator

from mico_competition.competition.columns import known_code
from mico_competition.competition.names import twins
from mico_competition.competition.rows import (
    ARCHITECTURES,
    SEED_FILES,
    SOLUTION_FILE,
    USUAL_SUBMISSIONS,
    Disclosure,
    Hosting,
    Phase,
    Scenario,
    Task,
    check_lengths,
)

WEIGHTS = ("model.pt",)
TEXT_WEIGHTS = ("config.json", "model.safetensors|pytorch_model.bin")
TEXT_COMPANIONS = ("tokenizer.json", "tokenizer_config.json")

Faults = Iterator[tuple[str, str]]


def task_faults(task: Task) -> Faults:
    """The faults of a task."""
    n, m = task.len_training, task.len_challenge
    if n < m:
        what = f"training = {n} is below challenge = {m}, whose members are trained on"
        yield "training", f"{what}: raise one or lower the other"
    try:
        check_lengths(task.len_dataset, max(n, m), m)
    except ValueError:
        what = f"training = {n} + challenge = {m} exceed records = {task.len_dataset}"
        yield "training", f"{what}: train on fewer records"
    if task.class_names and len(task.class_names) != task.num_classes:
        what = f"class_names has {len(task.class_names)} names for {task.num_classes} classes"
        yield "class_names", f"{what}: name each class once"
    yield from _model_faults(task)
    yield from _file_faults(task)


def _model_faults(task: Task) -> Faults:
    if (task.max_length is None) != (task.base_model is None):
        what = "a text task has both max_length and base_model, and no other task has one"
        yield "", f"[task.{task.name}] has one of two: {what}"
    elif task.text:
        if ":" in task.architecture:
            what = "the model of a text task is a model type of transformers, such as roberta"
            yield "model", f"{what}; got {task.architecture}"
    else:
        try:
            known_code(task.architecture, ARCHITECTURES)
        except ValueError as error:
            yield "model", f"model: {error}"


def _file_faults(task: Task) -> Faults:
    if task.text and (len(task.weights) != 2 or task.weights[0] != TEXT_WEIGHTS[0]):
        what = 'a text model is in two files, its configuration "config.json" and its weights'
        yield "weights", f"weights: {what}; name the two in this order, or leave the column out"
    if not task.text and len(task.weights) != 1:
        what = f"a model is in one file, and {len(task.weights)} are named"
        yield "weights", f'weights: {what}; separate other names of that file by "|"'
    names = [name for part in (*task.weights, *task.companions) for name in part.split("|")]
    for one, other in twins(names):
        yield "weights", f"files {one!r} and {other!r} of a model would be one on some systems"
    for name in {name for name in names if names.count(name) > 1}:
        yield "weights", f"file {name!r} of a model is named twice: name it once"


def scenario_faults(scenario: Scenario, task: Task | None) -> Faults:
    """The faults of a scenario; its task may be missing."""
    if scenario.private and scenario.max_grad_norm is None:
        what = f"target_epsilon = {scenario.target_epsilon:g} needs max_grad_norm"
        yield "", f"{what}: add the norm that gradients are clipped to"
    if not scenario.private and scenario.max_grad_norm is not None:
        what = "max_grad_norm clips nothing where target_epsilon = inf: leave it out"
        yield "max_grad_norm", what
    if task is not None and scenario.batch_size > task.len_training:
        what = f"batch_size = {scenario.batch_size} exceeds training = {task.len_training}"
        yield "batch_size", f"{what} of task {task.name}: lower it"


def hosting_faults(hosting: Hosting) -> Faults:
    """The faults of what a platform allows."""
    a_day, in_all = hosting.max_submissions_per_day, hosting.max_submissions
    most = USUAL_SUBMISSIONS if in_all is None else in_all
    if a_day is not None and a_day > most:
        stated = f"max_submissions = {most}" if in_all else f"the usual max_submissions, {most}"
        what = f"max_submissions_per_day = {a_day} is above {stated}: lower it, or raise that"
        yield "max_submissions_per_day", what


def disclosure_faults(row: Disclosure) -> Faults:
    """The faults of a disclosure."""
    missing = [name for name in (*SEED_FILES, SOLUTION_FILE) if name not in row.train]
    if missing:
        yield "train", f"train lacks {', '.join(missing)}: participants learn from these models"
    for phase, names in (("dev", row.dev), ("final", row.final)):
        if SEED_FILES[0] not in names:
            what = "it determines the challenge points"
            yield phase, f"{phase} lacks {SEED_FILES[0]}: {what}"


def overlapping(phases: list[Phase]) -> Iterator[tuple[Phase, Phase]]:
    """The pairs of phases that have a model in common."""
    for i, one in enumerate(phases):
        for other in phases[i + 1 :]:
            last = min(one.model_ids.stop, other.model_ids.stop)
            if max(one.first, other.first) < last:
                yield one, other
