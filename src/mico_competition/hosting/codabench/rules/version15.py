"""Rules of legacy CodaLab for competition.yaml in its own form, 1.5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    choice_rule,
    error,
    keys,
    log,
    plain,
    says,
    shown,
    silent,
    text_rule,
    warning,
    whole,
)
from mico_competition.hosting.codabench.rules.files import (
    data_rule,
    image_rule,
    page_rule,
    program_rule,
    public_rule,
    reference_rule,
)
from mico_competition.hosting.codabench.rules.phases import limits_rule, read_date

# Fields of legacy CodaLab's tables; it crashes on any other key.
TOP = keys(
    "title description image has_registration start_date end_date published html phases "
    "leaderboard admin_names competition_docker_image force_submission_to_leaderboard "
    "disallow_leaderboard_modifying enable_medical_image_viewer enable_detailed_results "
    "show_datasets_from_yaml reward allow_teams enable_per_submission_metadata "
    "allow_public_submissions enable_forum anonymous_leaderboard enable_teams "
    "require_team_approval hide_top_three hide_chart allow_organizer_teams"
)
PHASE = keys(
    "phasenumber label description start_date max_submissions max_submissions_per_day "
    "max_submission_size is_scoring_only scoring_program reference_data input_data datasets "
    "leaderboard_management_mode force_best_submission_to_leaderboard auto_migration "
    "execution_time_limit color phase_never_ends scoring_program_docker_image "
    "default_docker_image disable_custom_docker_image starting_kit public_data "
    "ingestion_program ingestion_program_docker_image ingestion_program_only_during_scoring "
    "is_parallel_parent parent_phasenumber"
)
PAGES = ("overview", "evaluation", "data", "terms")
LIMIT = 50  # characters of a label


def version15_rules(spec: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    """All faults of a bundle in CodaLab's form."""
    yield from _crash_rule("", spec, TOP)
    yield from text_rule("", spec, "title", 100)
    if spec.get("competition_docker_image"):
        yield from text_rule("", spec, "competition_docker_image", 128)
    else:
        what = silent("uses its own image, which has changed before (#3263)")
        fix = "Name the image in which the program was tested."
        yield warning("competition_docker_image", what, fix)
    first = next((name for name in archive.names if ".yaml" in name), None)
    if first != "competition.yaml":
        what = f"Legacy CodaLab reads the first file with .yaml in its name, which is {first}."
        yield error("competition.yaml", what, "Put competition.yaml first into the zip.")
    yield from image_rule("image", archive, spec.get("image"))
    yield from _html_rule(spec.get("html"), archive)
    yield from _phases_rule(spec, archive)
    yield from _board_rule(spec.get("leaderboard"))


def _crash_rule(where: str, entry: Mapping[str, Any], known: frozenset[str]) -> Iterator[Fault]:
    for key in entry:
        if key not in known:
            what = "Legacy CodaLab crashes on a key that is not a field of its tables."
            yield error(f"{where}.{key}" if where else str(key), what, "Take it out.")


def _html_rule(pages: Any, archive: Archive) -> Iterator[Fault]:
    if not isinstance(pages, dict):
        words = "HTML pages could not be found in the yaml file"
        fix = "List pages under `html`; or, in a file of version 2, write `version: 2`."
        yield error("html", says(words) + ".", fix)
        return
    for page in PAGES:
        if page not in pages:
            what = f"Legacy CodaLab crashes without a page `{page}`."
            yield error("html", what, "Name a file for it.")
    for page, name in pages.items():
        yield from page_rule(f"html.{page}", archive, name, f"Could not find file for page: {page}")


