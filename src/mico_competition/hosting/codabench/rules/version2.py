"""Rules for Codabench's form of competition.yaml, `version: 2`, except phases and leaderboards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.board import boards_rule
from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    error,
    keys,
    log,
    mappings,
    plain,
    says,
    silent,
    text_rule,
    unknown_keys,
    warning,
)
from mico_competition.hosting.codabench.rules.files import (
    data_rule,
    image_rule,
    page_rule,
    program_rule,
    reference_rule,
)
from mico_competition.hosting.codabench.rules.phases import phases_rule

DEFAULT_IMAGE = "codalab/codalab-legacy:py37"
TOP = keys(
    "version title image terms pages tasks phases leaderboards description docker_image "
    "registration_auto_approve enable_detailed_results show_detailed_results_in_submission_panel "
    "show_detailed_results_in_leaderboard auto_run_submissions make_programs_available "
    "can_participants_make_submissions_public make_input_data_available competition_type "
    "fact_sheet reward contact_email forum_enabled queue solutions"
)
PAGE = frozenset({"title", "file"})
TASK = keys(
    "index name key description scoring_program reference_data input_data ingestion_program "
    "ingestion_only_during_scoring"
)
TASK_FILES = ("scoring_program", "reference_data", "input_data", "ingestion_program")


def version2_rules(spec: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    """All faults of a bundle whose competition.yaml says `version: 2`."""
    yield from _top_rule(spec)
    yield from image_rule("image", archive, spec.get("image"))
    if spec.get("terms"):
        yield from page_rule("terms", archive, spec["terms"])
    else:
        words = (
            "A file containing the terms of this competition has not been supplied in the "
            "required location"
        )
        yield error("terms", says(words) + ".", "Name a Markdown file.")
    yield from _pages_rule(spec, archive)
    known, faults = _tasks(spec, archive)
    yield from faults
    yield from phases_rule(spec, archive, known)
    yield from boards_rule(spec)


def _top_rule(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """Texts and choices at the top level."""
    yield from unknown_keys("", spec, TOP)
    yield from text_rule("", spec, "title", 256)
    if "docker_image" not in spec:
        what = silent(f"takes {DEFAULT_IMAGE}, with Python 3.7")
        yield warning("docker_image", what, "Name the image that the program was tried in.")
    else:
        yield from text_rule("", spec, "docker_image", 128)


def _pages_rule(spec: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    pages, faults = mappings("pages", spec.get("pages"))
    yield from faults
    for where, page in pages:
        yield from unknown_keys(where, page, PAGE)
        yield from text_rule(where, page, "title")
        if "file" not in page:
            yield error(where, log("'file'") + ".", "Give the page a `file`.")
        else:
            yield from page_rule(f"{where}.file", archive, page["file"])


def _tasks(spec: Mapping[str, Any], archive: Archive) -> tuple[set[Any], list[Fault]]:
    """The indexes of the existing tasks, and the faults of all."""
    if "tasks" not in spec:
        words = says("No tasks listed in this competition") + "."
        return set(), [error("tasks", words, "List a task for each phase.")]
    tasks, faults = mappings("tasks", spec["tasks"])
    if not tasks and not faults:
        what = silent("the competition has nothing to score with")
        faults.append(error("tasks", what, "List a task for each phase."))
    indexes: set[Any] = set()
    for where, task in tasks:
        faults += unknown_keys(where, task, TASK)
        index = task.get("index")
        name = plain(task.get("name") or task.get("key"))
        if index is None or isinstance(index, (dict, list)):
            words = f"ERROR: No index for task: {name}"
            faults.append(error(where, says(words) + ".", "Number tasks from 0 on."))
        elif index in indexes:
            words = f"ERROR: Duplicate task indexes. Index: {plain(index)}"
            faults.append(error(f"{where}.index", says(words) + ".", "Number tasks from 0 on."))
        else:
            indexes.add(index)
        if "key" not in task:
            faults += _task_rule(where, task, archive)
    return indexes, faults


def _task_rule(where: str, task: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    """A task that the bundle itself brings."""
    yield from text_rule(where, task, "name")
    if "scoring_program" not in task:
        label = plain(task.get("name") or task.get("index"))
        words = f'ERROR: Task "{label}" does not have a scoring program'
        yield error(where, says(words) + ".", "Name the zip of one.")
    for key in TASK_FILES:
        if key in task:
            yield from data_rule(f"{where}.{key}", archive, task[key])
    yield from program_rule(where, archive, task.get("scoring_program"))
    if "reference_data" not in task:
        what = silent("the scoring program gets no truth")
        yield warning(where, what, "Name the zip of the reference data.")
    else:
        yield from reference_rule(f"{where}.reference_data", archive, task["reference_data"])
