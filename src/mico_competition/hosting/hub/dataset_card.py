"""The page of a published release: facts -> the text of README.md, and of its index files.

The Hub's viewer shows tables, and a release is none; so the page names, for every scenario and
phase, a small CSV with one line a model (where its weights lie, their checksum, its epsilon).
Nothing in it is beyond what the release discloses.  Pure text: reads and sends nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf

from mico_competition.competition.table import (
    COMPETITION_FILE,
    METADATA_FILE,
    PHASES,
    PUBLISHED,
    SCORED_PHASES,
    SEED_FILES,
    SOLUTION_FILE,
    Task,
    current,
    disclosed_files,
    get_scenario,
    get_task,
)

INDEX_COLUMNS = ("model_id", "folder", "weights", "bytes", "sha256", "epsilon", "delta")


@dataclass(frozen=True)
class ScenarioFacts:
    """What the page says of a scenario.

    `epsilon` is infinite without privacy, and `delta` then None.  `accuracy` is the mean
    evaluation accuracy of its train models, in [0, 1]; it and the lengths (in records) are
    None where nothing states them.  `models` are the numbers of models by phase, `revealed` the
    phases whose labels were added when they were over.  `by_table` says that epsilon and delta
    are the scenario table's, as the models state none.
    """

    name: str
    models: Mapping[str, int]
    epsilon: float = inf
    delta: float | None = None
    accuracy: float | None = None
    len_dataset: int | None = None
    len_training: int | None = None
    len_challenge: int | None = None
    by_table: bool = False
    revealed: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """The task the models were trained for."""
        return get_task(get_scenario(self.name).task)


@dataclass(frozen=True)
class IndexLine:
    """A model in an index file: `sha256` and `size` (bytes) are those of its weights."""

    model_id: int
    folder: str
    weights: str
    size: int
    sha256: str


def index_path(scenario: str, phase: str) -> str:
    """Where a scenario's models of a phase are listed, in the repository."""
    return f"index/{scenario}/{phase}.csv"


def index_text(facts: ScenarioFacts, lines: Sequence[IndexLine]) -> str:
    """The CSV of one scenario and phase: a header, and one line a model."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(INDEX_COLUMNS)
    delta = "" if facts.delta is None else f"{facts.delta:g}"
    for line in lines:
        place = (line.model_id, line.folder, line.weights, line.size, line.sha256)
        writer.writerow((*place, facts.epsilon, delta))
    return text.getvalue()


def card_text(
    challenge: str,
    repo: str,
    licence: str,
    scenarios: Sequence[ScenarioFacts],
    example: str,
    citation: str | None = None,
) -> str:
    """The text of README.md: front matter for the Hub, then the page.

    Args:
        challenge: name of the challenge.
        repo: OWNER/NAME that the release is published under.
        licence: the Hub's identifier of a licence, such as `mit`.
        scenarios: at least one, in the order of the table.
        example: `<scenario>/<phase>/model_<i>` of a model that is there.
        citation: BibTeX of this challenge; by default that of MICO for the challenges of 2022,
            and the address for others.
    """
    import yaml

    head = yaml.safe_dump(_front_matter(challenge, licence, scenarios), sort_keys=False)
    parts = (
        _opening(challenge, scenarios),
        _table(scenarios),
        _contents(challenge, scenarios),
        _loading(challenge, repo, example),
        _closing(challenge, repo, licence, citation),
    )
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(
    challenge: str, licence: str, scenarios: Sequence[ScenarioFacts]
) -> dict[str, object]:
    """What the Hub reads: one configuration a scenario, one split a phase."""
    return {
        "license": licence,
        "pretty_name": f"Membership inference challenge {challenge}",
        "tags": ["membership-inference", "differential-privacy", "privacy", "mico"],
        "size_categories": ["n<1K"],
        "configs": [
            {
                "config_name": facts.name,
                "data_files": [
                    {"split": phase, "path": index_path(facts.name, phase)}
                    for phase in PHASES
                    if facts.models.get(phase)
                ],
            }
            for facts in scenarios
        ],
    }


def _opening(challenge: str, scenarios: Sequence[ScenarioFacts]) -> str:
    total = sum(sum(facts.models.values()) for facts in scenarios)
    known = ["train", *(p for p in SCORED_PHASES if p in scenarios[0].revealed)]
    hidden = [phase for phase in SCORED_PHASES if phase not in known]
    withheld = f"; for {' and '.join(hidden)} it is withheld" if hidden else ""
    given = f"phase{'s' if known[1:] else ''} {' and '.join(known)} the answer is given{withheld}"
    return f"""# Membership inference challenge {challenge}

{total} trained models. Each comes with challenge points, of which half were in its training set;
the task is to tell which. For models of {given}.
Made with `mico_competition`, which rebuilds the Microsoft Membership Inference
Competition (MICO) of 2022."""


def _epsilon(facts: ScenarioFacts) -> str:
    """A scenario's epsilon, and whether only the table says it."""
    if isinf(facts.epsilon):
        return "no privacy"
    stated = " (by the table; the models state none)" if facts.by_table else ""
    return f"{facts.epsilon:.3f}{stated}"


