"""Finds and checks the files of a submission, and collects every fault of it.

A fault is one line of text that names the file and says what is expected of it.  Functions here
return faults and never raise for what participants wrote: a submission is data from strangers,
so files are read only up to a size, links are not followed, and what is quoted of them is cut
short and escaped.

The expected files are given as a mapping from model folder, "challenge/scenario/phase/model_0"
with forward slashes, to the number of values in its file.
"""

import os
import re
import stat
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

import numpy as np

PREDICTION_FILE = "prediction.csv"

MAX_BYTES = 1_000_000
MAX_ENTRIES = 10_000
MAX_DIGITS = 100
MAX_SHOWN = 60

LEVELS = ("challenge", "scenario", "phase", "model")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)

Faults = List[str]


def shown(text: str) -> str:
    """`text` quoted for a log: control and non-ASCII characters escaped, and cut short."""
    quoted = ascii(text[: MAX_SHOWN + 1])
    return quoted if len(text) <= MAX_SHOWN else quoted[:MAX_SHOWN] + "...'"


def list_folder(path: str) -> Tuple[Optional[List[str]], List[str]]:
    """Sorted names of the sub-folders and of the files of `path`; None if it is not a folder.

    Links count as files.  What operating systems and platforms leave lying around is left out:
    names with a leading dot, and `__MACOSX`.
    """
    folders: List[str] = []
    files: List[str] = []
    try:
        with os.scandir(path) as entries:
            for count, entry in enumerate(entries):
                if count >= MAX_ENTRIES:
                    break
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                (folders if is_folder else files).append(entry.name)
    except OSError:
        return None, []
    return sorted(folders), sorted(files)


