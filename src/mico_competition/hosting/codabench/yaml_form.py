"""Writes competition.yaml in Codabench's form (version 2) or in CodaLab's (1.5).

The package `rules` checks what each key means to which platform, and which keys are refused or
ignored.
"""

from __future__ import annotations

from typing import Any

from mico_competition.competition.table import SCORED_PHASES
from mico_competition.hosting.codabench.facts import PHASE_TITLES, Facts, Schedule, date_text
from mico_competition.hosting.codabench.options import CODABENCH, CODALAB, Options

YAML_FILE = "competition.yaml"
LOGO_FILE = "logo.png"
PROGRAM_FILE = "scoring_program.zip"
STARTING_KIT_FILE = "starting_kit.zip"
PUBLIC_DATA_FILE = "public_data.zip"

# Pages in the order of their tabs; the terms are separate on both platforms.
PAGES = {"overview": "Overview", "evaluation": "Evaluation", "data": "Data"}
TERMS = "terms"

PRECISION = 4


def reference_file(phase: str) -> str:
    """The file of a phase's reference data."""
    return f"reference_data_{phase}.zip"


def page_file(page: str, platform: str) -> str:
    """The file of a page: Codabench renders Markdown, CodaLab needs HTML."""
    return f"pages/{page}.{'md' if platform == CODABENCH else 'html'}"


def yaml_text(facts: Facts, schedule: Schedule, options: Options) -> str:
    """The text of competition.yaml, in the form of `options.platform`."""
    import yaml

    form = _version_2 if options.platform == CODABENCH else _version_15
    spec = form(facts, schedule, options)
    text: str = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100)
    return text


def _description(facts: Facts) -> str:
    titles = ", ".join(task.title for task in facts.tasks)
    return f"Membership Inference Competition: which records of {titles} were models trained on?"


def _spans(schedule: Schedule) -> dict[str, tuple[str, str]]:
    """The start and end of each phase."""
    return {
        SCORED_PHASES[0]: (date_text(schedule.dev_start), date_text(schedule.dev_end)),
        SCORED_PHASES[1]: (date_text(schedule.final_start), date_text(schedule.end)),
    }


def _extras(options: Options, phase: str) -> dict[str, str]:
    """The files for participants, only with the first phase, since each mention stores a copy."""
    if phase != SCORED_PHASES[0]:
        return {}
    return {name.removesuffix(".zip"): name for name in options.extras}


def _version_2(facts: Facts, schedule: Schedule, options: Options) -> dict[str, Any]:
    """competition.yaml in Codabench's form."""
    told = {"contact_email": options.contact_email, "reward": options.reward}
    return {
        "version": 2,
        "title": options.title or facts.title,
        "description": _description(facts),
        "image": LOGO_FILE,
        "terms": page_file(TERMS, CODABENCH),
        **{key: text for key, text in told.items() if text is not None},
        "registration_auto_approve": False,
        "docker_image": options.docker_image,
        "enable_detailed_results": True,
        "pages": [
            {"title": title, "file": page_file(page, CODABENCH)} for page, title in PAGES.items()
        ],
        # One task a phase: phases with several do not migrate.
        "tasks": [
            {
                "index": i,
                "name": f"{options.title or facts.title} - {PHASE_TITLES[phase]}",
                "description": f"Scores predictions on the {facts.count(phase)} {phase} models",
                "scoring_program": PROGRAM_FILE,
                "reference_data": reference_file(phase),
            }
            for i, phase in enumerate(SCORED_PHASES)
        ],
        "phases": [
            _phase_2(facts, schedule, options, i, phase) for i, phase in enumerate(SCORED_PHASES)
        ],
        # The first leaderboard is that of all phases, and others are lost.
        "leaderboards": [
            {
                "title": "Results",
                "key": "results",
                "submission_rule": "Force_Last",  # by default nothing gets on the board
                "columns": [
                    {
                        "index": i,
                        "key": column.key,
                        "title": column.title,
                        "sorting": "desc",
                        "precision": PRECISION,
                    }
                    for i, column in enumerate(facts.columns())
                ],
            }
        ],
    }


def _phase_2(
    facts: Facts, schedule: Schedule, options: Options, index: int, phase: str
) -> dict[str, Any]:
    start, end = _spans(schedule)[phase]
    spec: dict[str, Any] = {
        "index": index,
        "name": PHASE_TITLES[phase],
        "description": f"Scored on the {facts.count(phase)} {phase} models",
        "start": start,
        "end": end,
        "max_submissions_per_day": options.all_limits[phase].per_day,
        "max_submissions": options.all_limits[phase].in_all,
        "execution_time_limit": options.time_limit,
    }
    if index:
        spec["auto_migrate_to_this_phase"] = True
        spec.update(hide_output=True, hide_prediction_output=True, hide_score_output=True)
    return {**spec, **_extras(options, phase), "tasks": [index]}


def _version_15(facts: Facts, schedule: Schedule, options: Options) -> dict[str, Any]:
    """competition.yaml in CodaLab's form.

    Legacy CodaLab crashes on unknown keys, so there are no keys of Codabench, not even `version`;
    without it, Codabench assumes 1.5.  Its `reward` is a number: the pages state the reward.
    """
    return {
        "title": options.title or facts.title,
        "description": _description(facts),
        "image": LOGO_FILE,
        "competition_docker_image": options.docker_image,
        "has_registration": True,
        "enable_detailed_results": True,
        "force_submission_to_leaderboard": True,
        "end_date": date_text(schedule.end),
        "html": {page: page_file(page, CODALAB) for page in (*PAGES, TERMS)},
        "phases": {
            i: _phase_15(facts, schedule, options, i, phase)
            for i, phase in enumerate(SCORED_PHASES, start=1)
        },
        "leaderboard": _leaderboard_15(facts),
    }


def _phase_15(
    facts: Facts, schedule: Schedule, options: Options, number: int, phase: str
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "phasenumber": number,
        "label": PHASE_TITLES[phase],
        "description": f"Scored on the {facts.count(phase)} {phase} models",
        "start_date": _spans(schedule)[phase][0],
        "max_submissions_per_day": options.all_limits[phase].per_day,
        "max_submissions": options.all_limits[phase].in_all,
        "execution_time_limit": options.time_limit,
        "is_scoring_only": True,
        "scoring_program": PROGRAM_FILE,
        "reference_data": reference_file(phase),
    }
    if number > 1:
        spec.update(auto_migration=True, leaderboard_management_mode="hide_results")
    return {**spec, **_extras(options, phase)}


def _leaderboard_15(facts: Facts) -> dict[str, Any]:
    """One leaderboard; YAML anchors tie each column to it and to its scenario's group."""
    results = {"label": "Results", "rank": 1}
    columns = facts.columns()
    groups = {
        f"group_{i}": {"label": label, "rank": i}
        for i, label in enumerate(dict.fromkeys(column.group for column in columns), start=1)
    }
    by_label = {group["label"]: group for group in groups.values()}
    return {
        "leaderboards": {"results": results},
        "column_groups": groups,
        "columns": {
            column.key: {
                "leaderboard": results,
                "column_group": by_label[column.group],
                "label": column.title,
                "sort": "desc",
                "numeric_format": PRECISION,
                "rank": rank,
            }
            for rank, column in enumerate(columns, start=1)
        },
    }
