"""Rules against leaks in a bundle: scores that reveal labels, and files that hold solutions.

The platforms do not check these.  docs/HOST.md, section 7, has measurements of what an attacker
learns from scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mico_competition.competition.rows import USUAL_STEP
from mico_competition.competition.table import SCORED_PHASES, SOLUTION_FILE
from mico_competition.hosting.codabench.files import MAX_TEXT, Archive
from mico_competition.hosting.codabench.options import CODALAB, DEV, USUAL_LIMITS
from mico_competition.hosting.codabench.program import STEPS_FILE, own_files, program_files
from mico_competition.hosting.codabench.rules.fault import Fault, error, silent, warning, whole
from mico_competition.hosting.codabench.rules.files import open_inner
from mico_competition.hosting.codabench.rules.scored import Scored
from mico_competition.hosting.codabench.yaml_form import YAML_FILE
from mico_competition.scoring.settings import FILE, Settings, parse_settings
from mico_competition.scoring.truth import scenario_of

_MEND = "Write the bundle again with `mico bundle`."
_READ = "labels can be read off scores (docs/HOST.md, section 7)"
_FINEST = 0.001  # the smallest step that was measured to slow the attack
_MOST_AFTER = 10  # the usual limit on submissions to a phase with exact scores
_LABELS = re.compile(rb"\s*[01]([\s,;]*[01])+[\s,;]*")
_USUAL = (".md", ".html", ".zip", ".png", ".jpg", ".jpeg", ".gif", ".webp")
_HIDING = ("hide_output", "hide_score_output", "hide_prediction_output")


def leaks_rule(
    spec: Mapping[str, Any], phases: Sequence[Scored], archive: Archive, platform: str
) -> Iterator[Fault]:
    """Faults of everything that reveals more than a bundle of `mico bundle` does."""
    for name in dict.fromkeys(phase.program for phase in phases):
        yield from _program_rule(name, phases, archive)
    for i, phase in enumerate(phases):
        yield from _limits_rule(phase, first=i == 0)
        if i:
            yield from _hidden_rule(phase, platform)
    yield from _accounts_rule(spec)
    yield from _strays_rule(spec, archive)


def _program_rule(name: str | None, phases: Sequence[Scored], archive: Archive) -> Iterator[Fault]:
    """Faults of our scoring program: its settings, and files that differ from this package."""
    program = open_inner(archive, name)
    if program is None or not program.holds("score.py"):
        return
    where = f"{name}, {FILE}"
    if not program.holds(FILE):
        what = "It is missing, and nothing else says how coarse scores are: " + _READ + "."
        yield error(where, what, _MEND)
        return
    try:
        settings = parse_settings(program.read(FILE).decode("utf-8"))
    except ValueError as fault:
        yield error(where, f"The scoring program does not take it. {fault}", _MEND)
        return
    step = settings.steps.get(DEV, 0.0)
    if step < _FINEST:
        precision = f"in steps of {step}" if step else "exact"
        what = f"Scores of {DEV} leave {precision}: " + _READ + "."
        yield warning(where, what, f"Write steps of {USUAL_STEP}, as is usual.")
    yield from _files_rule(str(name), program, settings)
    for reference in dict.fromkeys(p.reference for p in phases if p.program == name):
        inner = open_inner(archive, reference)
        names = inner.names if inner else ()
        found = {scenario_of(n) for n in names if n.endswith(SOLUTION_FILE) and n.count("/") == 4}
        for scenario in sorted(found - set(settings.scenarios)) if settings.scenarios else ():
            what = f"It has no scenario {scenario}, which is in {reference}; nothing is scored."
            yield error(where, what, _MEND)


def _files_rule(name: str, program: Archive, settings: Settings) -> Iterator[Fault]:
    """A warning if the program differs from the one that was tested."""
    if not any(program.holds(file) for file in own_files() if file not in ("score.py", "metadata")):
        return
    expected = program_files(settings.scenarios, settings.steps)
    for file in ("metadata", FILE):
        expected.pop(file)
    wrong = []
    for file, content in expected.items():
        try:
            if not program.holds(file) or program.read(file) != content:
                wrong.append(file)
        except ValueError:
            wrong.append(file)
    if STEPS_FILE in wrong:
        what = f"It does not state the steps of {FILE}, so the program cannot tell if they change."
        yield error(f"{name}, {STEPS_FILE}", what, _MEND)
    elif wrong:
        what = (
            f"{len(wrong)} files of the scoring program are not those of this package, for "
            f"instance {wrong[0]}. What scores it lets out was not checked."
        )
        yield warning(name, what, _MEND)


def _limits_rule(phase: Scored, *, first: bool) -> Iterator[Fault]:
    """Limits on submissions that are far above the usual ones, which bound the attack."""
    usual = USUAL_LIMITS
    limits = {"max_submissions_per_day": usual.per_day, "max_submissions": usual.in_all}
    for key, limit in limits.items():
        number = whole(phase.spec.get(key))
        most = 2 * limit if first else _MOST_AFTER
        if number is not None and number > most:
            what = (
                f"It is {number:,}, where {limit if first else 1} is usual: with chosen "
                f"submissions {_READ}, and the limit is what bounds this."
            )
            yield warning(f"{phase.where}.{key}", what, f"Write {most} at most.")


def _hidden_rule(phase: Scored, platform: str) -> Iterator[Fault]:
    """Logs and files of a phase with exact scores that participants should not see."""
    if "phasenumber" in phase.spec:
        mode = phase.spec.get("leaderboard_management_mode")
        if platform == CODALAB and mode != "hide_results":
            where = f"{phase.where}.leaderboard_management_mode"
            what = silent("shows the exact scores of this phase while it runs")
            yield warning(where, what, "Write hide_results.")
        return
    for key in _HIDING:
        if str(phase.spec.get(key)).lower() not in ("true", "1", "yes", "on"):
            what = silent("shows participants what the program wrote about exact scores")
            yield warning(f"{phase.where}.{key}", what, "Write true.")


def _accounts_rule(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """A warning if accounts are admitted without approval, since limits are per account."""
    if spec.get("registration_auto_approve"):
        what = "Nobody sees who registers, and the limits to submissions hold for each account."
        yield warning("registration_auto_approve", what, "Write false.")


def _strays_rule(spec: Mapping[str, Any], archive: Archive) -> Iterator[Fault]:
    """Solutions in files where they do not belong, and files that nobody reads."""
    named = {YAML_FILE, *(name.removeprefix("./") for name in _texts(spec))}
    references = {
        part["reference_data"]
        for part in [*_values(spec.get("tasks")), *_values(spec.get("phases"))]
        if isinstance(part, dict) and isinstance(part.get("reference_data"), str)
    }
    for name in archive.names:
        inside = any(name.startswith(f"{folder.rstrip('/')}/") for folder in named if folder)
        if _is_truth(archive, name):
            what = "It holds labels, and is not among the reference data."
            yield error(name, what, "Take it out.")
        elif name not in references and _holds_truth(archive, name, any_phase=name in named):
            what = f"It holds {SOLUTION_FILE} of a scored phase, and is not reference data."
            yield error(name, what, "Take them out.")
        elif name not in named and not inside and not name.lower().endswith(_USUAL):
            what = f"{YAML_FILE} does not name it, so nothing reads it."
            yield warning(name, what, "Take it out, or name it.")


def _is_truth(archive: Archive, name: str) -> bool:
    """Whether a file is named like a solution, or holds only zeros and ones."""
    if name.rpartition("/")[2] == SOLUTION_FILE:
        return True
    if archive.size(name) > MAX_TEXT:
        return False
    try:
        return bool(_LABELS.fullmatch(archive.read(name)))
    except ValueError:
        return False


def _holds_truth(archive: Archive, name: str, *, any_phase: bool) -> bool:
    """Whether a file is a zip with solutions, of the last or (`any_phase`) any phase but train."""
    inner = open_inner(archive, name) if name.lower().endswith(".zip") else None
    solutions = [n for n in (inner.names if inner else ()) if n.endswith(f"/{SOLUTION_FILE}")]
    last = f"/{SCORED_PHASES[-1]}/"
    return any("/train/" not in n if any_phase else last in n for n in solutions)


def _values(value: Any) -> list[Any]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return list(parts)


def _texts(value: Any) -> Iterator[str]:
    """Every text among the values of competition.yaml, at any depth."""
    stack, seen = [value], set()
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, (dict, list)) and id(part) not in seen:
            seen.add(id(part))  # YAML aliases may repeat the same part many times
            stack += _values(part)
