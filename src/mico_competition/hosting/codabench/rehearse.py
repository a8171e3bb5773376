"""Rehearses a competition locally: runs a submission through every phase of a bundle.

So organisers see failures before anybody registers.  The bundle is checked first, and then read as
the platform reads it; the program of each phase is run with its reference data on the submission.
Nothing is sent anywhere.  The solutions of the final phase are needed only to rehearse the moment
when they replace the placeholder.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mico_competition.hosting.codabench.check import (
    check_bundle,
    has_errors,
    platform_of,
    read_yaml,
)
from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.options import CODALAB
from mico_competition.hosting.codabench.rehearse_worker import (
    FINISHED,
    Job,
    Outcome,
    score_submission,
)
from mico_competition.hosting.codabench.rules.fault import Fault, whole
from mico_competition.scoring.truth import NOTICE_FILE
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.support.progress import tracked
from mico_competition.support.scratch import scratch

_FORCED = ("Force_Last", "Force_Latest_Multiple", "Force_Best")
_LIMITS = (600, 300)  # the default time limits in seconds, of Codabench and of legacy CodaLab
_CAP = 600  # the largest limit of the default queue


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard; the first one determines the ranking."""

    key: str
    title: str
    precision: int


@dataclass(frozen=True)
class Plan:
    """A phase as the platform understands it.

    `forced` says whether submissions appear on its board, and `hidden` names the logs that
    participants do not see.
    """

    name: str
    program: str
    reference: str | None
    seconds: int
    migrates: bool
    forced: bool
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhaseRun:
    """The rehearsal of a phase; `closed` if its reference data is a placeholder, as intended.

    `migration` says whether the submission migrated from the previous phase, or why not; `hidden`
    names the logs that participants do not see.
    """

    name: str
    outcome: Outcome
    columns: tuple[Column, ...]
    closed: bool
    migration: str
    kept: Path | None
    hidden: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every column of the leaderboard has its score."""
        scored = self.outcome.status == FINISHED and bool(self.columns)
        return scored and all(column.key in self.outcome.scores for column in self.columns)


@dataclass(frozen=True)
class Rehearsal:
    """The result of a rehearsal: the linter's faults, and the phases if the bundle can be read."""

    faults: list[Fault]
    phases: list[PhaseRun]

    @property
    def sound(self) -> bool:
        """Whether there is no error, and each phase is complete, or, after the first, closed."""
        return (
            not has_errors(self.faults)
            and bool(self.phases)
            and self.phases[0].complete
            and all(run.complete or run.closed for run in self.phases[1:])
        )


def rehearse(
    bundle: PathLike,
    submission: PathLike,
    *,
    final_reference: PathLike | None = None,
    python: PathLike | None = None,
    out: PathLike | None = None,
) -> Rehearsal:
    """Check a bundle and score a submission in each of its phases.

    Args:
        bundle: a zip from `bundle.write_bundle`.
        submission: a zip from `submission.pack`.
        final_reference: a zip that replaces the last phase's reference data.
        python: the interpreter to use as `python3`; by default this one.
        out: a new private folder for the output of each phase, if it is to be kept.

    The solutions of a phase are in a private temporary folder while the phase runs; if the process
    is killed, the next rehearsal removes the folder.

    Raises:
        ValueError: if a file is missing, or `out` exists already.
    """
    for path in (bundle, submission, final_reference, python):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"There is no file {path}: check its path.")
    if out is not None and Path(out).exists():
        raise ValueError(f"{out} exists already: remove it or choose another folder.")
    faults = check_bundle(bundle)
    try:
        archive = Archive(bundle)
    except ValueError:
        return Rehearsal(faults, [])
    with archive:
        spec, _ = read_yaml(archive)
        try:
            plans, columns = _read_plans(spec or {})
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            # The faults are reported already, and the platform would stop here, too.
            return Rehearsal(faults, [])
        legacy = platform_of(spec or {}) == CODALAB
        stage = _Stage(archive, Path(submission), columns, legacy, str(python or sys.executable))
        if out is None:
            return Rehearsal(faults, stage.play(plans, final_reference, None))
        with written_aside(out, access=PRIVATE) as aside:
            aside.mkdir()
            runs = stage.play(plans, final_reference, aside)
        kept = [_moved(run, aside, Path(out)) for run in runs]
        return Rehearsal(faults, kept)


