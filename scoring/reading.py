"""Reads and checks the files of a submission, and collects all its faults.

A fault is one line of text that names the file and says what is expected of it.  The functions
return faults, and never raise errors for what participants wrote.  A submission is untrusted, so
files are read only up to a size, links are not followed, and quoted text is shortened and escaped.

The expected files are given as a mapping from model folder, "challenge/scenario/phase/model_0"
with forward slashes, to the number of values in its file.
"""

import os
import re
from typing import Any, Dict, List, Mapping, Match, Optional, Sequence, Tuple

import numpy as np

from .files import Listing, few, list_folder, read_text, shown

PREDICTION_FILE = "prediction.csv"

MAX_DIGITS = 100
# Python's white space includes control characters, some of which float() refuses.
BLANKS = " \t\r\n"

LEVELS = ("challenge", "scenario", "phase", "model")
# Each text matches in only one way, so that matching takes time linear in its length.
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)

Faults = List[str]

_MISSING = re.compile(r"(.*/)model_([0-9]{1,9})(/%s is missing;.*)" % re.escape(PREDICTION_FILE))


def _parse(words: List[str]) -> Tuple[np.ndarray, Faults]:
    """The numbers in `words`, and one line for each kind of fault, without the file's name."""
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
    """Read the values of a file: a single line of comma-separated numbers in [0, 1].

    A byte order mark, Windows line ends, space around values, blank lines around the line and
    one comma after the last value are accepted.

    Args:
        path: the file.
        count: the expected number of values; if None, any number from one on.
        name: the name of the file in faults; by default `path`.

    Returns:
        `(values, faults)`: a float array of shape (count,) and an empty list, or None and at
        least one line.  Faults quote values of the file, so do not show those of a solution.
    """
    name = shown(path) if name is None else name
    expected = _format(count)
    text, problem = read_text(path)
    if text is None:
        return None, ["%s %s; %s." % (name, problem, expected)]
    text = text.strip(BLANKS).replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        return None, ["%s is empty; %s." % (name, expected)]
    # Lines and values are counted first, and split only as far as needed: otherwise a file of a
    # million commas would become a million strings, and there may be hundreds of such files.
    lines = text.count("\n") + 1
    if lines > 1:
        return None, ["%s holds %d lines; %s." % (name, lines, expected)]
    line = text[:-1] if text.endswith(",") else text
    found = line.count(",") + 1
    wanted = found if count is None else min(count, found)
    faults = []
    if count is not None and found != count:
        plural = "" if found == 1 else "s"
        faults.append("%s holds %d value%s; %s." % (name, found, plural, expected))
    words = [word.strip(BLANKS) for word in line.split(",", wanted)[:wanted]]
    values, wrong = _parse(words)
    faults.extend("%s: %s; %s." % (name, problem, expected) for problem in wrong)
    return (None, faults) if faults else (values, [])


def _tree(expected: Mapping[str, int]) -> Dict[str, Any]:
    """The expected folders as nested dicts; the innermost values are counts."""
    tree: Dict[str, Any] = {}
    for folder, count in expected.items():
        *parents, model = folder.split("/")
        level = tree
        for part in parents:
            level = level.setdefault(part, {})
        level[model] = count
    return tree


def _check_model(path: str, name: str, count: int) -> Tuple[Optional[np.ndarray], Faults]:
    """The predictions in one model's folder."""
    file = os.path.join(path, PREDICTION_FILE)
    name = name + "/" + PREDICTION_FILE
    others = [] if os.path.lexists(file) else list_folder(path).files
    if others:
        found = few(shown(other) for other in others)
        expected = "expected a file of that name with %d values, found %s" % (count, found)
        return None, ["%s is missing; %s." % (name, expected)]
    return read_values(file, count, name)


def _absent(name: str, inside: Any, listing: Listing) -> str:
    """The fault of a missing folder `name`; `inside` is what it should hold."""
    part = name.rpartition("/")[2]
    if not isinstance(inside, Mapping):
        what = "is missing or not a folder" if part in listing.files else "is missing"
        return "%s/%s %s; %s." % (name, PREDICTION_FILE, what, _format(inside))
    fault = "%s is missing or not a folder; expected a folder that holds %s" % (name, few(inside))
    zips = [file for file in listing.files if file.lower().endswith(".zip")]
    if zips:
        fault += " (a zip inside the zip, such as %s, is not opened)" % shown(zips[0])
    return fault + "."


