"""Rules for CodaLab's form of competition.yaml, 1.5, on legacy CodaLab and on Codabench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.rules.board15 import board15_rule
from mico_competition.hosting.codabench.rules.fault import (
    Fault,
    error,
    keys,
    log,
    plain,
    says,
    shown,
    silent,
    text_rule,
    warning,
)
from mico_competition.hosting.codabench.rules.files import (
    data_rule,
    image_rule,
    page_rule,
    program_rule,
    public_rule,
    reference_rule,
)
from mico_competition.hosting.codabench.rules.phases import Span, limits_rule, read_date

# Fields of legacy CodaLab's tables; any other key is an argument that they do not take.
LEGACY_TOP = keys(
    "title description image has_registration start_date end_date published html phases "
    "leaderboard admin_names competition_docker_image force_submission_to_leaderboard "
    "disallow_leaderboard_modifying enable_medical_image_viewer enable_detailed_results "
    "show_datasets_from_yaml reward allow_teams enable_per_submission_metadata "
    "allow_public_submissions enable_forum anonymous_leaderboard enable_teams "
    "require_team_approval hide_top_three hide_chart allow_organizer_teams"
)
LEGACY_PHASE = keys(
    "phasenumber label description start_date max_submissions max_submissions_per_day "
    "max_submission_size is_scoring_only scoring_program reference_data input_data datasets "
    "leaderboard_management_mode force_best_submission_to_leaderboard auto_migration "
    "execution_time_limit color phase_never_ends scoring_program_docker_image "
    "default_docker_image disable_custom_docker_image starting_kit public_data "
    "ingestion_program ingestion_program_docker_image ingestion_program_only_during_scoring "
    "is_parallel_parent parent_phasenumber"
)
IGNORED_TOP = (
    *("force_submission_to_leaderboard", "disallow_leaderboard_modifying", "anonymous_leaderboard"),
    *("allow_teams", "enable_teams", "admin_names"),
)
IGNORED_PHASE = (
    *("leaderboard_management_mode", "is_scoring_only", "max_submission_size"),
    "force_best_submission_to_leaderboard",
)
LEGACY_PAGES = ("overview", "evaluation", "data", "terms")


def version15_rules(spec: Mapping[str, Any], archive: Archive, *, legacy: bool) -> Iterator[Fault]:
    """All faults of a bundle in CodaLab's form, for legacy CodaLab or for Codabench."""
    yield from _top_rule(spec, archive, legacy)
    yield from image_rule("image", archive, spec.get("image"))
    yield from _html_rule(spec.get("html"), archive, legacy)
    yield from _phases_rule(spec, archive, legacy)
    yield from board15_rule(spec, legacy=legacy)


def _top_rule(spec: Mapping[str, Any], archive: Archive, legacy: bool) -> Iterator[Fault]:
    yield from text_rule("", spec, "title", 100 if legacy else 256)
    image = spec.get("competition_docker_image")
    if image:
        yield from text_rule("", spec, "competition_docker_image", 128)
    else:
        what = silent("takes an image of its own, which has changed before (#3263)")
        mend = "Name the image that the program was tried in."
        yield warning("competition_docker_image", what, mend)
    if not legacy:
        yield from _ignored_rule("", spec, IGNORED_TOP)
        return
    yield from _crash_rule("", spec, LEGACY_TOP)
    first = next((name for name in archive.names if ".yaml" in name), None)
    if first != "competition.yaml":
        what = f"Legacy CodaLab reads the first file with .yaml in its name, which is {first}."
        yield error("competition.yaml", what, "Put competition.yaml first into the zip.")


def _ignored_rule(where: str, entry: Mapping[str, Any], keys: Sequence[str]) -> Iterator[Fault]:
    for key in keys:
        if key in entry:
            what = silent("ignores what CodaLab's own key asks for")
            mend = "Use a bundle of version 2 there."
            yield warning(f"{where}.{key}" if where else key, what, mend)


def _crash_rule(where: str, entry: Mapping[str, Any], known: frozenset[str]) -> Iterator[Fault]:
    for key in entry:
        if key not in known:
            what = "Legacy CodaLab crashes on a key that is no field of its tables."
            yield error(f"{where}.{key}" if where else str(key), what, "Take it out.")


