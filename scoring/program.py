"""The scoring program of CodaLab and Codabench: `python3 score.py IN OUT`.

Reads the truth of one phase from `IN/ref` and a submission from `IN/res`, both laid out as
`<challenge>/<scenario>/<phase>/model_<i>/`, and writes `OUT/scores.txt`, `OUT/scores.json` and
`OUT/detailed_results.html`.  If the submission has a fault, it writes no scores, lists every fault
on stderr and in the page, and returns 1.  It never prints a label, a prediction next to one, or a
curve.  docs/HOST.md says what scores reveal about labels, and `coarse.py` reduces it.

Faults go to stderr, because legacy CodaLab hides stdout of a phase with hidden results, and to the
page, because Codabench hides both.  The page always exists: legacy CodaLab creates an empty one
before it starts the program, and fails if it is missing.
"""

import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, TextIO

import numpy as np

from .bundled import STEPS
from .coarse import average, coarse
from .curve import RATES
from .intervals import intervals_of
from .metrics import RANKED, SCALARS, score
from .printable import printable
from .reading import check_predictions
from .report import generate_html, generate_refusal
from .settings import settings_in_force
from .truth import phase_of, read_notice, read_solutions, scenario_of

USAGE = "usage: score.py IN OUT    (IN holds the folders ref and res)"
MAX_FAULTS = 50
ORGANISERS = (
    "the competition's own data has faults (%d). Please tell the organisers; this is no fault of "
    "the submission."
)
UNFINISHED = "scoring began and did not come to its end. Please tell the organisers."
PAGE = "detailed_results.html"
SCORES = ("scores.txt", "scores.json")
TIME_LIMIT = 240
"""Seconds.  Legacy CodaLab ends a program after 300 by default and Codabench after 600, not always
and without a word of why; this program takes one or two."""


class OutOfTime(BaseException):
    """The time limit has passed.  It is not an `Exception`, so that no other code catches it."""


def plain_decimal(value: float) -> str:
    """The shortest decimal that reads back as `value`, without an exponent.

    Leaderboards read YAML, in which "4e-08" is a text.

    >>> plain_decimal(0.1), plain_decimal(4e-08), plain_decimal(1.0)
    ('0.1', '0.00000004', '1.0')
    """
    return format(Decimal(repr(float(value))), "f")


def score_scenarios(
    solutions: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]
) -> Dict[str, Dict[str, Any]]:
    """Score each scenario over the pooled points of its models, in the order of `solutions`.

    Args:
        solutions: model folder -> array of zeros and ones (from `read_solutions`).
        predictions: the same folders -> arrays of the same lengths (from `check_predictions`).
    """
    folders: Dict[str, List[str]] = {}
    for folder in solutions:
        folders.setdefault(scenario_of(folder), []).append(folder)
    return {
        scenario: score(
            np.concatenate([solutions[folder] for folder in members]),
            np.concatenate([predictions[folder] for folder in members]),
        )
        for scenario, members in folders.items()
    }


def leaderboard_row(scores: Mapping[str, Mapping[str, Any]]) -> Dict[str, float]:
    """The keys and numbers of the leaderboard: `scenario1_AUC` and so on, then the average."""
    row = {
        "scenario%d_%s" % (i, key): float(result[key])
        for i, result in enumerate(scores.values(), start=1)
        for key in SCALARS
    }
    row["average_" + RANKED] = average(scores, RANKED)
    return row


def write_outputs(
    folder: str,
    scores: Mapping[str, Mapping[str, Any]],
    intervals: Optional[Mapping[str, Any]] = None,
    labels: Optional[Mapping[str, str]] = None,
) -> None:
    """Write the three output files, and rename them to their final names when all are complete.

    Scenarios are numbered in the order of `scores`, and shown in that of `labels`.
    """
    row = leaderboard_row(scores)
    shown = {name: scores[name] for name in labels or scores}
    contents = {
        PAGE: generate_html(shown, intervals, labels=labels),
        "scores.txt": "".join("%s: %s\n" % (key, plain_decimal(row[key])) for key in row),
        "scores.json": json.dumps(row, indent=1, allow_nan=False) + "\n",
    }
    _write(folder, contents)


def _write(folder: str, contents: Mapping[str, str]) -> None:
    """Write files to a temporary folder, then move all of them to `folder`, in their order."""
    # The temporary folder is hidden inside `folder`: so files stay on one disk, and a platform that
    # looks for *.html does not find an incomplete page.
    with tempfile.TemporaryDirectory(prefix=".scores-", dir=folder) as aside:
        for name, content in contents.items():
            with open(os.path.join(aside, name), "w", encoding="utf-8", newline="\n") as file:
                file.write(content)
        for name in contents:
            os.replace(os.path.join(aside, name), os.path.join(folder, name))