def _phases_rule(spec: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    phases = spec.get("phases")
    if not isinstance(phases, dict) or not phases:
        words = "No phases could be found for this competition"
        yield error("phases", says(words) + ".", "Map numbers to phases: 1: {phasenumber: 1, ...}.")
        return
    starts = []
    for number, phase in phases.items():
        where = f"phases.{number}"
        if not isinstance(phase, dict):
            yield error(where, f"{shown(phase)} is not a mapping.", "Write its keys below it.")
            continue
        for key in ("phasenumber", "label", "start_date"):
            if key not in phase:
                yield error(where, log(f"'{key}'") + ".", f"Give the phase a `{key}`.")
        yield from _phase_rule(where, phase, archive)
        if phase.get("auto_migration") and phase is next(iter(phases.values())):
            what = silent("migrates nothing to the first phase")
            fix = "Leave it to the phases after the first."
            yield warning(f"{where}.auto_migration", what, fix)
        start, found = read_date(f"{where}.start_date", phase.get("start_date"))
        yield from found
        order = phase.get("phasenumber")
        if start is not None and isinstance(order, int):
            starts.append((order, start, where))
    yield from read_date("end_date", spec.get("end_date"))[1]
    for (_, one, _), (_, two, where) in pairwise(sorted(starts)):
        if two <= one:
            what = "The phase starts no later than the one before it."
            yield error(f"{where}.start_date", what, "Order phases by their start.")


def _phase_rule(where: str, phase: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    """The faults of one phase."""
    yield from _crash_rule(where, phase, PHASE)
    yield from text_rule(where, phase, "label", LIMIT)
    yield from limits_rule(where, phase)
    if phase.get("leaderboard_management_mode", "default") not in ("default", "hide_results"):
        what = silent("shows all results: it does not know the mode")
        fix = "Write hide_results, or take it out."
        yield warning(f"{where}.leaderboard_management_mode", what, fix)
    for key in ("scoring_program", "reference_data"):
        if key not in phase:
            what = silent(f"every submission then fails: there is no {key}")
            yield error(where, what, "Name its zip.")
    for key in ("scoring_program", "reference_data", "public_data", "starting_kit"):
        if key in phase:
            yield from data_rule(f"{where}.{key}", archive, phase[key])
    yield from program_rule(where, archive, phase.get("scoring_program"), file="metadata")
    yield from reference_rule(f"{where}.reference_data", archive, phase.get("reference_data"))
    for key in ("public_data", "starting_kit"):
        yield from public_rule(f"{where}.{key}", archive, phase.get(key))


def _board_rule(board: Any) -> Iterator[Fault]:
    """`leaderboard` with its `leaderboards`, `column_groups` and `columns`."""
    if not isinstance(board, dict):
        words = "Could not find leaderboard in the competition yaml"
        yield error("leaderboard", says(words) + ".", "Write one, with leaderboards and columns.")
        return
    labels: dict[str, set[str]] = {}
    for part in ("leaderboards", "column_groups"):
        entries = board.get(part)
        entries = entries.values() if isinstance(entries, dict) else ()
        labels[part] = {plain(one.get("label")) for one in entries if isinstance(one, dict)}
    columns = board.get("columns")
    if not labels["leaderboards"] or not isinstance(columns, dict) or not columns:
        words = "Could not find leaderboards and columns declared on the competition leaderboard"
        yield error("leaderboard", says(words) + ".", "Map a name to each.")
        return
    for key, one in board["leaderboards"].items():
        place = f"leaderboard.leaderboards.{key}"
        for needed in ("label", "rank"):
            if isinstance(one, dict) and needed not in one:
                yield error(place, log(f"'{needed}'") + ".", f"Give it a `{needed}`.")
    for key, column in columns.items():
        yield from _column_rule(str(key), column, labels)


def _column_rule(key: str, column: Any, labels: Mapping[str, set[str]]) -> Iterator[Fault]:
    """One column; `labels` are those of the leaderboards and of the groups."""
    where = f"leaderboard.columns.{key}"
    if not isinstance(column, dict):
        yield error(where, f"{shown(column)} is not a mapping.", "Write its keys below it.")
        return
    if len(plain(column.get("label", key))) > LIMIT:
        yield error(f"{where}.label", f"Legacy CodaLab keeps {LIMIT} letters.", "Shorten it.")
    yield from choice_rule(where, column, "sort", ("desc", "asc"))
    if "numeric_format" in column and whole(column["numeric_format"]) is None:
        what = "Codabench, which also reads such bundles, accepts whole numbers only."
        fix = "Write a number of digits, such as 4."
        yield warning(f"{where}.numeric_format", what, fix)
    for name, part in (("leaderboard", "leaderboards"), ("column_group", "column_groups")):
        one = column.get(name)
        if one is None and name == "column_group":
            continue
        if not isinstance(one, dict) or plain(one.get("label")) not in labels[part]:
            what = f"It is not one of the {part}, so legacy CodaLab crashes, or loses the column."
            yield error(f"{where}.{name}", what, "Refer to one by its anchor, such as *id001.")