def _read_text(path: str) -> Tuple[Optional[str], str]:
    """The text of a small regular file, or None and what is wrong with it."""
    # Without O_NONBLOCK a named pipe would hold the program up for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None, "is not a regular file; links and folders are not read"
        with os.fdopen(os.open(path, flags), "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None, "is missing"
    except (OSError, ValueError):
        return None, "cannot be read"
    if len(content) > MAX_BYTES:
        return None, "is larger than the %d bytes that are read" % MAX_BYTES
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return None, "is not text in UTF-8"


def _parse(words: List[str]) -> Tuple[np.ndarray, Faults]:
    """The numbers that `words` spell, and one line a kind of fault, without the file's name."""
    values = np.zeros(len(words))
    wrong: Dict[str, List[int]] = {"a number": [], "finite": [], "between 0 and 1": []}
    for i, word in enumerate(words):
        # float() alone also takes "1_000" and digits of other scripts, and is slow on long ones.
        if len(word) <= MAX_DIGITS and NUMBER.fullmatch(word):
            values[i] = float(word)
            if not 0.0 <= values[i] <= 1.0:
                wrong["between 0 and 1"].append(i)
        elif NOT_FINITE.fullmatch(word):
            wrong["finite"].append(i)
        else:
            wrong["a number"].append(i)
    faults = []
    for expected, places in wrong.items():
        if places:
            first = places[0]
            line = "value %d must be %s, got %s" % (first + 1, expected, shown(words[first]))
            more = len(places) - 1
            faults.append(line + (" (and %d more such values)" % more if more else ""))
    return values, faults


def _format(count: Optional[int]) -> str:
    number = "" if count is None else "%d " % count
    return "expected one line of %scomma-separated numbers in [0, 1]" % number


def read_values(
    path: str, count: Optional[int] = None, name: Optional[str] = None
) -> Tuple[Optional[np.ndarray], Faults]:
    """The values of one file: a single line of comma-separated numbers in [0, 1].

    A byte order mark, Windows line ends, space around values, blank lines around the line and
    one comma after the last value are accepted.

    Args:
        path: the file.
        count: how many values are expected; any number of them, but at least one, if None.
        name: what to call the file in faults; `path` if None.

    Returns:
        `(values, faults)`: a float array of shape (count,) and an empty list, or None and at
        least one line.  Faults quote values of the file, so do not call this for the truth.
    """
    name = shown(path) if name is None else name
    expected = _format(count)
    text, problem = _read_text(path)
    if text is None:
        return None, ["%s %s; %s." % (name, problem, expected)]
    lines = text.strip().splitlines()
    if not lines:
        return None, ["%s is empty; %s." % (name, expected)]
    if len(lines) > 1:
        return None, ["%s holds %d lines; %s." % (name, len(lines), expected)]
    line = lines[0][:-1] if lines[0].endswith(",") else lines[0]
    words = [word.strip() for word in line.split(",")]
    faults = []
    if count is not None and len(words) != count:
        faults.append("%s holds %d values; %s." % (name, len(words), expected))
    values, wrong = _parse(words if count is None else words[:count])
    faults.extend("%s: %s; %s." % (name, problem, expected) for problem in wrong)
    return (None, faults) if faults else (values, [])


def _tree(expected: Mapping[str, int]) -> Dict[str, Any]:
    """Nested dicts, a level a folder, from model folders; the innermost values are counts."""
    tree: Dict[str, Any] = {}
    for folder, count in expected.items():
        *parents, model = folder.split("/")
        level = tree
        for part in parents:
            level = level.setdefault(part, {})
        level[model] = count
    return tree


def few(names: Iterable[str]) -> str:
    """Names in one short phrase: "a, b, c and 47 more"."""
    ordered = sorted(names, key=lambda name: (len(name), name))
    phrase = ", ".join(ordered[:3])
    return phrase if len(ordered) <= 3 else "%s and %d more" % (phrase, len(ordered) - 3)


def _absent(name: str, inside: Any) -> str:
    """The fault of a folder that is not there; `inside` is what it should hold: see `_tree`."""
    if isinstance(inside, Mapping):
        expected = "expected a folder that holds %s" % few(inside)
        return "%s is missing or not a folder; %s." % (name, expected)
    return "%s/%s is missing; %s." % (name, PREDICTION_FILE, _format(inside))


def _check_model(path: str, name: str, count: int) -> Tuple[Optional[np.ndarray], Faults]:
    """The predictions in one model's folder."""
    files = list_folder(path)[1]
    if files and PREDICTION_FILE not in files:
        return None, [
            "%s/%s is missing; expected a file of that name with %d values, found %s."
            % (name, PREDICTION_FILE, count, few(shown(file) for file in files))
        ]
    return read_values(os.path.join(path, PREDICTION_FILE), count, name + "/" + PREDICTION_FILE)


def _check_folder(
    path: str, name: str, tree: Mapping[str, Any], level: int, values: Dict[str, np.ndarray]
) -> Faults:
    """Faults of a folder that should hold `tree`; what is read of it goes into `values`."""
    here = "the submission" if level == 0 else name
    kind = LEVELS[level]
    folders, _ = list_folder(path)
    if folders is None:
        return [_absent(here, tree)]
    faults = []
    # A submission holds both phases, of which one is scored: others are not looked at.
    for extra in [] if kind == "phase" else sorted(set(folders) - set(tree)):
        faults.append(
            "%s: unexpected %s folder %s; expected only %s%s."
            % (here, kind, shown(extra), few(tree), " at its top" * (level == 0))
        )
    for part in sorted(tree, key=lambda part: (len(part), part)):
        inner = os.path.join(path, part)
        inner_name = part if level == 0 else name + "/" + part
        # What is not among the folders is not opened either: it may be a link to elsewhere.
        if part not in folders:
            faults.append(_absent(inner_name, tree[part]))
        elif kind == "model":
            found, wrong = _check_model(inner, inner_name, tree[part])
            faults.extend(wrong)
            if found is not None:
                values[inner_name] = found
        else:
            faults.extend(_check_folder(inner, inner_name, tree[part], level + 1, values))
    return faults


def check_predictions(
    root: str, expected: Mapping[str, int]
) -> Tuple[Dict[str, np.ndarray], Faults]:
    """All predictions below `root`, and all faults of the submission.

    Args:
        root: the folder whose tree is that of the submission's zip.
        expected: model folders, such as "cifar10/cifar10_hi/dev/model_100", to how many values
            each one's prediction.csv must hold.  Missing folders and files are faults, and so
            are other folders at the levels of challenge, scenario and model; other phases
            than those expected, and stray files, are not looked at.

    Returns:
        `(values, faults)`: a dict from model folder to a float array, of the models without a
        fault of their own, and one line a fault.  The submission is sound if and only if there
        are no faults, and then `values` has the keys of `expected`.
    """
    values: Dict[str, np.ndarray] = {}
    faults = _check_folder(root, "", _tree(expected), 0, values)
    return values, faults