def remove_scores(folder: str) -> None:
    """Remove the scores of an earlier run, so that a failed run does not seem to have scores."""
    problem = None
    for name in SCORES:
        try:
            os.remove(os.path.join(folder, name))
        except FileNotFoundError:
            pass
        except OSError as error:  # such as a folder of that name; remove the others all the same
            problem = error
    if problem is not None:
        raise problem


def say(text: str, stream: Optional[TextIO]) -> None:
    """Print `text`; a reader that has gone (`| head -1`) does not affect the scoring."""
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        with suppress(OSError, ValueError):  # what is left of it would fail again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def refuse(folder: str, heading: str, faults: Sequence[str] = ()) -> int:
    """Report on stderr and in the page why nothing is scored, and return the exit code."""
    listed = list(faults[:MAX_FAULTS])
    if len(faults) > MAX_FAULTS:
        listed.append("... and %d more" % (len(faults) - MAX_FAULTS))
    lines = [line if line.startswith("... ") else "- " + line for line in listed]
    say("\n".join(["Not scored: " + heading] + lines), sys.stderr)
    with suppress(OSError):  # stderr has said it
        _write(folder, {PAGE: generate_refusal(heading, listed)})
    return 1


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `OutOfTime` in the block after `seconds`, on systems that have alarms."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() != threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(inputs: str, outputs: str) -> int:
    """Score the submission in `inputs`; return 0 if and only if scores were written."""
    missing = "" if os.path.isdir(inputs) else "There is no folder %s." % inputs
    if missing and not os.path.isdir(outputs):  # a slip at a terminal: platforms make both
        say("Not scored: " + printable(missing), sys.stderr)
        return 1
    os.makedirs(outputs, exist_ok=True)
    remove_scores(outputs)
    if missing:
        return refuse(outputs, printable(missing))
    _write(outputs, {PAGE: generate_refusal(UNFINISHED)})
    notice = read_notice(os.path.join(inputs, "ref"))
    if notice:
        return refuse(outputs, notice)
    settings, note = settings_in_force(os.path.dirname(os.path.abspath(__file__)), STEPS)
    if note:
        say(note, sys.stderr)
    solutions, faults = read_solutions(os.path.join(inputs, "ref"), settings.scenarios)
    if faults:
        return refuse(outputs, ORGANISERS % len(faults), faults)
    expected = {folder: values.size for folder, values in solutions.items()}
    predictions, faults = check_predictions(os.path.join(inputs, "res"), expected)
    if faults:
        return refuse(outputs, "the submission has faults (%d)." % len(faults), faults)
    scores = score_scenarios(solutions, predictions)
    intervals: Optional[Mapping[str, Any]] = None
    step = settings.step_of(phase_of(next(iter(solutions))))
    if step:  # only the rounded numbers are used from here on
        scores = {name: coarse(result, step) for name, result in scores.items()}
    else:
        intervals = intervals_of(solutions, predictions, rates=RATES)
    write_outputs(outputs, scores, intervals, settings.scenarios)
    plural = "" if len(scores) == 1 else "s"
    say("Scored %d models in %d scenario%s." % (len(solutions), len(scores), plural), sys.stdout)
    return 0


def main(arguments: List[str]) -> int:
    """Run the program and return its exit code: 0 scored, 1 not scored, 2 wrong arguments."""
    if len(arguments) != 2:
        say(USAGE, sys.stderr)
        return 2
    inputs, outputs = arguments
    try:
        with time_limit(TIME_LIMIT):
            return run(inputs, outputs)
    except OutOfTime:
        problem = "this took more than %d seconds" % TIME_LIMIT
    except Exception as error:
        # A traceback, and even an error's message, may quote what participants must not see.
        here = os.path.dirname(__file__)
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if os.path.dirname(frame.filename) == here]
        place = (ours or frames)[-1]
        file = os.path.basename(place.filename)
        problem = "%s in %s, line %d" % (type(error).__name__, file, place.lineno or 0)
        if isinstance(error, OSError) and error.errno:
            problem += " (%s)" % os.strerror(error.errno)
    with suppress(OSError):
        remove_scores(outputs)  # those of a run that stopped between one and the next
    return refuse(outputs, problem + ". Please tell the organisers.")
