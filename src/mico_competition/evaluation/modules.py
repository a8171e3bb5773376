"""Imports the modules of an attack afresh for each problem, and restores all others after it.

A module beside the attack's file may hold state, as the file itself may: a classifier that it keeps
would carry the labels that it was trained on from one problem to the next.  So these modules are
imported afresh for each problem.  Modules of Python and of installed packages stay, because many
of them cannot be imported twice.  Names that an attack adds to such a module are removed, unless
the attack was the first to import it, and functions and classes that it replaces are restored.
Changes inside the objects of such a module, such as an entry of a dict, stay; the leakage check
finds those by a comparison with a fresh process (`leakage_check.py`).
"""

from __future__ import annotations

import builtins
import os
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from operator import is_
from pathlib import Path
from typing import Any

from mico_competition import scoring

_OURS = Path(__file__).resolve().parents[1]
_RUN = ("__main__", "__mp_main__")  # the main program
_COMPILED = ("__builtins_dict__", "__compiled_fn", "__resume_at")  # modules of torch.compile
_GENERATED = ("_cython_", "cython_runtime")  # modules that compiled packages create and share

_COUNT, _FILES = 1000, 16 * 2**20  # limits of the Python files beside an attack
_NOT_READ = ("__pycache__", "site-packages", "node_modules")

State = dict[str, types.ModuleType]


@cache
def _libraries() -> tuple[str, ...]:
    """Folders of Python's modules, of installed packages and of this one, ending in a slash."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [sysconfig.get_path(name) for name in names]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    found += [path for path in sys.path if os.path.basename(path).endswith("-packages")]
    found += [str(_OURS), str(Path(scoring.__file__).resolve().parent)]
    both = [*map(os.path.abspath, found), *map(os.path.realpath, found)]
    return tuple({os.path.join(folder, "") for folder in both})


def _places(module: Any) -> list[str]:
    """The file of a module, or the folders of a package without one."""
    file = _said_by(module, "__file__")
    if isinstance(file, str):
        return [file]
    try:
        return [os.fspath(place) for place in _said_by(module, "__path__") or ()]
    except TypeError:
        return []


def _in_a_library(place: str) -> bool:
    """Whether a file or folder lies in one of `_libraries`."""
    # A relative path depends on the current directory, which an attack may change.
    return _lies_in_a_library(place if os.path.isabs(place) else os.path.abspath(place))


@cache
def _lies_in_a_library(place: str) -> bool:
    return os.path.join(os.path.normpath(place), "").startswith(_libraries())


def _said_by(module: Any, name: str) -> Any:
    """A name in a module, or None; getattr could trigger a lazy import."""
    return getattr(module, "__dict__", {}).get(name)


def _of_a_library(name: str, modules: State) -> bool:
    """Whether a module belongs to Python or to an installed package."""
    module, top = modules[name], name.partition(".")[0]
    places = _places(module)
    if places:
        return any(map(_in_a_library, places))
    if name.startswith(_GENERATED) or top in sys.builtin_module_names or name in _RUN:
        return True
    spec = _said_by(module, "__spec__")
    if spec is not None and spec.origin in ("built-in", "frozen"):
        return True
    return top != name and top in modules and _of_a_library(top, modules)


def _brought_by_a_library(value: Any, before: State, modules: State) -> bool:
    """Whether a function, a class or an object's class comes from a newly imported library."""
    named = value if hasattr(value, "__qualname__") else type(value)
    name = getattr(named, "__module__", None)
    return name not in before and name in modules and _of_a_library(name, modules)


def _holds_no_object(value: Any) -> bool:
    """Whether a value is a module, or a built-in function that is not bound to an object."""
    if not isinstance(value, types.BuiltinFunctionType):
        return isinstance(value, types.ModuleType)
    bound = value.__self__
    return isinstance(bound, types.ModuleType | None) or type(bound).__name__ == "PyCapsule"


def _compiled(name: str, value: Any) -> bool:
    """Whether torch.compile added a value to a module for its generated code."""
    return name.startswith(_COMPILED) and (callable(value) or value is vars(builtins))


