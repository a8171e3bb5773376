"""Scores one submission as the platforms' workers do, but without Docker.

There are two jobs: the submission is copied, and the scoring program is run on it.  Folders,
command, limits and the reading of scores are those of Codabench's compute worker, or of legacy
CodaLab's.  Effects of the container (another image, root permissions, the network) are not
rehearsed.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from mico_competition.hosting.codabench.bounded_yaml import load_yaml
from mico_competition.hosting.codabench.files import Archive
from mico_competition.support.files import PathLike
from mico_competition.support.untrusted import JSON_LIMIT, read_limited_text

FINISHED, FAILED = "Finished", "Failed"
NO_SCORES = "Could not find scores file, did the scoring program output it?"
BAD_ZIP = "Bad or empty zip file"
_WORKERS_METADATA = (
    "elapsedTime: null\nexitCode: null\ningestionElapsedTime: null\ningestionExitCode: null\n"
)
_PLACES = Decimal("1e-10")  # the platforms store scores as decimal(20, 10)
_LARGEST = Decimal(10) ** 10


@dataclass(frozen=True)
class Job:
    """The input of a scoring: three zips, the time limit in seconds, and the board's keys."""

    program: Archive
    reference: Archive | None
    submission: Path
    seconds: int
    keys: tuple[str, ...]
    legacy: bool = False
    python: str = sys.executable


@dataclass(frozen=True)
class Outcome:
    """The result of a scoring: the platform's status and message, and the scores on the board.

    `scores` has only keys of the board; a missing one is shown as n/a.  `stdout` and `stderr` are
    what the participant sees.
    """

    status: str
    words: str = ""
    scores: dict[str, Decimal] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    detailed: Path | None = None


class Failure(Exception):
    """The run ends with status Failed and this message."""


def score_submission(job: Job, folder: Path) -> Outcome:
    """Create the platform's folders in an empty `folder`, run the program, and read its scores."""
    app = folder / "app"
    output = app / "output"
    log = {"stdout": "", "stderr": ""}
    started = time.monotonic()
    try:
        _predict(job, app / "input" / "res")
        _lay_out(job, app)
        for command in _commands(job, app):
            _run(command, job, app, folder, log)
        status, words, scores = _read_scores(output, job)
        if (output / "metadata").exists():
            raise Failure("Error, the output directory already contains a metadata file.")
    except Failure as failure:
        status, words, scores = FAILED, str(failure), {}
    seconds = time.monotonic() - started
    return Outcome(status, words, scores, **log, seconds=seconds, detailed=_detailed(output))


def _predict(job: Job, res: Path) -> None:
    """The first job: copy a zip without `metadata` at its root, and add the worker's."""
    try:
        with Archive(job.submission) as archive:
            if not archive.names:
                raise Failure(f"{BAD_ZIP}: it holds no file.")
            for name in ("metadata.yaml", "metadata"):
                if archive.holds(name):
                    raise Failure(
                        f"{BAD_ZIP}: its {name} makes the submission a program, of which nothing "
                        "is copied. Leave it out."
                    )
            archive.unpack(res)
    except ValueError as fault:
        raise Failure(f"{BAD_ZIP}: {fault}") from None
    (res / "metadata").write_text(_WORKERS_METADATA, encoding="utf-8")


def _lay_out(job: Job, app: Path) -> None:
    """Create the folders of the second job."""
    try:
        job.program.unpack(app / "program")
        if job.reference is not None:
            job.reference.unpack(app / "input" / "ref")
    except ValueError as fault:
        raise Failure(str(fault)) from None
    for name in ("output", "shared", "data", "input_data"):
        (app / name).mkdir()


def _commands(job: Job, app: Path) -> list[list[str]]:
    """The commands of `metadata`, as lists of arguments with the platform's names replaced."""
    import yaml

    names = ("metadata",) if job.legacy else ("metadata.yaml", "metadata")
    file = next((app / "program" / n for n in names if (app / "program" / n).is_file()), None)
    if file is None:
        raise Failure(NO_SCORES)
    try:
        metadata = load_yaml(read_limited_text(file, JSON_LIMIT))
    except (yaml.YAMLError, ValueError, RecursionError):
        metadata = None
    command = metadata.get("command") if isinstance(metadata, dict) else None
    if not command:
        raise Failure(NO_SCORES)
    if isinstance(command, list) and job.legacy:
        return [_arguments(str(one), job, app) for one in command]
    if not isinstance(command, str):
        raise Failure("A list as command fails: it is not a text.")
    return [_arguments(command, job, app)]


