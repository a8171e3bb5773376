"""The competition's pages: the texts in `pages/`, with every number filled in from the facts.

A text names what it needs as ${name}; a name that nothing fills is an error, so that no page goes
out with a hole.  "$" is kept from what is filled in: Codabench would take it for mathematics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from math import isinf
from string import Template

from mico_competition.bundles.facts import (
    PHASE_TITLES,
    Facts,
    ScenarioFacts,
    Schedule,
    date_text,
    metric_title,
)
from mico_competition.bundles.html import as_html
from mico_competition.bundles.yaml_form import (
    CODABENCH,
    LIMITS,
    LOGO_FILE,
    PAGES,
    TERMS,
    TIME_LIMIT,
    page_file,
)
from mico_competition.hub.listing import check_repository
from mico_competition.scoring.metrics import FPR_UNIT
from mico_competition.scoring.program import AVERAGED
from mico_competition.tracks import (
    METADATA_FILE,
    PHASES,
    PREDICTION_FILE,
    PUBLISHED,
    SCORED_PHASES,
    Task,
    disclosed_files,
)

_FILES = {
    "seed_challenge": "says which records are the model's challenge points",
    "seed_training": "says which other records the model was trained on",
    "seed_membership": "says which challenge points are members",
    "solution.csv": "one line: 1 for each challenge point that is a member, 0 for others",
    METADATA_FILE: "how the model was trained, and the ε and δ that this guarantees",
}
_WEIGHTS = "the trained model"
_METRICS = {
    AVERAGED: "the scenario's score",
    "TPR_FPR_100": "the same at a smaller FPR",
    "TPR_FPR_10": "the same at a smaller FPR still",
    "AUC": "area under the ROC curve; guessing gives 0.5",
    "MIA": "membership advantage: the largest difference TPR - FPR; guessing gives 0",
    "accuracy": "the best balanced accuracy over all thresholds; guessing gives 0.5",
}


def make_pages(
    facts: Facts, schedule: Schedule, platform: str, repo: str | None = None
) -> dict[str, bytes]:
    """Page files of a bundle, by name: Markdown for Codabench, HTML for CodaLab.

    Args:
        facts: the competition.
        schedule: when its phases are.
        platform: "codabench" or "codalab".
        repo: OWNER/NAME of the release on the Hugging Face Hub, to be named on the page about
            data; without it the page says that the organisers announce the place.

    Raises:
        ValueError: if `repo` is not of this form.
    """
    if repo is not None:
        check_repository(repo)
    values = _values(facts, schedule, repo)
    pages = {}
    for page in (*PAGES, TERMS):
        text = Template(_package_file(f"{page}.md").decode("utf-8")).substitute(values)
        pages[page_file(page, platform)] = (
            text if platform == CODABENCH else as_html(text)
        ).encode()
    return pages


def logo() -> bytes:
    """The competition's picture, a PNG (drawn by `logo.py`)."""
    return _package_file(LOGO_FILE)


def _package_file(name: str) -> bytes:
    return (files("mico_competition.bundles") / "pages" / name).read_bytes()