def _html_rule(pages: Any, archive: Archive, legacy: bool) -> Iterator[Fault]:
    if not isinstance(pages, dict):
        words = "HTML pages could not be found in the yaml file"
        mend = "List pages under `html`; or, in a file of version 2, write `version: 2`."
        yield error("html", says(words) + ".", mend)
        return
    if "terms" not in pages:
        words = (
            "A file containing the terms of the competition could not be located for this "
            "competition"
        )
        yield error("html", says(words) + ".", "Name a page `terms`.")
    for page in LEGACY_PAGES if legacy else ():
        if page not in pages and page != "terms":
            what = f"Legacy CodaLab crashes without a page `{page}`."
            yield error("html", what, "Name a file for it.")
    for page, name in pages.items():
        yield from page_rule(f"html.{page}", archive, name, f"Could not find file for page: {page}")


def _phases_rule(spec: Mapping[str, Any], archive: Archive, legacy: bool) -> Iterator[Fault]:
    phases = spec.get("phases")
    if not isinstance(phases, dict) or not phases:
        words = "No phases could be found for this competition"
        yield error("phases", says(words) + ".", "Map numbers to phases: 1: {phasenumber: 1, ...}.")
        return
    spans: list[tuple[Any, Span]] = []
    for number, phase in phases.items():
        where = f"phases.{number}"
        if not isinstance(phase, dict):
            yield error(where, f"{shown(phase)} is not a mapping.", "Write its keys below it.")
            continue
        for key in ("phasenumber", "label", "start_date"):
            if key not in phase:
                yield error(where, log(f"'{key}'") + ".", f"Give the phase a `{key}`.")
        yield from _phase_rule(where, phase, archive, legacy, first=not spans)
        start, found = read_date(f"{where}.start_date", phase.get("start_date"))
        yield from found
        order = phase.get("phasenumber")
        name = plain(phase.get("label"))
        spans.append((order if isinstance(order, int) else 0, Span(where, name, start, None)))
    _, found = read_date("end_date", spec.get("end_date"))
    yield from found
    yield from _gaps_rule([span for _, span in sorted(spans, key=lambda pair: pair[0])], legacy)


def _phase_rule(
    where: str, phase: Mapping[str, Any], archive: Archive, legacy: bool, *, first: bool
) -> Iterator[Fault]:
    """One phase by itself."""
    if legacy:
        yield from _crash_rule(where, phase, LEGACY_PHASE)
        yield from text_rule(where, phase, "label", 50)
        mode = phase.get("leaderboard_management_mode", "default")
        if mode not in ("default", "hide_results"):
            what = silent("shows all results: it does not know the mode")
            place = f"{where}.leaderboard_management_mode"
            yield warning(place, what, "Write hide_results, or take it out.")
    else:
        yield from _ignored_rule(where, phase, IGNORED_PHASE)
    yield from limits_rule(where, phase)
    if first and phase.get("auto_migration"):
        place, mend = f"{where}.auto_migration", "Leave it to the phases after the first."
        if legacy:
            yield warning(place, silent("migrates nothing to the first phase"), mend)
        else:
            words = "phases: You cannot auto migrate to the first phase of a competition"
            yield error(place, says(words) + ".", mend)
    if "scoring_program" not in phase:
        what = silent("every submission then fails: there is no scoring program (#2079)")
        yield error(where, what, "Name the zip of one.")
    if "reference_data" not in phase:
        severity = error if legacy else warning
        yield severity(where, "There is no reference data.", "Name the zip of the truth.")
    for key in ("scoring_program", "reference_data", "input_data", "public_data", "starting_kit"):
        if key in phase:
            yield from data_rule(f"{where}.{key}", archive, phase[key])
    yield from program_rule(where, archive, phase.get("scoring_program"), legacy=legacy)
    yield from reference_rule(f"{where}.reference_data", archive, phase.get("reference_data"))
    for key in ("public_data", "starting_kit"):
        yield from public_rule(f"{where}.{key}", archive, phase.get(key))


def _gaps_rule(spans: Sequence[Span], legacy: bool) -> Iterator[Fault]:
    """On Codabench a phase of this form ends a day before the next one starts."""
    for one, two in pairwise(spans):
        if one.start is None or two.start is None:
            continue
        place = f"{two.where}.start_date"
        if two.start <= one.start:
            what = f"Phase {two.name} starts no later than phase {one.name}."
            yield error(place, what, "Order phases by their start.")
        elif two.start - one.start <= timedelta(days=1):
            what = silent(f"on Codabench phase {one.name} has no length: it ends a day earlier")
            yield warning(place, what, "Leave more than a day, or use version 2.")
        elif not legacy:
            what = silent("no phase is open on the day before this one starts")
            yield warning(place, what, "Use version 2, where phases have an `end`.")
