"""The competition's pages: the texts in `pages/`, with every number filled in from the facts.

A text names what it needs as ${name}; a name that nothing fills is an error, so that no page goes
out with a hole.  "$" is kept from what is filled in: Codabench would take it for mathematics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from math import isinf
from string import Template

from mico_competition import __all__ as PUBLIC  # noqa: N812
from mico_competition.competition.table import (
    COMPETITION_FILE,
    METADATA_FILE,
    PHASES,
    PREDICTION_FILE,
    PUBLISHED,
    SCORED_PHASES,
    Task,
    current,
    disclosed_files,
)
from mico_competition.hosting.codabench.facts import (
    PHASE_TITLES,
    Facts,
    ScenarioFacts,
    Schedule,
    date_text,
)
from mico_competition.hosting.codabench.html import as_html
from mico_competition.hosting.codabench.yaml_form import (
    CODABENCH,
    LOGO_FILE,
    PAGES,
    TERMS,
    TIME_LIMIT,
    Options,
    page_file,
)
from mico_competition.hosting.hub.listing import check_repository
from mico_competition.scoring.metrics import FPR_UNIT, RANKED, TITLES

_FILES = {
    "seed_challenge": "says which records are the model's challenge points",
    "seed_training": "says which other records the model was trained on",
    "seed_membership": "says which challenge points are members",
    "solution.csv": "one line: 1 for each challenge point that is a member, 0 for others",
    METADATA_FILE: "how the model was trained, and the ε and δ that this guarantees",
}
_WEIGHTS = "the trained model"
_METRICS = {
    RANKED: "the scenario's score",
    "TPR_FPR_100": "the same at a smaller FPR",
    "TPR_FPR_10": "the same at a smaller FPR still",
    "AUC": "area under the ROC curve; guessing gives 0.5",
    "MIA": "the largest difference TPR - FPR, the membership advantage; guessing gives 0",
    "accuracy": "the best balanced accuracy over all thresholds; guessing gives 0.5",
}


_ADDRESS = re.compile(r"https?://[^\s<>()\[\]{}\"'`|\\$]+")
# Challenges that starting-kit/ has a notebook for.
_NOTEBOOKS = ("cifar10", "purchase100", "sst2", "ddp")


def make_pages(
    facts: Facts,
    schedule: Schedule,
    options: Options,
    repo: str | None = None,
    code: str | None = None,
) -> dict[str, bytes]:
    """Page files of a bundle, by name: Markdown for Codabench, HTML for CodaLab.

    Args:
        facts: the competition.
        schedule: when its phases are.
        options: the platform, and what Development allows.
        repo: OWNER/NAME of the release on the Hugging Face Hub, to be named on the page about
            data; without it the page says that the organisers announce the place.
        code: address of the repository that the package is installed from; without it the page
            says that the organisers announce it.

    Raises:
        ValueError: if `repo` or `code` is not of this form.
    """
    if repo is not None:
        check_repository(repo)
    if code is not None and not _ADDRESS.fullmatch(code):
        raise ValueError(
            f"Expected code={code!r} as an address that begins with https:// or http:// and holds "
            "no space, bracket or quote."
        )
    platform = options.platform
    values = _values(facts, schedule, options, repo)
    values["install"] = _install(facts.challenge, code)
    pages = {}
    for page in (*PAGES, TERMS):
        text = Template(_package_file(f"{page}.md").decode("utf-8")).substitute(values)
        pages[page_file(page, platform)] = (
            text if platform == CODABENCH else as_html(text)
        ).encode()
    return pages


def logo() -> bytes:
    """The competition's picture, a PNG of 400 x 400."""
    return _package_file(LOGO_FILE)


def _package_file(name: str) -> bytes:
    return (files("mico_competition.hosting.codabench") / "pages" / name).read_bytes()


