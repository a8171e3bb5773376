"""The options of a bundle: what the competition's file says of a challenge, else the usual."""

from __future__ import annotations

from dataclasses import dataclass

from mico_competition.competition.rows import (
    USUAL_STEP,
    USUAL_SUBMISSIONS,
    USUAL_SUBMISSIONS_PER_DAY,
)
from mico_competition.competition.table import SCORED_PHASES, current, get_phase, hosting_of
from mico_competition.support.untrusted import read_limited_text

CODABENCH, CODALAB = "codabench", "codalab"
PLATFORMS = (CODABENCH, CODALAB)
DOCKER_IMAGE = "codalab/codalab-legacy:py312"
TIME_LIMIT = 600  # seconds; the largest limit of Codabench's default queue
DEV, FINAL = SCORED_PHASES
_LARGEST_PAGE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How often a participant may submit in a phase: per day, and in total."""

    per_day: int
    in_all: int

    def __post_init__(self) -> None:
        """Raise ValueError unless 1 <= per_day <= in_all."""
        if not 1 <= self.per_day <= self.in_all:
            raise ValueError(
                f"Expected 1 <= per_day={self.per_day} <= in_all={self.in_all} submissions."
            )


USUAL_LIMITS = Limits(USUAL_SUBMISSIONS_PER_DAY, USUAL_SUBMISSIONS)


@dataclass(frozen=True)
class Options:
    """The options of a bundle, besides its facts and dates.

    `extras` are the files for participants in the bundle.  `step` is the step of scores in the
    development phase, 0 for exact ones, and `limits` are its limits on submissions; both bound
    what scores reveal about labels (docs/HOST.md).  `time_limit` is in seconds.  `terms` is the
    text of the organisers' own terms; without one, those of the package apply.
    """

    platform: str = CODABENCH
    docker_image: str = DOCKER_IMAGE
    extras: tuple[str, ...] = ()
    step: float = USUAL_STEP
    limits: Limits = USUAL_LIMITS
    title: str | None = None
    contact_email: str | None = None
    reward: str | None = None
    terms: str | None = None
    time_limit: int = TIME_LIMIT

    @property
    def steps(self) -> dict[str, float]:
        """The step of each phase whose scores are not exact."""
        return {DEV: self.step} if self.step else {}

    @property
    def all_limits(self) -> dict[str, Limits]:
        """The limits of each phase.

        The final phase allows one submission, which a submission that migrates to it uses up.
        """
        return {DEV: self.limits, FINAL: Limits(1, 1)}


def options_of(
    challenge: str,
    *,
    platform: str | None = None,
    docker_image: str | None = None,
    step: float | None = None,
    per_day: int | None = None,
    in_all: int | None = None,
) -> Options:
    """The options of a challenge: those given, else those of its file, else the usual ones.

    Raises:
        ValueError: if the file with its terms is missing or empty, or if per_day exceeds in_all.
    """
    row = hosting_of(challenge)
    in_all = in_all or row.max_submissions or USUAL_LIMITS.in_all
    per_day = per_day or row.max_submissions_per_day or min(USUAL_LIMITS.per_day, in_all)
    return Options(
        platform=platform or CODABENCH,
        docker_image=docker_image or row.docker_image or DOCKER_IMAGE,
        step=get_phase(challenge, DEV).step if step is None else step,
        limits=Limits(per_day, in_all),
        title=row.title,
        contact_email=row.contact_email,
        reward=row.reward,
        terms=None if row.terms is None else _own_terms(row.terms),
        time_limit=row.execution_time_limit or TIME_LIMIT,
    )


def _own_terms(name: str) -> str:
    """The text of the page `name` beside the competition's file."""
    file = current().path
    assert file is not None, "no file of the package names terms"
    path = file.with_name(name)
    if not path.is_file():
        raise ValueError(
            f'There is no file {path}, which terms = "{name}" in {file} names: write it, or '
            "leave the column out for the usual terms."
        )
    text = read_limited_text(path, _LARGEST_PAGE)
    if not text.strip():
        raise ValueError(f"{path} is empty: write the terms, which platforms demand.")
    return text