def _table(scenarios: Sequence[ScenarioFacts]) -> str:
    """Accuracy, privacy and numbers of models."""
    rows = [
        "## Scenarios",
        "",
        f"| scenario | epsilon | delta | evaluation accuracy | {' | '.join(PHASES)} |",
        "|---" * (4 + len(PHASES)) + "|",
    ]
    for facts in scenarios:
        cells = (
            facts.name,
            _epsilon(facts),
            "" if facts.delta is None else f"{facts.delta:g}",
            "not stated" if facts.accuracy is None else f"{facts.accuracy:.4f}",
            *(str(facts.models.get(phase, 0)) for phase in PHASES),
        )
        rows.append(f"| {' | '.join(cells)} |")
    rows += [
        "",
        "Epsilon and delta bound what a model tells of one record that is added to or removed from "
        "its training\nset. Accuracy is the mean over models of phase train, each on records that "
        "it was not trained on.",
    ]
    for facts in scenarios:
        if facts.len_dataset and facts.len_training and facts.len_challenge:
            rows.append(
                f"\n`{facts.name}`: {facts.len_dataset:,} records of {facts.task.title}; a model "
                f"is trained on {facts.len_training:,}, of\nwhich {facts.len_challenge:,} are "
                f"among its {2 * facts.len_challenge:,} challenge points."
            )
    return "\n".join(rows)


def _contents(challenge: str, scenarios: Sequence[ScenarioFacts]) -> str:
    """The files of each phase."""
    rows = [
        "## Files",
        "",
        f"A model lies in `{challenge}/<scenario>/<phase>/model_<id>/`:",
        "",
        "| scenario | phase | files |",
        "|---|---|---|",
    ]
    for facts in scenarios:
        weights = [name.split("|")[0] for name in facts.task.weights]
        for phase in PHASES:
            if facts.models.get(phase):
                disclosed = disclosed_files(get_scenario(facts.name), phase)
                if phase in facts.revealed:
                    disclosed = (*SEED_FILES, SOLUTION_FILE)
                files = (*weights, *disclosed, METADATA_FILE)
                rows.append(f"| {facts.name} | {phase} | {', '.join(f'`{f}`' for f in files)} |")
    rows += [
        "",
        "`seed_*` are the seeds of the splits: they say which records are challenge points, which "
        "are members,\nand which make up the rest of the training set. `solution.csv` marks the "
        "members among the challenge\npoints. `index/<scenario>/<phase>.csv` lists the models, for "
        f"the viewer above.\n`{challenge}.release/` holds what the release says of itself: "
        "checksums, salted commitments to labels\nthat are withheld, and what opens those of "
        "phases that are over.",
    ]
    return "\n".join(rows)


def _loading(challenge: str, repo: str, example: str) -> str:
    """Commands and code that fetch and load one model."""
    scenario, phase, folder = example.split("/")
    task = get_scenario(scenario).task
    own, imports, loaded = _of_own(challenge, repo, task)
    one = f"--scenario {scenario} --models {folder.removeprefix('model_')}"
    return f"""## Loading
{own}
```console
mico download {challenge} --repo {repo}    # all of it, checked
mico download {challenge} --repo {repo} {one}
```

```python
{imports}

dataset = {loaded}
folder = "{challenge}/{example}"
points = ChallengeDataset.from_path(folder, dataset).get_challenges()
model = load_model("{task}", folder)
```

The records themselves are not here: the loader says where it expects them. The list of models
alone: `datasets.load_dataset("{repo}", "{scenario}", split="{phase}")`."""


def _of_own(challenge: str, repo: str, task: str) -> tuple[str, str, str]:
    """What to do first, what to import, and how to load, also of a competition of one's own."""
    table = current()
    if table.path is None:
        names = f"ChallengeDataset, load_{task}, load_model"
        return "", f"from mico_competition import {names}", f'load_{task}("data")'
    place = f"{challenge}.release/{COMPETITION_FILE}"
    address = f"https://huggingface.co/datasets/{repo}/blob/main/{place}"
    code = ", ".join(f"`{name}`" for name in table.code)
    needs = (
        f" It names code, {code}, which runs on your machine: read it before you put it beside\n"
        "the file."
        if code
        else ""
    )
    first = f"""
This competition is described by [`{COMPETITION_FILE}`]({address}).{needs}
Every command takes the file: `--competition {COMPETITION_FILE}`, or once
`export MICO_COMPETITION={COMPETITION_FILE}`.
"""
    imports = (
        "from mico_competition import ChallengeDataset, load_model\n"
        "from mico_competition.competition.table import use\n"
        "from mico_competition.data.datasets import load_dataset\n\n"
        f'use("{COMPETITION_FILE}")'
    )
    return first, imports, f'load_dataset("{task}", "data")'


_MICO = """@misc{mico2022,
  title = {Microsoft Membership Inference Competition (MICO)},
  year = {2022},
  howpublished = {\\url{https://github.com/microsoft/MICO}}
}"""


def _closing(challenge: str, repo: str, licence: str, citation: str | None) -> str:
    """The licence, and whom to cite: the organisers of 2022 for their own challenges alone."""
    bibtex = citation or (_MICO if challenge in PUBLISHED and current().path is None else None)
    if bibtex:
        cite = f"Please cite:\n\n```bibtex\n{bibtex.strip()}\n```"
    else:
        cite = f"Please cite this challenge by its address, https://huggingface.co/datasets/{repo}."
    return f"""## Licence and citation

Licence: {licence}. Formats, numbers and the design of the competition are those of the organisers
of MICO, held at IEEE SaTML 2023.

{cite}"""