def _values(facts: Facts, schedule: Schedule, options: Options, repo: str | None) -> dict[str, str]:
    """What each name on a page stands for."""
    rate = int(RANKED.rpartition("_")[2]) / FPR_UNIT
    return {
        "title": facts.title,
        "challenge": facts.challenge,
        "scenarios": _counted(len(facts.scenarios), "scenario"),
        "each_scenario": _each(len(facts.scenarios)),
        "what_ranks": _what_ranks(len(facts.scenarios)),
        "exactness": _exactness(options.step),
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
            ("column", "meaning"), [(TITLES[key], text) for key, text in _METRICS.items()]
        ),
        "layout": "\n".join(_layout(facts)),
        "values_per_file": _either(2 * s.len_challenge for s in facts.as_read),
        "limit_table": _table(
            ("phase", "submissions a day", "in all"),
            [
                (PHASE_TITLES[phase], str(limits.per_day), str(limits.in_all))
                for phase, limits in options.all_limits.items()
            ],
        ),
        "time_limit": str(TIME_LIMIT),
        "where": _where(facts.challenge, repo) + _of_own(facts.challenge),
        "file_table": _file_table(facts),
        "file_list": _file_list(facts),
        "records": _records(facts),
        "task_table": _task_table(facts),
        "loading": _loading(facts),
        "start": date_text(schedule.dev_start),
        "end": date_text(schedule.end),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    # A bar within a cell would end it.
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def _either(numbers: Iterable[int]) -> str:
    """One number, or all the different ones that scenarios have."""
    return " or ".join(dict.fromkeys(f"{number:,}" for number in numbers))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _each(scenarios: int) -> str:
    return "For the scenario" if scenarios == 1 else f"For each of the {scenarios} scenarios"


def _what_ranks(scenarios: int) -> str:
    if scenarios == 1:
        return "**It ranks submissions**"
    return f"**The mean over the {scenarios} scenarios ranks submissions**"


def _exactness(step: float) -> str:
    """How many digits Development shows, and why not all."""
    if not step:
        return "All numbers are exact, in Development too."
    return (
        f"In Development all numbers, those of the report too, are multiples of {step:g}, and "
        "there are no intervals: exact numbers would tell whoever chooses predictions for it which "
        "records are members. Equal numbers are ties. Final shows exact numbers, and so does "
        "`mico score` at home for phase train."
    )


def _install(challenge: str, code: str | None) -> str:
    """Where the package is to be had, and what of it runs at once."""
    where = f"[its repository]({code})" if code else "its repository, which the organisers announce"
    runs = f"`mico attack {challenge}` runs a simple attack"
    if challenge in _NOTEBOOKS:
        runs += f", and so does the notebook `starting-kit/{challenge}.ipynb`"
    return (
        f"Install the package `mico_competition`: `pip install -e .` in a copy of {where}. "
        f"It loads models and challenge points; {runs}."
    )


