"""The bundle that an organiser uploads: facts, pages, program and the solutions of Development.

The solutions of Final are never in it, because no platform hides them reliably while Development
runs. Their place is taken by a placeholder, which scores nobody; `write_final_reference` makes the
file that replaces it when Final opens (`docs/HOST.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.lengths import len_challenge_of
from mico_competition.competition.solutions import read_solution
from mico_competition.competition.table import (
    PUBLISHED,
    SCORED_PHASES,
    SOLUTION_FILE,
    current,
    get_challenge,
    hosting_of,
)
from mico_competition.hosting.codabench.check import Fault, check_bundle, has_errors
from mico_competition.hosting.codabench.facts import PHASE_TITLES, Facts, Schedule, date_text
from mico_competition.hosting.codabench.files import Archive
from mico_competition.hosting.codabench.options import Options, options_of
from mico_competition.hosting.codabench.program import program_files
from mico_competition.hosting.codabench.texts import logo, make_pages
from mico_competition.hosting.codabench.yaml_form import (
    LOGO_FILE,
    PROGRAM_FILE,
    PUBLIC_DATA_FILE,
    STARTING_KIT_FILE,
    YAML_FILE,
    reference_file,
    yaml_text,
)
from mico_competition.scoring.truth import NOTICE_FILE, read_solutions
from mico_competition.support.counts import count_of
from mico_competition.support.files import PRIVATE, PathLike, written_aside
from mico_competition.support.scratch import scratch
from mico_competition.support.zips import Content, write_zip, zip_bytes

_MEND = "name the folder that `mico train --output_dir` was given."


def write_bundle(
    root: PathLike,
    challenge: str,
    to: PathLike,
    schedule: Schedule,
    options: Options | None = None,
    *,
    repo: str | None = None,
    code: str | None = None,
    starting_kit: PathLike | None = None,
    public_data: PathLike | None = None,
) -> list[Fault]:
    """Write a competition bundle that only its owner can read; returns the warnings of its check.

    The same models, dates and options give the same bytes.

    Args:
        root: the folder with `<challenge>/<scenario>/<phase>/model_<i>`, as training wrote them,
            with the solutions of `dev`; those of `final` are not opened.
        challenge: name of the challenge.
        to: the zip to write; an earlier one is replaced.
        schedule: the dates of phases.
        options: what `options_of(challenge)` gives by default, for Codabench.
        repo: OWNER/NAME of the release on the Hugging Face Hub, for the page about data; by default
            that of the competition's file.
        code: address of the repository of this package, for the page on how to start; by default
            that of the competition's file.
        starting_kit: a zip for participants.
        public_data: another.

    Raises:
        ValueError: if models or solutions are missing or damaged, if an extra is not a zip, or
            if `check_bundle` finds an error in the finished bundle.  Nothing is written then.
    """
    options = options or options_of(challenge)
    if current().path is not None:  # 2022's repositories hold other models than these
        repo = PUBLISHED.get(challenge) if repo is None else repo
    code = hosting_of(challenge).repository if code is None else code
    facts = Facts.of(root, challenge)
    extras: dict[str, Content] = {}
    for name, path in ((STARTING_KIT_FILE, starting_kit), (PUBLIC_DATA_FILE, public_data)):
        if path is not None:
            Archive(path)
            extras[name] = Path(path)
    dev, final = SCORED_PHASES
    options = replace(options, extras=tuple(extras))
    contents: dict[str, Content] = {
        YAML_FILE: yaml_text(facts, schedule, options).encode(),
        LOGO_FILE: logo(),
        PROGRAM_FILE: zip_bytes({**program_files(facts.labels, options.steps)}),
        reference_file(dev): zip_bytes(solutions(root, challenge, dev)),
        reference_file(final): zip_bytes(placeholder(schedule)),
        **make_pages(facts, schedule, options, repo, code),
        **extras,
    }
    with written_aside(to, access=PRIVATE) as aside:
        write_zip(aside, contents)
        faults = check_bundle(aside, options.platform)
        if has_errors(faults):
            raise ValueError(_listing(faults))
    return faults


def write_final_reference(root: PathLike, challenge: str, to: PathLike) -> int:
    """Write the zip with the solutions of the final phase; only its owner can read it.

    Returns the number of solutions.

    Raises:
        ValueError: if a solution is missing or damaged.
    """
    files = solutions(root, challenge, SCORED_PHASES[-1])
    with written_aside(to, access=PRIVATE) as aside:
        write_zip(aside, files)
    return len(files)


def solutions(root: PathLike, challenge: str, phase: str) -> dict[str, Content]:
    """The files of one phase's solutions, as the scoring program reads them from `ref`.

    Raises:
        ValueError: as `read_solution`; or if the scoring program would not accept them. The message
            quotes no label.
    """
    folder = Path(root) / challenge
    found: dict[str, Content] = {}
    models = walk_challenge(folder, phases=[phase], fix=_MEND)
    for model in models:
        read_solution(model.path, count=2 * len_challenge_of(model.path))
        name = f"{challenge}/{model.relative_path}/{SOLUTION_FILE}"
        found[name] = (model.path / SOLUTION_FILE).read_bytes()
    if {model.scenario for model in models} != set(get_challenge(challenge)):
        raise ValueError(f"{folder} lacks a scenario with {phase} models: train it.")
    _check_solutions(found)
    return found


def _check_solutions(files: Mapping[str, Content]) -> None:
    """Let the scoring program read the solutions, to find faults before they are needed."""
    with scratch(None, "mico-truth") as folder:
        ref = folder / "ref"
        for name, content in files.items():
            (ref / name).parent.mkdir(parents=True, exist_ok=True)
            (ref / name).write_bytes(content)  # type: ignore[arg-type]
        _, faults = read_solutions(str(ref))
    if faults:
        raise ValueError(
            "The scoring program would refuse these solutions:\n  " + "\n  ".join(faults)
        )


def placeholder(schedule: Schedule) -> dict[str, Content]:
    """The placeholder for the solutions of the final phase until it opens: a notice only."""
    title = PHASE_TITLES[SCORED_PHASES[-1]]
    notice = (
        f"{title} is not open yet, and nothing is scored before it is. It opens on "
        f"{date_text(schedule.final_start)} UTC; if that has passed, please tell the organisers."
    )
    return {NOTICE_FILE: f"{notice}\n".encode()}


def _listing(faults: list[Fault]) -> str:
    lines = [f"  {fault}" for fault in faults]
    return "\n".join(
        [f"The bundle does not pass its check, {count_of(len(faults), 'fault')}:", *lines]
    )
