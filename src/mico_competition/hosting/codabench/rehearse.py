"""A whole competition at home: a bundle and a submission through every phase, as on the platform.

So a failure is seen before anybody registers.  The bundle is checked first, then read once more as
the platform reads it; each phase's program runs with its reference data on the submission.
Nothing is sent anywhere, and the truth of Final is needed only to rehearse the swap.
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
from mico_competition.hosting.codabench.rehearse_worker import (
    FINISHED,
    Job,
    Outcome,
    score_submission,
)
from mico_competition.hosting.codabench.rules.fault import Fault, whole
from mico_competition.hosting.codabench.yaml_form import CODALAB
from mico_competition.scoring.truth import NOTICE_FILE
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.support.progress import tracked
from mico_competition.support.scratch import scratch

_FORCED = ("Force_Last", "Force_Latest_Multiple", "Force_Best")
_LIMITS = (600, 300)  # seconds where a phase names none: Codabench's, legacy CodaLab's
_CAP = 600  # what the default queue grants at most


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard; the first one of a board ranks."""

    key: str
    title: str
    precision: int


@dataclass(frozen=True)
class Plan:
    """A phase as the platform has it.

    `forced` says whether submissions get on its board, and `hidden` names the logs that it keeps
    from participants.
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
    """One phase's rehearsal: `closed` if its reference data is a placeholder, as meant.

    `migration` says whether the submission came here by itself, or why not; `hidden` names the
    logs that participants do not see.
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
    """All of it: the linter's faults, and the phases, none if the bundle cannot be read."""

    faults: list[Fault]
    phases: list[PhaseRun]

    @property
    def sound(self) -> bool:
        """Whether all is as meant.

        That is: no error, the first phase scored in all columns, and each later one either so
        too, or closed.
        """
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
        bundle: zip that `bundle.write_bundle` wrote.
        submission: zip that `submission.pack` wrote.
        final_reference: a zip in place of the last phase's reference data.
        python: the interpreter that `python3` is to be; by default this one.
        out: a new folder, in which what each phase wrote is kept, for its owner's eyes.

    The truth of a phase lies in a folder for temporary files, which nobody else can read, for as
    long as the phase takes; what a killed rehearsal left there is removed by the next.

    Raises:
        ValueError: if a file is missing, or `out` exists already.
    """
    for path in (bundle, submission, final_reference, python):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"There is no file {path}.")
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
            # The faults say what is wrong with it, and the platform would not get here either.
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
    """What all phases of a rehearsal share."""

    archive: Archive
    submission: Path
    columns: tuple[Column, ...]
    legacy: bool
    python: str

    def play(
        self, plans: list[Plan], final_reference: PathLike | None, keep: Path | None
    ) -> list[PhaseRun]:
        """Every phase in turn."""
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
        """One phase's outcome, and whether it is closed by a placeholder."""
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
    """Whether a submission was turned away with the placeholder's own notice."""
    if reference is None or not reference.holds(NOTICE_FILE) or outcome.status == FINISHED:
        return False
    notice = reference.read(NOTICE_FILE).decode("utf-8", errors="replace")
    return f"Not scored: {' '.join(notice.split())[:100]}" in outcome.stderr


def _migration(plan: Plan, before: tuple[Plan, Outcome] | None) -> str:
    """How a submission comes into a phase."""
    if before is None:
        return ""
    if not plan.migrates:
        return "No submission moves here by itself."
    earlier, outcome = before
    if outcome.status != FINISHED:
        return (
            f"It is not on the leaderboard of {earlier.name}, so it does not move here by itself."
        )
    if not earlier.forced:
        return (
            f"Only what its owner puts on the leaderboard of {earlier.name} moves here by itself."
        )
    return f"It is on the leaderboard of {earlier.name} and moves here by itself."


def _moved(run: PhaseRun, aside: Path, out: Path) -> PhaseRun:
    """A run whose kept files were written below `aside` and now are below `out`."""
    kept = out / run.kept.relative_to(aside) if run.kept else None
    return replace(run, kept=kept)


def _read_plans(spec: Mapping[str, Any]) -> tuple[list[Plan], tuple[Column, ...]]:
    """Phases and columns; raises what Python raises where the file lacks a part."""
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