def _arguments(command: str, job: Job, app: Path) -> list[str]:
    """Docker splits a command like a shell, legacy CodaLab at every space; neither runs one."""
    try:
        words = command.split(" ") if job.legacy else shlex.split(command)
    except ValueError as fault:
        raise Failure(f"The command cannot be split: {fault}.") from None
    places = (
        *(("$input", "input"), ("$output", "output"), ("$program", "program")),
        *(("$ingestion_program", "program"), ("$hidden", "input/ref"), ("$shared", "shared")),
        *(("$submission_program", "ingested_program"), ("$tmp", "output")),
        ("$predictions", "input/res"),
    )
    for name, place in places:
        words = [word.replace(name, str(app / place)) for word in words]
    return words


def _run(words: list[str], job: Job, app: Path, folder: Path, log: dict[str, str]) -> None:
    """Run one command in a clean environment; adds to `log` what it printed."""
    home = _interpreters(folder, job.python)
    environment = {
        "PATH": os.pathsep.join([str(home), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    files = {name: folder / name for name in log}
    code: int | None = None
    with files["stdout"].open("wb") as out, files["stderr"].open("wb") as err:
        try:
            process = subprocess.Popen(
                words,
                cwd=app if job.legacy else app / "program",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "strerror", None) or fault
            raise Failure(f"{words[0]}: {reason}.") from None
        try:
            code = process.wait(job.seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:  # the time limit has passed, or the user pressed Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    for name, path in files.items():
        log[name] += _beginning(path).decode("utf-8", "replace")
    if code is None:
        raise Failure(f"Execution Time Limit exceeded. Limit was {job.seconds} seconds")
    if code:
        raise Failure(f"The scoring program ended with exit code {code}; scores are not read then.")


def _interpreters(folder: Path, python: PathLike) -> Path:
    """A folder in which `python3` and `python` are the requested interpreter."""
    home = folder / "bin"
    home.mkdir(exist_ok=True)
    for name in ("python3", "python"):
        # A script, not a link: a virtual environment's python must be called by its own path.
        (home / name).write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} "$@"\n')
        (home / name).chmod(0o755)
    return home


def _read_scores(output: Path, job: Job) -> tuple[str, str, dict[str, Decimal]]:
    """The status, message and scores that follow from the program's output."""
    if job.legacy:
        return FINISHED, "", _legacy_scores(output / "scores.txt", job.keys)
    import yaml

    try:
        if (output / "scores.json").is_file():
            values = json.loads(read_limited_text(output / "scores.json", JSON_LIMIT))
        elif (output / "scores.txt").is_file():
            values = load_yaml(read_limited_text(output / "scores.txt", JSON_LIMIT))
        else:
            raise Failure(NO_SCORES)
    except json.JSONDecodeError as fault:
        words = f"Could not decode scores json properly, it contains an error. {fault.msg}"
        raise Failure(words) from None
    except (ValueError, yaml.YAMLError, RecursionError):
        return FINISHED, "Without scores: what the program wrote cannot be read.", {}
    return _kept(values, job.keys)


def _kept(values: Any, keys: Collection[str]) -> tuple[str, str, dict[str, Decimal]]:
    """The scores that the site stores: numbers under the board's keys, with ten decimals."""
    if not isinstance(values, dict):
        kind = type(values).__name__
        return FINISHED, f"Without scores: the program wrote no mapping, but {kind}.", {}
    if any(isinstance(value, float) and not abs(value) < float("inf") for value in values.values()):
        return FINISHED, "Without scores: NaN and infinity cannot be posted.", {}
    scores = {}
    for key in [key for key in values if key in keys]:
        try:
            number = Decimal(str(values[key]))
            if not abs(number) < _LARGEST:
                raise InvalidOperation
            scores[str(key)] = number.quantize(_PLACES)
        except InvalidOperation:
            return FINISHED, f"Without scores: {key} is no number that the site can keep.", {}
    missing = [key for key in keys if key not in scores]
    words = (
        f"n/a in {len(missing)} of {len(keys)} columns: no score of that name." if missing else ""
    )
    return FINISHED, words, scores


def _legacy_scores(path: Path, keys: Collection[str]) -> dict[str, Decimal]:
    """The scores as legacy CodaLab reads them: lines `label:value` of scores.txt."""
    if not path.is_file():
        raise Failure("There is no scores.txt, and legacy CodaLab reads nothing else.")
    scores = {}
    for line in _beginning(path).decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        label, colon, value = line.partition(":")
        try:
            if not colon or ":" in value:
                raise InvalidOperation
            number = Decimal(value.strip())
            if not number.is_finite():
                raise InvalidOperation
        except InvalidOperation:
            raise Failure(f"A line of scores.txt is not `label: number`: {line[:60]!r}.") from None
        if label.strip() in keys:
            scores[label.strip()] = number.quantize(_PLACES)
    return scores


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(JSON_LIMIT)


def _detailed(output: Path) -> Path | None:
    """The page of detailed results: that of the usual name, or else any page in the output."""
    named = output / "detailed_results.html"
    if named.is_file():
        return named
    return next(iter(sorted(output.glob("*.html"))), None) if output.is_dir() else None
