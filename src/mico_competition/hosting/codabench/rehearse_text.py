"""Formats a rehearsal as plain text: the results, and what participants would see."""

from __future__ import annotations

from mico_competition.hosting.codabench.check import has_errors
from mico_competition.hosting.codabench.rehearse import PhaseRun, Rehearsal
from mico_competition.support.counts import count_of

_SHOWN = 2_000


def as_text(rehearsal: Rehearsal) -> str:
    """The text of a rehearsal, without the linter's faults, which the command prints as errors."""
    lines = []
    count = count_of(len(rehearsal.faults), "fault")
    if has_errors(rehearsal.faults):
        lines.append(f"The bundle has {count}; the platform would refuse it, or it fails.")
    else:
        lines.append(
            f"The bundle has {count}." if rehearsal.faults else "The bundle has no faults."
        )
    if not rehearsal.phases:
        lines.append("Its phases cannot be read, so nothing was scored.")
    for run in rehearsal.phases:
        lines += ["", *_phase(run)]
    return "\n".join(lines)


def _phase(run: PhaseRun) -> list[str]:
    """The text of a phase: the submission's status, its line on the board, and the log."""
    outcome = run.outcome
    words = f": {outcome.words}" if outcome.words else ""
    lines = [f"== {run.name}: {outcome.status} ({outcome.seconds:.1f} s){words}"]
    if run.migration:
        lines.append(run.migration)
    if run.closed:
        lines.append("Its reference data is a placeholder: it scores nobody, as intended.")
    elif outcome.status == "Finished":
        lines.append("On the leaderboard:")
        for i, column in enumerate(run.columns):
            value = outcome.scores.get(column.key)
            shown = "n/a" if value is None else f"{value:.{column.precision}f}"
            lines.append(f"  {shown:>10}  {column.title}{'' if i else '  (ranks)'}")
    if outcome.detailed:
        where = f" in {run.kept}" if run.kept else " (--out FOLDER keeps it)"
        lines.append(f"Detailed results, which everybody can see: {outcome.detailed.name}{where}")
    for name, text in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        if text.strip():
            hidden = f"The phase hides {name} from participants. It says:"
            lines.append(hidden if name in run.hidden else f"Participants see on {name}:")
            lines += [f"  | {line}" for line in _cut(text).splitlines()]
    return lines


def _cut(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}\n... and {len(text) - _SHOWN:,} characters more"