@dataclass(frozen=True)
class _Stage:
    """The inputs that all phases of a rehearsal share."""

    archive: Archive
    submission: Path
    columns: tuple[Column, ...]
    legacy: bool
    python: str

    def play(
        self, plans: list[Plan], final_reference: PathLike | None, keep: Path | None
    ) -> list[PhaseRun]:
        """Run every phase in turn."""
        runs: list[PhaseRun] = []
        for i, plan in enumerate(tracked(plans, "Scoring as the platform", "phase")):
            swapped = final_reference if i == len(plans) - 1 else None
            before = (plans[i - 1], runs[-1].outcome) if i else None
            with scratch(None, "mico-rehearsal") as folder:
                try:
                    outcome, closed = self._score(plan, swapped, folder)
                except ValueError as fault:
                    outcome, closed = Outcome("Failed", str(fault)), False
                kept = None
                if keep is not None and (folder / "app" / "output").is_dir():
                    kept = keep / f"phase_{i + 1}"
                    shutil.copytree(folder / "app" / "output", kept)
                runs.append(
                    PhaseRun(
                        plan.name,
                        outcome,
                        self.columns,
                        closed,
                        _migration(plan, before),
                        kept,
                        plan.hidden,
                    )
                )
        return runs

    def _score(self, plan: Plan, swapped: PathLike | None, folder: Path) -> tuple[Outcome, bool]:
        """The outcome of a phase, and whether a placeholder closes it."""
        program = self.archive.inner(plan.program)
        if swapped is not None:
            reference: Archive | None = Archive(swapped)
        else:
            reference = self.archive.inner(plan.reference) if plan.reference else None
        keys = tuple(column.key for column in self.columns)
        job = Job(program, reference, self.submission, plan.seconds, keys, self.legacy, self.python)
        outcome = score_submission(job, folder)
        return outcome, swapped is None and _closed(reference, outcome)


def _closed(reference: Archive | None, outcome: Outcome) -> bool:
    """Whether the submission was refused with the placeholder's notice."""
    if reference is None or not reference.holds(NOTICE_FILE) or outcome.status == FINISHED:
        return False
    notice = reference.read(NOTICE_FILE).decode("utf-8", errors="replace")
    return f"Not scored: {' '.join(notice.split())[:100]}" in outcome.stderr


def _migration(plan: Plan, before: tuple[Plan, Outcome] | None) -> str:
    """How the submission gets into a phase."""
    if before is None:
        return ""
    if not plan.migrates:
        return "No submission is copied here automatically."
    earlier, outcome = before
    if outcome.status != FINISHED:
        return f"It is not on the leaderboard of {earlier.name}, so it is not copied here."
    if not earlier.forced:
        return f"Only what its owner puts on the leaderboard of {earlier.name} is copied here."
    return f"It is on the leaderboard of {earlier.name} and is copied here."


def _moved(run: PhaseRun, aside: Path, out: Path) -> PhaseRun:
    """A run whose files were moved from `aside` to `out`."""
    kept = out / run.kept.relative_to(aside) if run.kept else None
    return replace(run, kept=kept)


def _read_plans(spec: Mapping[str, Any]) -> tuple[list[Plan], tuple[Column, ...]]:
    """The phases and columns of competition.yaml; KeyError and the like if a part is missing."""
    return _plans_15(spec) if platform_of(spec) == CODALAB else _plans_2(spec)


def _plans_2(spec: Mapping[str, Any]) -> tuple[list[Plan], tuple[Column, ...]]:
    board = spec["leaderboards"][0]
    forced = board.get("submission_rule", "Add") in _FORCED
    tasks = {task["index"]: task for task in spec["tasks"]}
    plans = []
    for phase in sorted(spec["phases"], key=lambda phase: phase.get("index", 0)):
        task = tasks[phase["tasks"][0]]
        plans.append(
            Plan(
                str(phase.get("name")),
                task["scoring_program"],
                task.get("reference_data"),
                min(whole(phase.get("execution_time_limit")) or _LIMITS[0], _CAP),
                bool(phase.get("auto_migrate_to_this_phase")),
                forced,
                ("stdout", "stderr") if phase.get("hide_output") else (),
            )
        )
    primary = whole(board.get("primary_index", 0))
    ordered = sorted(board["columns"], key=lambda c: (c["index"] != primary, c["index"]))
    columns = [Column(c["key"], c["title"], whole(c.get("precision")) or 2) for c in ordered]
    return plans, tuple(columns)


def _plans_15(spec: Mapping[str, Any]) -> tuple[list[Plan], tuple[Column, ...]]:
    forced = bool(spec.get("force_submission_to_leaderboard"))
    plans = [
        Plan(
            str(phase["label"]),
            phase["scoring_program"],
            phase.get("reference_data"),
            whole(phase.get("execution_time_limit")) or _LIMITS[1],
            bool(phase.get("auto_migration")),
            forced or bool(phase.get("force_best_submission_to_leaderboard")),
            ("stdout",) if phase.get("leaderboard_management_mode") == "hide_results" else (),
        )
        for phase in sorted(spec["phases"].values(), key=lambda phase: phase["phasenumber"])
    ]
    columns = sorted(
        spec["leaderboard"]["columns"].items(), key=lambda item: item[1].get("rank", 1)
    )
    return plans, tuple(
        Column(str(key), c.get("label", key), whole(c.get("numeric_format")) or 2)
        for key, c in columns
    )