def _values(facts: Facts, schedule: Schedule, repo: str | None) -> dict[str, str]:
    """What each name on a page stands for."""
    rate = int(AVERAGED.rpartition("_")[2]) / FPR_UNIT
    return {
        "title": facts.title,
        "challenge": facts.challenge,
        "num_scenarios": str(len(facts.scenarios)),
        "num_models": str(sum(facts.count(phase) for phase in SCORED_PHASES)),
        "num_dev": str(facts.count(SCORED_PHASES[0])),
        "num_final": str(facts.count(SCORED_PHASES[1])),
        "num_predictions": str(sum(facts.count(phase) for phase in SCORED_PHASES)),
        "distinguisher": _knowledge(facts),
        "scenario_table": _scenario_table(facts),
        "without_privacy": _without_privacy(facts),
        "phase_table": _phase_table(facts, schedule),
        "pooled": _pooled(facts),
        "fpr": f"{rate:g}",
        "fpr_percent": f"{rate:.0%}",
        "ranking_title": facts.columns()[0].title,
        "metric_table": _table(
            ("column", "meaning"), [(metric_title(key), text) for key, text in _METRICS.items()]
        ),
        "layout": "\n".join(_layout(facts)),
        "values_per_file": _either(2 * s.len_challenge for s in facts.scenarios),
        "limit_table": _table(
            ("phase", "submissions a day", "in all"),
            [(PHASE_TITLES[p], str(lim.per_day), str(lim.in_all)) for p, lim in LIMITS.items()],
        ),
        "time_limit": str(TIME_LIMIT),
        "where": _where(facts.challenge, repo),
        "file_table": _file_table(facts),
        "file_list": _file_list(facts),
        "task_table": _task_table(facts),
        "loading": _loading(facts),
        "start": date_text(schedule.dev_start),
        "end": date_text(schedule.end),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _either(numbers: Iterable[int]) -> str:
    """One number, or all the different ones that scenarios have."""
    return " or ".join(dict.fromkeys(f"{number:,}" for number in numbers))


def _knowledge(facts: Facts) -> str:
    """What an attacker knows beside model and challenge points."""
    if facts.distinguisher:
        return (
            "In this track you also know all other records that a model was trained on, so the "
            "only question left is which challenge points were among them: the situation that "
            "differential privacy is defined by."
        )
    return (
        "Which other records a model was trained on is not told; they come from the same dataset, "
        "all of which you have."
    )


def _scenario_table(facts: Facts) -> str:
    rows = []
    for scenario in facts.scenarios:
        private = not isinf(scenario.epsilon)
        rows.append(
            (
                f"`{scenario.row.name}`",
                scenario.row.label,
                scenario.task.title,
                f"{scenario.epsilon:.2f}" if private else "none",
                f"{scenario.delta:g}" if private else "",
                f"{len(scenario.models[SCORED_PHASES[0]])}",
                f"{len(scenario.models[SCORED_PHASES[1]])}",
            )
        )
    return _table(("scenario", "name", "dataset", "ε", "δ", "dev models", "final models"), rows)


def _without_privacy(facts: Facts) -> str:
    """What the label of scenarios without privacy means, where there is one."""
    labels = [s.row.label for s in facts.scenarios if isinf(s.epsilon)]
    return f'"{labels[0]}" models are trained without such a promise.' if labels else ""


def _phase_table(facts: Facts, schedule: Schedule) -> str:
    spans = ((schedule.dev_start, schedule.dev_end), (schedule.final_start, schedule.end))
    rows = [
        (PHASE_TITLES[phase], date_text(start), date_text(end), str(facts.count(phase)))
        for phase, (start, end) in zip(SCORED_PHASES, spans)
    ]
    return _table(
        ("phase", "from", "to", "scored on"), [(*row[:3], f"{row[3]} models") for row in rows]
    )


def _pooled(facts: Facts) -> str:
    """The size of a scenario's pool, by phase."""
    return ", ".join(
        f"{_either(len(s.models[phase]) * 2 * s.len_challenge for s in facts.scenarios)} "
        f"predictions in {PHASE_TITLES[phase]}"
        for phase in SCORED_PHASES
    )


def _layout(facts: Facts) -> list[str]:
    """Paths of the first and the last prediction of each scenario and phase."""
    lines = []
    for scenario in facts.scenarios:
        for phase in SCORED_PHASES:
            ids = scenario.models[phase]
            folder = f"{facts.challenge}/{scenario.row.name}/{phase}"
            paths = [
                f"{folder}/model_{i}/{PREDICTION_FILE}" for i in dict.fromkeys(ids[:1] + ids[-1:])
            ]
            lines += [paths[0], *(["..."] if len(ids) > 2 else []), *paths[1:]]
    return lines


def _where(challenge: str, repo: str | None) -> str:
    source = repo or PUBLISHED.get(challenge)
    if repo is None:
        text = "The organisers announce where the models of this competition can be fetched."
        if source is None:
            return text
        return (
            f"{text} Those of the competition of 2022, whose members of `train` are known too, "
            f"are at [{source}](https://huggingface.co/datasets/{source})."
        )
    fetch = f"mico download {challenge} --repo {source}"
    return (
        f"At [{source}](https://huggingface.co/datasets/{source}). The package fetches all of it, "
        f"or a part, and checks what it fetched:\n\n```\n{fetch}\n{fetch} --phase train\n```"
    )


def _file_names(facts: Facts, task: Task, phase: str) -> list[str]:
    """Files that participants get of a model, weights first."""
    row = next(s.row for s in facts.scenarios if s.task == task)
    weights = [name.split("|")[0] for name in task.weights]
    return [*weights, *disclosed_files(row, phase), METADATA_FILE]


def _file_table(facts: Facts) -> str:
    rows = [
        (task.title, f"`{phase}`", ", ".join(f"`{n}`" for n in _file_names(facts, task, phase)))
        for task in facts.tasks
        for phase in PHASES
    ]
    return _table(("dataset", "phase", "files of a model"), rows)


def _file_list(facts: Facts) -> str:
    """What each file is."""
    names = {n: "" for t in facts.tasks for p in PHASES for n in _file_names(facts, t, p)}
    return "\n".join(f"- `{name}`: {_FILES.get(name, _WEIGHTS)}." for name in names)


def _task_table(facts: Facts) -> str:
    """Lengths of each scenario, once for those that share them."""
    rows: dict[tuple[str, ...], None] = {}
    for s in facts.scenarios:
        lengths = (s.len_dataset, s.len_training, s.len_challenge)
        row = (s.task.title, f"`load_{s.task.name}`", *(f"{n:,}" for n in lengths))
        rows[row] = None
    return _table(("dataset", "loaded by", "N", "n", "m"), rows)


def _loading(facts: Facts) -> str:
    first: ScenarioFacts = facts.scenarios[0]
    phase, task = SCORED_PHASES[0], first.task.name
    folder = f"{facts.challenge}/{first.row.name}/{phase}/model_{first.models[phase][0]}"
    names = ", ".join(sorted(["ChallengeDataset", "load_model", f"load_{task}"]))
    return f'''from mico_competition import {names}

dataset = load_{task}("data")
folder = "{folder}"
points = ChallengeDataset.from_path(folder, dataset).get_challenges()
model = load_model("{task}", folder)'''
