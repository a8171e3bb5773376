"""An attack from a user's file, and the checks of the scores that an attack returns.

A participant's attack is a function in a file, `Problem -> scores`:

    # my_attack.py
    from mico_competition.attacks import calibrate

    def attack(problem):
        return problem.gather("logit").score(calibrate, centre="out")

`mico evaluate FOLDER --attack my_attack.py:attack` evaluates it together with the built-in attacks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mico_competition.attacks.cost import looked_at
from mico_competition.attacks.masked_source import sealed
from mico_competition.attacks.problem import Attack, Problem
from mico_competition.attacks.registry import ROWS, get_attack
from mico_competition.competition.code import described, one_line
from mico_competition.evaluation.modules import imported_anew
from mico_competition.evaluation.undisturbed import undisturbed
from mico_competition.support.call_errors import check_call
from mico_competition.support.progress import stage
from mico_competition.support.spelling import nearest


def find_attack(name: str, *, isolate: bool = False) -> Attack:
    """A built-in attack, or the attack in `path/to/file.py:function`.

    Args:
        name: of the attack.
        isolate: whether an attack from a file runs in a separate process, see `isolated.py`.

    Raises:
        ValueError: if there is no such name, file or function, if the file does not run, or if the
            function cannot be called with one argument, the problem.
    """
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        if name.endswith(".py"):
            raise ValueError(f"Expected {name}:FUNCTION: name the function in the file.")
        return get_attack(name)
    if isolate:
        from mico_competition.evaluation.isolated import isolated_attack

        return isolated_attack(Path(path), function)
    return load_attack(Path(path), function)


def load_attack(path: Path, function: str) -> Attack:
    """The attack `function` in the file `path`, under the name `<path as given>:<function>`.

    `function` may also be an `Attack`, which keeps everything but its name.  For a plain function,
    set `function.leaves_one_out = False` if it cannot leave a target out of the shadows (it is then
    evaluated by cross-fitting), `function.white_box = True` if it uses weights, and
    `function.all_records = True` if it needs signals of all records.

    The file is executed afresh for each problem, and modules beside it are imported afresh, so
    that they keep nothing from one problem to the next; see `modules.py`.

    Raises:
        ValueError: as `find_attack`.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path} to take the attack {function} from.")
    name, source = f"{path}:{function}", str(path)
    path = path.absolute()  # the attack may change the working directory
    with undisturbed(), imported_anew(path.parent):
        found = _found(path, function)

    def run(problem: Problem) -> Any:
        with imported_anew(path.parent):
            fresh = _found(path, function)
            return (fresh.run if isinstance(fresh, Attack) else fresh)(problem)

    if isinstance(found, Attack):
        return replace(found, name=name, run=_guarded(name, path.parent, run))
    title = (found.__doc__ or "an attack of your own").strip().splitlines()[0]
    return Attack(
        name,
        title,
        source,
        _guarded(name, path.parent, run),
        leaves_one_out=getattr(found, "leaves_one_out", True),
        white_box=bool(getattr(found, "white_box", False)),
        all_records=getattr(found, "all_records", False),
    )


def _found(path: Path, function: str) -> Any:
    """Executes the file and returns its `function`."""
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[
        :16
    ]  # the whole path, not only the stem
    spec = importlib.util.spec_from_file_location(f"mico_attack_{path.stem}_{place}", path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of the file look for it there
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(f"{path} does not run: {described(error, path.parent)}.") from error
    found = getattr(module, function, None)
    if not callable(found) and not isinstance(found, Attack):
        names = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
        near = nearest(function, names)
        raise ValueError(
            f"There is no function {function} in {path}: "
            + (f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}.")
        )
    check_takes_problem(found, path.name, function)
    return found


def check_takes_problem(found: Any, file: str, function: str) -> None:
    """ValueError unless an attack, the `function` of a file, can be called with a problem."""
    if not isinstance(found, Attack):
        check_call(function, found, "problem", f"Change it in {file}.")


def is_custom(attack: Attack) -> bool:
    """Whether the attack came from a file."""
    return ".py:" in attack.name


def is_ours(attack: Attack) -> bool:
    """Whether it is a built-in attack of the registry, unchanged, with any of its flags."""
    name, *flags = attack.name.split(" --")
    known = name in ROWS and set(flags) <= set(ROWS[name].flags)
    return known and attack == get_attack(name, **dict.fromkeys(flags, True))


def answer(attack: Attack, problem: Problem) -> np.ndarray:
    """float64[targets, points per target]: the attack's scores of a problem, checked.

    The attack gets read-only copies (`attacks.masked_source`), and what it changes in the process
    is restored (`undisturbed.py`). Label-free results of a built-in attack are kept for the next
    built-in attack; other attacks leave nothing behind.

    Raises:
        ValueError: if the scores have another shape or are not finite; what the attack raises.
    """
    shape = problem.columns.shape
    shadows = problem.shadows if attack.least_shadows else problem.shadows[:0]
    looked_at(np.union1d(shadows, problem.targets), problem.known_membership.shape[1])
    with stage(f"Attack {attack.name}"), undisturbed():
        given = attack.run(sealed(problem, shared=is_ours(attack)))
        try:
            scores = plain(given)
        except Exception as error:
            raise ValueError(
                f"Expected attack {attack.name} to give real numbers of shape {shape}, one for "
                f"each target and point, got {type(given).__name__}: {one_line(error)}."
            ) from error
    if scores.shape != shape or scores.dtype.kind not in "fiub":
        raise ValueError(
            f"Expected attack {attack.name} to give real numbers of shape {shape}, one for each "
            f"target and point, got {scores.dtype} of shape {scores.shape}."
        )
    bad = ~np.isfinite(scores)
    if bad.any():
        raise ValueError(
            f"Expected attack {attack.name} to give finite scores, got {int(bad.sum())} NaN or "
            f"infinite of {bad.size}: handle the case of few shadows, or of equal ones."
        )
    return scores.astype(np.float64)


def plain(given: Any) -> np.ndarray:
    """Scores as a numpy array; they may be a tensor on any device, with a gradient or without."""
    if isinstance(given, torch.Tensor):
        real = given.detach().resolve_conj().resolve_neg().cpu()
        return (real if real.is_complex() else real.to(torch.float64)).numpy()
    if isinstance(given, (list, tuple)):
        return np.asarray([plain(part) for part in given])
    if isinstance(given, np.ma.MaskedArray):
        values: np.ndarray = np.ma.filled(given.astype(np.float64), np.nan)
        return values
    return np.asarray(given)


def _guarded(name: str, folder: Path, run: Callable[[Problem], Any]) -> Callable[[Problem], Any]:
    """`run`, with any exception turned into a ValueError for the attack's author."""

    def guarded(problem: Problem) -> Any:
        try:
            return run(problem)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit, which would end `mico` without a message
            raise ValueError(f"Attack {name} failed: {described(error, folder)}.") from error

    return guarded
