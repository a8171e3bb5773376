"""Collects the facts that a competition bundle states, from the table and the models' metadata.

All numbers on a bundle's pages and all columns of its leaderboards come from here.  Solutions are
not read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from pathlib import Path

from mico_competition.competition.layout import ModelFolder, walk_challenge, walk_phase
from mico_competition.competition.lengths import Lengths, read_metadata
from mico_competition.competition.table import (
    DISTINGUISHER,
    SCORED_PHASES,
    Scenario,
    Task,
    get_challenge,
    get_scenario,
    get_task,
    labels_of,
)
from mico_competition.release.privacy_claims import check_privacy_claims
from mico_competition.scoring.metrics import RANKED, TITLES
from mico_competition.support.files import PathLike

DATE_FORM = "%Y-%m-%d %H:%M:%S"
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
# There must be a gap between two phases: the platform refuses a phase that ends at the moment when
# the next one starts.
PAUSE = timedelta(minutes=1)
PHASE_TITLES = dict(zip(SCORED_PHASES, ("Development", "Final")))

# Metrics on the leaderboard, for each scenario, in the order of its columns.
METRICS = (RANKED, "TPR_FPR_100", "TPR_FPR_10", "AUC", "MIA", "accuracy")
TITLE_LIMIT = 36  # the most characters of a column's title on Codabench
_LONGEST = max(len(TITLES[key]) for key in METRICS)
_MEND = "name the folder that `mico train --output_dir` was given."


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard; `group` is its scenario, or "Ranking" for the first one."""

    key: str
    title: str
    group: str


@dataclass(frozen=True)
class Schedule:
    """The start and end of phases, in UTC; `dev_end` follows from the start of the final phase."""

    dev_start: datetime
    final_start: datetime
    end: datetime

    @classmethod
    def of(
        cls, dev_start: str, final_start: str, end: str, *, now: datetime | None = None
    ) -> Schedule:
        """Parse three dates of the form YYYY-MM-DD HH:MM:SS.

        Raises:
            ValueError: if a text has another form, if the dates are not in order, or, given `now`
                in UTC, if the final phase starts in the past.
        """
        dates = cls(
            parse_date("dev_start", dev_start),
            parse_date("final_start", final_start),
            parse_date("end", end),
        )
        if not dates.dev_start < dates.dev_end:
            raise ValueError(
                f"Expected final_start={final_start} to be more than a minute after "
                f"dev_start={dev_start}: Development ends a minute before Final starts."
            )
        if not dates.final_start < dates.end:
            raise ValueError(f"Expected end={end} to be after final_start={final_start}.")
        if now is not None and not now < dates.final_start:
            raise ValueError(
                f"Expected final_start={final_start} to be in the future, and it is "
                f"{date_text(now)} UTC now: move the schedule."
            )
        return dates

    @property
    def dev_end(self) -> datetime:
        """The end of the development phase."""
        return self.final_start - PAUSE


def parse_date(name: str, text: str) -> datetime:
    """Parse a date of the form YYYY-MM-DD HH:MM:SS in UTC; ValueError naming `name` if not."""
    try:
        if _DATE.fullmatch(text):
            return datetime.strptime(text, DATE_FORM)
    except ValueError:
        pass
    raise ValueError(
        f'Expected {name} as "YYYY-MM-DD HH:MM:SS" in UTC, without an offset, got {text!r}.'
    )


def date_text(date: datetime) -> str:
    """A date as text in the form YYYY-MM-DD HH:MM:SS."""
    return date.strftime(DATE_FORM)


@dataclass(frozen=True)
class ScenarioFacts:
    """A scenario with the lengths of its models' splits, and their ids in each scored phase.

    `label` is a name for display, unique in the challenge.  `epsilon` and `delta` come from the
    models' metadata, or else from the table.
    """

    row: Scenario
    label: str
    len_dataset: int
    len_training: int
    len_challenge: int
    epsilon: float
    delta: float
    models: dict[str, tuple[int, ...]]

    @property
    def task(self) -> Task:
        """The task of its models."""
        return get_task(self.row.task)


