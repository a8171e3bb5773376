"""The page of a published release: facts -> README.md, by the template card.md, and index files.

The Hub's viewer shows tables, which a release does not have; so the page names, for every scenario
and phase, a small CSV with one line a model (where its weights lie, their checksum, its epsilon).
Nothing in it is beyond what the release discloses. Pure text: reads and sends nothing.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import inf

from mico_competition.competition.table import (
    COMPETITION_FILE,
    METADATA_FILE,
    PHASE_NAMES,
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

    def files(self, phase: str) -> list[str]:
        """Names of the files of a model, weights first."""
        weights = [name.split("|")[0] for name in self.task.weights]
        disclosed = disclosed_files(get_scenario(self.name), phase)
        if phase in self.revealed:
            disclosed = (*SEED_FILES, SOLUTION_FILE)
        return [*weights, *disclosed, METADATA_FILE]


@dataclass(frozen=True)
class IndexLine:
    """A model in an index file: `sha256` and `size` (bytes) are those of its weights.

    `archive` is the path of the archive with it, or empty if its files are published singly.
    """

    model_id: int
    folder: str
    weights: str
    size: int
    sha256: str
    archive: str = ""


def index_path(scenario: str, phase: str) -> str:
    """Where a scenario's models of a phase are listed, in the repository."""
    return f"index/{scenario}/{phase}.csv"


def index_text(facts: ScenarioFacts, lines: Sequence[IndexLine]) -> str:
    """The CSV of one scenario and phase: a header, and one line a model."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    archives = any(line.archive for line in lines)
    writer.writerow((*INDEX_COLUMNS, "archive") if archives else INDEX_COLUMNS)
    delta = "" if facts.delta is None else f"{facts.delta:g}"
    for line in lines:
        place = (line.model_id, line.folder, line.weights, line.size, line.sha256)
        archive = (line.archive,) if archives else ()
        writer.writerow((*place, facts.epsilon, delta, *archive))
    return text.getvalue()


_MICO = """@misc{mico2022,
  title = {Microsoft Membership Inference Competition (MICO)},
  year = {2022},
  howpublished = {\\url{https://github.com/microsoft/MICO}}
}"""
"""Whom to cite: the organisers of 2022, for their own challenges alone."""


def card_text(
    challenge: str,
    repo: str,
    licence: str,
    scenarios: Sequence[ScenarioFacts],
    example: str,
    citation: str | None = None,
    archives: bool = False,
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
        archives: whether the models are published in archives.
    """
    from jinja2 import StrictUndefined, Template

    text = (files("mico_competition.hosting.hub") / "card.md").read_text(encoding="utf-8")
    template = Template(
        text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    known = ["train", *(p for p in SCORED_PHASES if p in scenarios[0].revealed)]
    scenario, phase, folder = example.split("/")
    table = current()
    bibtex = citation or (_MICO if challenge in PUBLISHED and table.path is None else "")
    page: str = template.render(
        front_matter=_front_matter(challenge, licence, scenarios),
        challenge=challenge,
        shell=shlex.quote,
        with_file="" if table.path is None else f" --competition {COMPETITION_FILE}",
        repo=repo,
        licence=licence,
        scenarios=scenarios,
        phases=list(PHASE_NAMES),
        total=sum(sum(facts.models.values()) for facts in scenarios),
        known=known,
        hidden=[phase for phase in SCORED_PHASES if phase not in known],
        inf=inf,
        example=example,
        scenario=scenario,
        phase=phase,
        model_id=folder.removeprefix("model_"),
        task=get_scenario(scenario).task,
        citation=bibtex.strip(),
        archives=archives,
        own=table.path is not None,
        file=COMPETITION_FILE,
        code=table.code,
    )
    return page


def _front_matter(challenge: str, licence: str, scenarios: Sequence[ScenarioFacts]) -> str:
    """What the Hub reads: one configuration a scenario, one split a phase."""
    from huggingface_hub import DatasetCardData

    return DatasetCardData(
        license=licence,
        pretty_name=f"Membership inference challenge {challenge}",
        tags=["membership-inference", "differential-privacy", "privacy", "mico"],
        size_categories=["n<1K"],
        configs=[
            {
                "config_name": facts.name,
                "data_files": [
                    {"split": phase, "path": index_path(facts.name, phase)}
                    for phase in PHASE_NAMES
                    if facts.models.get(phase)
                ],
            }
            for facts in scenarios
        ],
    ).to_yaml()