def _is_defined_in(value: Any, module: types.ModuleType) -> bool:
    """Whether a function or class is defined in the package of `module`."""
    home = getattr(value, "__module__", None) if hasattr(value, "__qualname__") else None
    return isinstance(home, str) and home.partition(".")[0] == module.__name__.partition(".")[0]


def modules() -> tuple[State, list[Any], list[Any]]:
    """The imported modules, and the state of the import system."""
    return dict(sys.modules), list(sys.meta_path), list(sys.path_hooks)


def put_back(before: tuple[State, list[Any], list[Any]]) -> None:
    """Remove modules imported since, except those of libraries, and restore earlier ones.

    The same holds for importers, which a library may add at its first import, as six does.
    """
    known, finders, hooks = before
    now = dict(sys.modules)
    pairs: tuple[tuple[list[Any], list[Any]], ...] = (
        (sys.meta_path, finders),
        (sys.path_hooks, hooks),
    )
    for importers, old in pairs:
        added = [one for one in importers if all(one is not other for other in old)]
        importers[:] = [*old, *(one for one in added if _brought_by_a_library(one, known, now))]
    for name in now:
        if name not in known and not _of_a_library(name, now):
            sys.modules.pop(name, None)
    for name, module in known.items():
        if now.get(name) is not module:
            sys.modules[name] = module


def names() -> list[tuple[types.ModuleType, dict[str, Any]]]:
    """The names in the modules of libraries, with their values."""
    now = dict(sys.modules)
    return [
        (module, dict(vars(module)))
        for name, module in now.items()
        if name not in _RUN and isinstance(module, types.ModuleType) and _of_a_library(name, now)
    ]


def put_names_back(before: list[tuple[types.ModuleType, dict[str, Any]]]) -> None:
    """Remove names that an attack added since, and restore replaced functions and classes.

    Other names of packages hold their settings, such as whether CUDA has been initialised: these
    stay, as does what a package adds to itself, such as functions after CUDA was initialised, and
    submodules.
    """
    for module, old in before:
        now = vars(module)
        if len(now) == len(old) and all(map(is_, now.values(), old.values())):
            continue
        for name, value in list(now.items()):
            if name not in old and not (
                _holds_no_object(value) or _compiled(name, value) or _is_defined_in(value, module)
            ):
                del now[name]
        for name, value in old.items():
            if callable(value) and now.get(name) is not value:
                now[name] = value


@contextmanager
def imported_anew(folder: Path) -> Iterator[None]:
    """In the block, fresh modules in `folder` can be imported, as if Python ran a file there.

    After it, all modules and `sys.path` are restored.
    """
    before, path, root = modules(), list(sys.path), os.path.abspath(folder)
    beneath = (os.path.join(root, ""), os.path.join(os.path.realpath(root), ""))
    try:
        for name, module in before[0].items():
            top = os.path.join(root, name.partition(".")[0])
            mine = any(place.startswith(beneath) for place in _places(module))
            if (mine or os.path.isfile(top + ".py") or os.path.isdir(top)) and not (
                name in _RUN or _of_a_library(name, before[0])
            ):
                del sys.modules[name]
        for place in [*sys.path_importer_cache]:
            if os.path.join(place, "").startswith(beneath):
                del sys.path_importer_cache[place]
        sys.path.insert(0, root)
        yield
    finally:
        sys.path[:] = path
        put_back(before)


def python_files(path: Path) -> dict[str, bytes]:
    """The Python files in the folder of an attack and below, which are all that it may import.

    Raises:
        ValueError: if there are very many.
    """
    found, size, root = {path.name: path.read_bytes()}, 0, str(path.parent)
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(
            name
            for name in inner
            if name[0] != "."
            and name not in _NOT_READ
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            file = os.path.join(folder, name)
            if name.endswith(".py") and os.path.isfile(file):
                size += os.path.getsize(file)
                if size > _FILES or len(found) > _COUNT:
                    raise ValueError(
                        f"The folder of {path} has more than {_COUNT} Python files or 16 MiB of "
                        "them: put the attack and its helpers into a folder of their own."
                    )
                found[os.path.relpath(file, root)] = Path(file).read_bytes()
    return found
