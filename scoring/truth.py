"""Reads the solutions of a competition, which participants must never see.

Organisers have to fix the faults that are reported here, but participants see them too.  So a fault
names a file and says what is expected, and never quotes the file.
"""

import os
import re
from typing import Collection, Dict, List, Set, Tuple

import numpy as np

from .files import few, list_folder, read_text, shown
from .reading import LEVELS, Faults, read_values
from .settings import MAX_SCENARIOS

SOLUTION_FILE = "solution.csv"
MODEL = re.compile(r"model_(0|[1-9][0-9]{0,8})")
NOTICE_FILE = "not_open_yet.txt"
"""Stands in place of the truth of a phase that is not open yet, and says so to participants."""


def read_notice(root: str) -> str:
    """The notice in `root` that a phase is not open yet, in one line; empty if there is none."""
    text = read_text(os.path.join(root, NOTICE_FILE))[0] or ""
    return " ".join(text.split())[:500]


def scenario_of(folder: str) -> str:
    """The scenario in a model folder such as "cifar10/cifar10_hi/dev/model_100"."""
    return folder.split("/")[1]


def phase_of(folder: str) -> str:
    """The phase in a model folder such as "cifar10/cifar10_hi/dev/model_100"."""
    return folder.split("/")[2]


def _model_id(folder: str) -> int:
    return int(folder.rsplit("_", 1)[1])


def _find_models(root: str) -> Tuple[List[str], Faults]:
    """The model folders of one challenge and one phase below `root`, in order."""
    faults = []
    parents = [""]
    for level, most in zip(LEVELS, (1, MAX_SCENARIOS, 1, None)):
        found: List[str] = []
        for parent in parents:
            folders = list_folder(os.path.join(root, parent))[0] or []
            if level == "model":
                folders = sorted(filter(MODEL.fullmatch, folders), key=_model_id)
            if not folders or (most is not None and len(folders) > most):
                number = {1: "1", None: "at least one"}.get(most, "1 to %s" % most)
                faults.append(
                    "%s: expected %s %s folder(s), found %d."
                    % (shown(parent) if parent else "ref", number, level, len(folders))
                )
            found.extend(parent + "/" + folder if parent else folder for folder in folders)
        parents = found
    phases = {phase_of(folder) for folder in parents}
    if len(phases) > 1:
        faults.append("ref: expected one phase, found %s." % few(map(shown, phases)))
    return parents, faults


def _wrong_scenarios(folders: List[str], expected: Collection[str]) -> Faults:
    """The faults of missing and unexpected scenarios; none if `expected` is empty."""
    found = {scenario_of(folder) for folder in folders}
    faults = [
        "ref: scenario %s is missing." % shown(name) for name in expected if name not in found
    ]
    for name in sorted(found - set(expected)) if expected else ():
        faults.append("ref: unexpected scenario %s; expected %s." % (shown(name), few(expected)))
    return faults


def read_solutions(
    root: str, expected: Collection[str] = ()
) -> Tuple[Dict[str, np.ndarray], Faults]:
    """Read every solution.csv below `root`, and find all faults of the organisers' data.

    Args:
        root: a folder with `<challenge>/<scenario>/<phase>/model_<i>/solution.csv`, of one
            challenge, 1 to 20 scenarios and one phase.
        expected: the names of the scenarios that must be there; any if empty.

    Returns:
        `(solutions, faults)`: a dict from model folder to an integer array of zeros and ones,
        ordered by scenario name, then by model id; and one line for each fault, which quotes no
        label.
    """
    folders, faults = _find_models(root)
    faults = faults or _wrong_scenarios(folders, expected)
    if faults:
        return {}, faults
    solutions: Dict[str, np.ndarray] = {}
    kinds: Dict[str, Set[int]] = {}
    for folder in folders:
        values = read_values(os.path.join(root, folder, SOLUTION_FILE))[0]
        if values is None or not ((values == 0) | (values == 1)).all():
            faults.append(
                "%s/%s cannot be used; expected one line of comma-separated zeros and ones."
                % (folder, SOLUTION_FILE)
            )
            continue
        solutions[folder] = values.astype(np.int64)
        kinds.setdefault(scenario_of(folder), set()).update(solutions[folder].tolist())
    for scenario, found in kinds.items():
        if not faults and len(found) < 2:
            faults.append("%s cannot be scored; expected members and non-members." % scenario)
    return solutions, faults
