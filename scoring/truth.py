"""Reads the truth of a competition, which participants must never see.

The faults reported here are the organisers' to mend.  They are shown to participants all the
same, so they name files and say what is expected, and never what was found in a file.
"""

import os
import re
from typing import Dict, List, Tuple

import numpy as np

from .files import few, list_folder, read_text, shown
from .reading import LEVELS, Faults, read_values

SOLUTION_FILE = "solution.csv"
NUM_SCENARIOS = 3
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


def _model_id(folder: str) -> int:
    return int(folder.rsplit("_", 1)[1])


def _find_models(root: str) -> Tuple[List[str], Faults]:
    """Model folders of the one challenge, three scenarios and one phase below `root`, in order."""
    faults = []
    parents = [""]
    for level, wanted in zip(LEVELS, (1, NUM_SCENARIOS, 1, None)):
        found: List[str] = []
        for parent in parents:
            folders = list_folder(os.path.join(root, parent))[0] or []
            if level == "model":
                folders = sorted(filter(MODEL.fullmatch, folders), key=_model_id)
            if len(folders) != wanted and (wanted is not None or not folders):
                number = "at least one" if wanted is None else wanted
                faults.append(
                    "%s: expected %s %s folder(s), found %d."
                    % (shown(parent) if parent else "ref", number, level, len(folders))
                )
            found.extend(parent + "/" + folder if parent else folder for folder in folders)
        parents = found
    phases = {folder.split("/")[2] for folder in parents}
    if len(phases) > 1:
        faults.append("ref: expected one phase, found %s." % few(map(shown, phases)))
    return parents, faults


def read_solutions(root: str) -> Tuple[Dict[str, np.ndarray], Faults]:
    """The truth: every solution.csv below `root`, and all faults of the organisers' data.

    Args:
        root: a folder that holds `<challenge>/<scenario>/<phase>/model_<i>/solution.csv`, of
            one challenge, three scenarios and one phase.

    Returns:
        `(solutions, faults)`: a dict from model folder to an integer array of zeros and ones,
        ordered by scenario name, then by model id; and one line a fault, which holds nothing
        of the truth.
    """
    folders, faults = _find_models(root)
    if faults:
        return {}, faults
    solutions: Dict[str, np.ndarray] = {}
    kinds: Dict[str, set] = {}
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