def _misplaced(path: str, tree: Mapping[str, Any], unexpected: List[str]) -> Optional[str]:
    """The fault of a submission whose folders are one level too deep, or too high."""
    for folder in unexpected[:3]:
        inner = list_folder(os.path.join(path, folder)).folders or []
        if any(part in inner for part in tree):
            return (
                "the submission: %s lies inside the folder %s; expected it at the top: zip what "
                "is in that folder, not the folder itself." % (few(tree), shown(folder))
            )
    for part, inside in tree.items():
        stranded = [folder for folder in unexpected if folder in inside]
        if stranded:
            return (
                "the submission: found %s at its top; expected it in a folder %s: zip that "
                "folder, not what is in it." % (few(stranded), part)
            )
    return None


def _sorted_out(
    path: str, here: str, tree: Mapping[str, Any], found: List[str], level: int
) -> Tuple[Faults, List[str], List[str]]:
    """Faults with an obvious cause, and the folders that remain unexpected and missing.

    Otherwise each such cause would be reported as one unexpected and one missing folder.
    """
    unexpected = [folder for folder in found if folder not in tree]
    missing = [part for part in tree if part not in found]
    faults = []
    for folder in list(unexpected):
        lower = folder.lower()
        if lower in missing:
            faults.append(
                "%s: found folder %s, expected %s: upper and lower case are told apart."
                % (here, shown(folder), lower)
            )
            missing.remove(lower)
            unexpected.remove(folder)
    cause = _misplaced(path, tree, unexpected) if level == 0 and missing else None
    return (faults + [cause], [], []) if cause else (faults, unexpected, missing)


def _check_folder(
    path: str, name: str, tree: Mapping[str, Any], level: int, values: Dict[str, np.ndarray]
) -> Faults:
    """The faults of a folder that should hold `tree`; predictions are added to `values`."""
    here = "the submission" if level == 0 else name
    kind = LEVELS[level]
    listing = list_folder(path)
    if listing.folders is None:
        return ["%s %s; expected a folder that holds %s." % (here, listing.problem, few(tree))]
    faults, unexpected, missing = _sorted_out(path, here, tree, listing.folders, level)
    # A submission holds both phases, of which one is scored; the other is ignored.
    expected = few(tree) + " at its top" * (level == 0)
    for folder in unexpected if kind != "phase" else []:
        faults.append(
            "%s: unexpected %s folder %s; expected only %s." % (here, kind, shown(folder), expected)
        )
    for part in sorted(tree, key=lambda part: (len(part), part)):
        inner = os.path.join(path, part)
        inner_name = part if level == 0 else name + "/" + part
        if part in missing:
            faults.append(_absent(inner_name, tree[part], listing))
        # What `listing` does not call a folder is not opened, because it may be a link.
        elif part in listing.folders and kind == "model":
            found, wrong = _check_model(inner, inner_name, tree[part])
            faults.extend(wrong)
            if found is not None:
                values[inner_name] = found
        elif part in listing.folders:
            faults.extend(_check_folder(inner, inner_name, tree[part], level + 1, values))
    return faults


def in_ranges(faults: Sequence[str]) -> Faults:
    """Faults, with those of consecutive missing models combined, as in model_100 to model_149.

    >>> end = "/prediction.csv is missing; expected one line."
    >>> in_ranges(["a/b/dev/model_%d%s" % (i, end) for i in (3, 4, 5, 9)])[0][:37]
    'a/b/dev/model_3 to model_5 (3 models)'
    """
    merged: Faults = []
    row: List[Match[str]] = []
    for fault in [*faults, ""]:
        match = _MISSING.fullmatch(fault)
        if match and row and match.group(1, 3) == row[-1].group(1, 3):
            if int(match.group(2)) == int(row[-1].group(2)) + 1:
                row.append(match)
                continue
        if len(row) > 1:
            folder, first, rest = row[0].groups()
            ends = (folder, first, row[-1].group(2), len(row), rest)
            merged.append("%smodel_%s to model_%s (%d models)%s" % ends)
        elif row:
            merged.append(row[0].group())
        row = [match] if match else []
        if not match and fault:
            merged.append(fault)
    return merged


def check_predictions(
    root: str, expected: Mapping[str, int]
) -> Tuple[Dict[str, np.ndarray], Faults]:
    """Read all predictions below `root`, and find all faults of the submission.

    Args:
        root: the folder with the content of the submission's zip.
        expected: model folder, such as "cifar10/cifar10_hi/dev/model_100" -> the number of values
            that its prediction.csv must hold.  Missing folders and files are faults, and so are
            other folders at the levels of challenge, scenario and model; other phases and other
            files are ignored.

    Returns:
        `(values, faults)`: a dict from model folder to a float array, for the models without a
        fault, and one line for each fault.  The submission is valid if and only if there are no
        faults, and then `values` has the keys of `expected`.
    """
    values: Dict[str, np.ndarray] = {}
    faults = _check_folder(root, "", _tree(expected), 0, values)
    return values, in_ranges(faults)