def _records(facts: Facts) -> str:
    """Where the records come from."""
    first = "The datasets are not part of the models' folders. The package "
    if all(task.loader in ("cifar10", "purchase100", "sst2") for task in facts.tasks):
        return f"{first}finds or fetches each from its official place:"
    return f"{first}loads each:"


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
    for scenario in facts.as_read:
        label, head = scenario.label, facts.heads[scenario.row.name]
        private = not isinf(scenario.epsilon)
        rows.append(
            (
                f"`{scenario.row.name}`",
                label if head == label else f"{label} (on the leaderboard: {head})",
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
    labels = [f'"{s.label}"' for s in facts.as_read if isinf(s.epsilon)]
    return f"{' and '.join(labels)} models are trained without such a promise." if labels else ""


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
        f"{_either(len(s.models[phase]) * 2 * s.len_challenge for s in facts.as_read)} "
        f"predictions in {PHASE_TITLES[phase]}"
        for phase in SCORED_PHASES
    )


def _layout(facts: Facts) -> list[str]:
    """Paths of the first and the last prediction of each scenario and phase."""
    lines = []
    for scenario in facts.as_read:
        for phase in SCORED_PHASES:
            ids = scenario.models[phase]
            folder = f"{facts.challenge}/{scenario.row.name}/{phase}"
            paths = [
                f"{folder}/model_{i}/{PREDICTION_FILE}" for i in dict.fromkeys(ids[:1] + ids[-1:])
            ]
            lines += [paths[0], *(["..."] if len(ids) > 2 else []), *paths[1:]]
    return lines


def _of_own(challenge: str) -> str:
    """What participants need of a competition that is not the package's."""
    table = current()
    if table.path is None:
        return ""
    code = " and ".join(f"`{name}`" for name in table.code)
    needs = f" It names code, {code}, which runs: read it first, and put it beside." if code else ""
    return (
        f"\n\nThe competition is described by `{challenge}.release/{COMPETITION_FILE}`: copy it "
        f"into a folder of yours.{needs} Every command takes it: `mico --competition "
        f"{COMPETITION_FILE} attack {challenge}`."
    )


def _where(challenge: str, repo: str | None) -> str:
    source = repo or (PUBLISHED.get(challenge) if current().path is None else None)
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


def _file_names(scenario: ScenarioFacts, phase: str) -> list[str]:
    """Files that participants get of a model, weights first."""
    weights = [name.split("|")[0] for name in scenario.task.weights]
    return [*weights, *disclosed_files(scenario.row, phase), METADATA_FILE]


def _file_table(facts: Facts) -> str:
    """Files by dataset and phase; once where scenarios of a dataset do not differ."""
    rows = [
        (s.task.title, f"`{phase}`", ", ".join(f"`{name}`" for name in _file_names(s, phase)))
        for s in facts.as_read
        for phase in PHASES
    ]
    return _table(("dataset", "phase", "files of a model"), dict.fromkeys(rows))


def _file_list(facts: Facts) -> str:
    """What each file is."""
    names = dict.fromkeys(n for s in facts.as_read for p in PHASES for n in _file_names(s, p))
    return "\n".join(f"- `{name}`: {_FILES.get(name, _WEIGHTS)}." for name in names)


def _loader(task: Task) -> tuple[str, str, str]:
    """How a task's dataset is loaded: the module and the name to import, and the call's start."""
    name = f"load_{task.loader}"
    if name in PUBLIC:
        return "mico_competition", name, f"{name}("
    return "mico_competition.data.datasets", "load_dataset", f'load_dataset("{task.name}", '


def _task_table(facts: Facts) -> str:
    """Lengths of each scenario, once for those that share them."""
    rows: dict[tuple[str, ...], None] = {}
    for s in facts.as_read:
        lengths = (s.len_dataset, s.len_training, s.len_challenge)
        row = (s.task.title, f"`{_loader(s.task)[1]}`", *(f"{n:,}" for n in lengths))
        rows[row] = None
    return _table(("dataset", "loaded by", "N", "n", "m"), rows)


def _loading(facts: Facts) -> str:
    first: ScenarioFacts = facts.as_read[0]
    phase, task = SCORED_PHASES[0], first.task
    folder = f"{facts.challenge}/{first.row.name}/{phase}/model_{first.models[phase][0]}"
    module, loader, call = _loader(task)
    imports = {"mico_competition": ["ChallengeDataset", "load_model"]}
    imports.setdefault(module, []).append(loader)
    own = current().path is not None
    if own:
        imports["mico_competition.competition.table"] = ["use"]
    lines = [f"from {home} import {', '.join(sorted(names))}" for home, names in imports.items()]
    if own:
        lines += ["", f'use("{COMPETITION_FILE}")']
    return (
        "\n".join(lines)
        + f"""

dataset = {call}"data")
folder = "{folder}"
points = ChallengeDataset.from_path(folder, dataset).get_challenges()
model = load_model("{task.name}", folder)"""
    )
