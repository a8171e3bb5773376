"""An attack of one's own, and the check of what any attack answers.

A participant's attack is a function in a file, `Problem -> scores`:

    # my_attack.py
    from mico_competition.attacks import calibrate

    def attack(problem):
        return problem.gather("logit").score(calibrate, centre="out")

`mico evaluate FOLDER --attack my_attack.py:attack` measures it beside the named ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mico_competition.evaluation.named import get_attack
from mico_competition.evaluation.problem import Attack, Problem
from mico_competition.progress import stage


def find_attack(name: str) -> Attack:
    """A named attack, or that of `path/to/file.py:function`.

    Raises:
        ValueError: if there is no such name, file or function, or the file does not run.
    """
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        if name.endswith(".py"):
            raise ValueError(f"Expected {name}:FUNCTION: name the function in the file.")
        return get_attack(name)
    return load_attack(Path(path), function)


def load_attack(path: Path, function: str) -> Attack:
    """The attack that `function` in the file `path` is, named `<path as given>:<function>`.

    It may itself be an `Attack`, which keeps all but its name.  Of a function, set
    `function.leaves_one_out = False` if it cannot leave a target out of its own shadows (it is
    then evaluated in folds), and `function.all_records = True` if it wants signals of all records.

    Raises:
        ValueError: as `find_attack`.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path} to take the attack {function} from.")
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]  # not only the stem
    spec = importlib.util.spec_from_file_location(f"mico_attack_{path.stem}_{place}", path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look for it there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} does not run: {_described(error)}.") from error
    run, name = getattr(module, function, None), f"{path}:{function}"
    if isinstance(run, Attack):
        return replace(run, name=name, run=_guarded(name, run.run))
    if not callable(run):
        names = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
        raise ValueError(
            f"There is no function {function} in {path}: it has {', '.join(names) or 'none'}."
        )
    title = (run.__doc__ or "an attack of your own").strip().splitlines()[0]
    alone = getattr(run, "leaves_one_out", True)
    return Attack(
        name,
        title,
        str(path),
        _guarded(name, run),
        leaves_one_out=alone,
        all_records=getattr(run, "all_records", False),
    )


def is_custom(attack: Attack) -> bool:
    """Whether the attack came from a file."""
    return ".py:" in attack.name


def answer(attack: Attack, problem: Problem) -> np.ndarray:
    """float64[targets, points per target]: what the attack says, checked.

    Raises:
        ValueError: if it is not of that shape, or not finite; or what the attack raises.
    """
    with stage(f"Attack {attack.name}"):
        scores = np.asarray(attack.run(problem))
    if scores.shape != problem.columns.shape or scores.dtype.kind not in "fiub":
        raise ValueError(
            f"Expected attack {attack.name} to give real numbers of shape "
            f"{problem.columns.shape}, one for each target and point, got {scores.dtype} of shape "
            f"{scores.shape}."
        )
    bad = ~np.isfinite(scores)
    if bad.any():
        raise ValueError(
            f"Expected attack {attack.name} to give finite scores, got {int(bad.sum())} NaN or "
            f"infinite of {bad.size}: say what it does where shadows are few or alike."
        )
    return scores.astype(np.float64)


def _guarded(name: str, run: Callable[[Problem], Any]) -> Callable[[Problem], Any]:
    """`run`, whose mistakes come as one sentence: they are its author's, not ours."""

    def guarded(problem: Problem) -> Any:
        try:
            return run(problem)
        except Exception as error:
            raise ValueError(f"Attack {name} failed: {_described(error)}.") from error

    return guarded


def _described(error: Exception) -> str:
    """What went wrong and where, in one line."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError in line {error.lineno}: {error.msg}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__} in line {where.lineno} of {Path(where.filename).name}: {words}"
