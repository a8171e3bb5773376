"""The competition's pages: the templates in pages/, every number filled in from the facts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from importlib.resources import files
from math import inf, isinf
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mico_competition import __all__ as PUBLIC  # noqa: N812
from mico_competition.competition.columns import address
from mico_competition.competition.table import (
    COMPETITION_FILE,
    METADATA_FILE,
    PHASE_NAMES,
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
)
from mico_competition.hosting.codabench.html import as_html
from mico_competition.hosting.codabench.options import CODABENCH, Options
from mico_competition.hosting.codabench.yaml_form import LOGO_FILE, PAGES, TERMS, page_file
from mico_competition.hosting.hub.listing import check_repository
from mico_competition.scoring.metrics import FPR_UNIT, RANKED, TITLES

_FILES = {
    "seed_challenge": "determines the model's challenge points",
    "seed_training": "determines the other records that the model was trained on",
    "seed_membership": "determines which challenge points are members",
    "solution.csv": "one line: 1 for each challenge point that is a member, 0 for others",
    METADATA_FILE: "how the model was trained, and the ε and δ that this guarantees",
}
_METRICS = {
    RANKED: "the scenario's score",
    "TPR_FPR_100": "the same at a smaller FPR",
    "TPR_FPR_10": "the same at an even smaller FPR",
    "AUC": "area under the ROC curve; guessing gives 0.5",
    "MIA": "the largest difference TPR - FPR, the membership advantage; guessing gives 0",
    "accuracy": "the best balanced accuracy over all thresholds; guessing gives 0.5",
}


# Challenges with a notebook in starting-kit/.
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
        schedule: the dates of its phases.
        options: the platform, and the limits of Development.
        repo: OWNER/NAME of the release on the Hugging Face Hub, for the page about data; without it
            the page says that the organisers will announce the place.
        code: address of the repository from which the package is installed; without it the page
            says that the organisers will announce it.

    Raises:
        ValueError: if `repo` or `code` is not of this form.
    """
    if repo is not None:
        check_repository(repo)
    if code is not None:
        try:
            address(code)
        except ValueError:
            raise ValueError(
                f"Expected code={code!r} as an address that begins with https:// or http:// and "
                "holds no space, bracket or quote."
            ) from None
    table, values = current(), _values(facts, schedule, options)
    values.update(
        repo=repo,
        published=None if table.path else PUBLISHED.get(facts.challenge),
        code=code,
        notebook=facts.challenge in _NOTEBOOKS,
        own=table.path is not None,
        file=COMPETITION_FILE,
        with_file=f" --competition {COMPETITION_FILE}" if table.path else "",
        code_of_own=table.code,
    )
    pages = {}
    for page in (*PAGES, TERMS):
        text = _templates().get_template(f"{page}.md").render(values)
        if page == TERMS and options.terms is not None:
            text = options.terms
        codabench = options.platform == CODABENCH
        pages[page_file(page, options.platform)] = (text if codabench else as_html(text)).encode()
    return pages


def _templates() -> Environment:
    """The pages' templates; an undefined name is an error."""
    made = Environment(
        loader=PackageLoader("mico_competition.hosting.codabench", "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; for CodaLab `as_html` escapes
    )
    made.filters["shell"] = shlex.quote
    made.filters["cell"] = lambda text: text.replace("|", "\\|")  # a bar would end the cell
    return made


def logo() -> bytes:
    """The competition's picture, a PNG of 400 x 400."""
    folder = files("mico_competition.hosting.codabench") / "pages"
    return (folder / LOGO_FILE).read_bytes()


def _values(facts: Facts, schedule: Schedule, options: Options) -> dict[str, Any]:
    """The values that the pages need, besides the addresses of models and package."""
    dev, final = SCORED_PHASES
    read = facts.as_read
    files_of = {
        (s.task.title, phase, tuple(_file_names(s, phase))): None
        for s in read
        for phase in PHASE_NAMES
    }
    lengths = {
        (s.task.title, _loader(s.task)[1], s.len_dataset, s.len_training, s.len_challenge): None
        for s in read
    }
    module, loader, load = _loader(read[0].task)
    imports = {"mico_competition": ["ChallengeDataset", "load_model"]}
    imports.setdefault(module, []).append(loader)
    if current().path is not None:
        imports["mico_competition.competition.table"] = ["use"]
    return {
        "facts": facts,
        "challenge": facts.challenge,
        "schedule": schedule,
        "count": len(facts.scenarios),
        "dev": dev,
        "final": final,
        "titles": PHASE_TITLES,
        "inf": inf,
        "open": [s.label for s in read if isinf(s.epsilon)],
        "points": _different(2 * s.len_challenge for s in read),
        "pools": {
            phase: _different(len(s.models[phase]) * 2 * s.len_challenge for s in read)
            for phase in SCORED_PHASES
        },
        "fpr": int(RANKED.rpartition("_")[2]) / FPR_UNIT,
        "metrics": [(TITLES[key], text) for key, text in _METRICS.items()],
        "step": options.step,
        "limits": options.all_limits,
        "time_limit": options.time_limit,
        "title": options.title or facts.title,
        "contact": options.contact_email,
        "reward": options.reward,
        "layout": _layout(facts),
        "files": list(files_of),
        "meanings": _FILES,
        "official": all(task.loader in ("cifar10", "purchase100", "sst2") for task in facts.tasks),
        "lengths": list(lengths),
        "imports": imports,
        "load": load,
        "folder": f"{facts.challenge}/{read[0].row.name}/{dev}/model_{read[0].models[dev][0]}",
    }


def _different(numbers: Iterable[int]) -> list[str]:
    """The distinct numbers, as text."""
    return list(dict.fromkeys(f"{number:,}" for number in numbers))


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


def _file_names(scenario: ScenarioFacts, phase: str) -> list[str]:
    """Files that participants get of a model, weights first."""
    weights = [name.split("|")[0] for name in scenario.task.weights]
    return [*weights, *disclosed_files(scenario.row, phase), METADATA_FILE]


def _loader(task: Task) -> tuple[str, str, str]:
    """The code that loads a task's dataset: module and name to import, and the call's start."""
    name = f"load_{task.loader}"
    if name in PUBLIC:
        return "mico_competition", name, f"{name}("
    return "mico_competition.data.datasets", "load_dataset", f'load_dataset("{task.name}", '