@dataclass(frozen=True)
class Facts:
    """A trained challenge: its name and its scenarios, in the order of the leaderboard's keys."""

    challenge: str
    scenarios: tuple[ScenarioFacts, ...]

    @classmethod
    def of(cls, root: PathLike, challenge: str) -> Facts:
        """Read the facts of `<root>/<challenge>`; solutions are not opened.

        Raises:
            ValueError: if the folder or a model is missing, if a scenario has fewer models of a
                phase than another, or if the models of a scenario differ in these facts.
        """
        folder = Path(root) / challenge
        names = get_challenge(challenge)
        models = walk_challenge(folder, phases=list(SCORED_PHASES), fix=_MEND)
        for phase in SCORED_PHASES:
            counts = {name: len(walk_phase(folder, name, phase)) for name in names}
            if len(set(counts.values())) > 1 or not max(counts.values()):
                found = ", ".join(f"{name} {count}" for name, count in counts.items())
                raise ValueError(
                    f"Expected as many {phase} models in each scenario of {folder}, found "
                    f"{found}: train the missing ones."
                )
        check_privacy_claims(models)
        labels = labels_of(names)
        return cls(challenge, tuple(_scenario(name, labels[name], models) for name in names))

    @property
    def tasks(self) -> list[Task]:
        """The tasks of its scenarios, without repetition."""
        return list({facts.task.name: facts.task for facts in self.scenarios}.values())

    @property
    def distinguisher(self) -> bool:
        """Whether participants know all training records except the challenge points."""
        return all(facts.row.disclosure == DISTINGUISHER for facts in self.scenarios)

    @property
    def title(self) -> str:
        """The competition's title."""
        kind = " (DP distinguisher)" if self.distinguisher else ""
        return f"MICO: {', '.join(task.title for task in self.tasks)}{kind}"

    def count(self, phase: str) -> int:
        """The number of models of a phase, over all scenarios."""
        return sum(len(facts.models[phase]) for facts in self.scenarios)

    @property
    def as_read(self) -> list[ScenarioFacts]:
        """Its scenarios in the order of display."""
        by_name = {facts.row.name: facts for facts in self.scenarios}
        return [by_name[name] for name in labels_of(by_name)]

    @property
    def labels(self) -> dict[str, str]:
        """The label of each scenario, in the order of display."""
        return {facts.row.name: facts.label for facts in self.as_read}

    @property
    def heads(self) -> dict[str, str]:
        """The label of each scenario, short enough for the leaderboard's columns."""
        return short_labels(self.labels, TITLE_LIMIT - _LONGEST - len(": "))

    def columns(self) -> list[Column]:
        """The leaderboard's columns: the ranking score, then each scenario's metrics.

        The keys are those of 2022, which number scenarios in the order of their names.
        """
        numbers = {facts.row.name: i for i, facts in enumerate(self.scenarios, start=1)}
        return [
            Column(f"average_{RANKED}", f"Average {TITLES[RANKED]}", "Ranking"),
            *(
                Column(f"scenario{numbers[name]}_{key}", f"{head}: {TITLES[key]}", head)
                for name, head in self.heads.items()
                for key in METRICS
            ),
        ]


def short_labels(labels: Mapping[str, str], limit: int) -> dict[str, str]:
    """Different labels of at most `limit` characters: cut in the middle, or else numbers.

    >>> short_labels({"a": "No DP", "b": "Faces in the crowd, ε = 4"}, 19)
    {'a': 'No DP', 'b': 'Faces …crowd, ε = 4'}
    """
    front = limit // 3
    cut = {
        name: label if len(label) <= limit else f"{label[:front]}…{label[front + 1 - limit :]}"
        for name, label in labels.items()
    }
    counts = Counter(cut.values())
    return {
        name: label if counts[label] == 1 else f"Scenario {i}"
        for i, (name, label) in enumerate(cut.items(), start=1)
    }


def _scenario(name: str, label: str, models: Iterable[ModelFolder]) -> ScenarioFacts:
    """The facts of a scenario; ValueError if its models disagree."""
    mine = [model for model in models if model.scenario == name]
    found: dict[tuple[int, int, int], ModelFolder] = {}
    for model in mine:
        lengths = Lengths.of(model.path)
        kind = (
            lengths.len_dataset or model.task.len_dataset,
            lengths.check_training(None),
            lengths.check_challenge(None),
        )
        other = found.setdefault(kind, model)
        if len(found) > 1:
            first = next(iter(found.values()))
            raise ValueError(
                f"{other.path} and {first.path} differ in N, n or m: train the models of a "
                "scenario with the same lengths."
            )
    row = get_scenario(name)
    privacy = read_metadata(mine[0].path).get("privacy")
    stated = privacy if isinstance(privacy, dict) else {}
    len_dataset, len_training, len_challenge = next(iter(found))
    return ScenarioFacts(
        row,
        label,
        len_dataset,
        len_training,
        len_challenge,
        float(stated.get("epsilon", row.target_epsilon)) if row.private else inf,
        float(stated.get("delta", row.target_delta)),
        {p: tuple(model.model_id for model in mine if model.phase == p) for p in SCORED_PHASES},
    )
