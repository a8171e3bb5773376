"""The organiser's code: what dotted paths in a competition's file name, imported from beside it.

A user who names the file permits its code to run, so this module never looks beside a file that the
user did not name. Modules beside the file are found after all installed ones, so that a stray file
replaces nothing.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from mico_competition.scoring.printable import printable
from mico_competition.support.own_code import own_code_in, own_frame
from mico_competition.support.spelling import nearest


class _Beside(MetaPathFinder):
    """Finds the modules in one folder, and records them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: set[str] = set()

    @property
    def folder(self) -> Path:
        return self.file.parent

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:  # a submodule of a package that is imported already
            return None
        spec = self.spec_of(fullname)
        if spec is not None:
            self.found.add(fullname)
        return spec

    def spec_of(self, module: str) -> ModuleSpec | None:
        """The spec of a module in the folder; None for a folder without __init__.py."""
        spec = PathFinder.find_spec(module, [str(self.folder)])
        return spec if spec is not None and spec.origin is not None else None


_beside: _Beside | None = None


def look_beside(file: Path | None) -> None:
    """Let imports find the modules beside `file`, instead of those beside an earlier file."""
    global _beside
    if _beside is not None:
        if file == _beside.file:
            return
        if _beside in sys.meta_path:
            sys.meta_path.remove(_beside)
        for name in list(sys.modules):
            if name.partition(".")[0] in _beside.found:
                del sys.modules[name]
        importlib.invalidate_caches()
    _beside = None if file is None else _Beside(file)
    own_code_in(None if file is None else file.parent)
    if _beside is not None:
        sys.meta_path.append(_beside)


def resolve(dotted: str) -> Any:
    """The function or class that "MODULE:NAME" in the competition's file names.

    Raises:
        ValueError: if there is no such module or name, or the module does not run.
    """
    module_name, _, name = dotted.partition(":")
    found: Any = _module(module_name, dotted)
    for part in name.split("."):
        if not hasattr(found, part):
            names = [n for n, value in vars(found).items() if callable(value) and n[0] != "_"]
            near = nearest(part, names)
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}."
            raise ValueError(f"There is no {part} in {module_name}, which {_who(dotted)}: {fix}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"Expected {dotted} to be a function or a class, got {found!r}.")
    return found


def _module(name: str, dotted: str) -> ModuleType:
    top = name.partition(".")[0]
    _check_place(top)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # a module that the module itself needs
            raise
        if _beside and error.name == top and (_beside.folder / top).is_dir():
            raise ValueError(
                f"{printable(_beside.folder / top)}, which {_who(dotted)}, is a folder without "
                "__init__.py: put an empty file of that name into it to make it a package."
            ) from None
        raise ValueError(
            f"There is no module {error.name}, which {_who(dotted)}: get {top}.py from the "
            f"organisers, read it, and put it {_where()}."
        ) from None
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{name}, which {_who(dotted)}, does not run: {described(error)}.") from (
            error
        )


def _check_place(top: str) -> None:
    """Raise ValueError if an import would take another module than that beside the file.

    Nothing of either runs: `find_spec` imports only the parents of a name, and `top` has none.
    """
    mine = _beside.spec_of(top) if _beside else None
    if _beside is None or mine is None:
        return
    if top in sys.modules:
        place = getattr(sys.modules[top], "__file__", None)
    else:
        spec = importlib.util.find_spec(top)
        place = spec.origin if spec else None
    if os.path.realpath(place or "") != os.path.realpath(mine.origin or ""):
        raise ValueError(
            f"{top} beside {printable(_beside.file)} is not what Python imports by that name, "
            f"which is {place or 'a module without a file'}: give your module another name."
        )


def _where() -> str:
    if _beside is None:
        return "beside the competition's file"
    if _beside.folder.name.endswith(".release"):  # where checksums cover every file
        return f"into a folder of yours, with a copy of {printable(_beside.file)}"
    return f"into {printable(_beside.folder)}"


def _who(dotted: str) -> str:
    return f"{printable(_beside.file)} names as {dotted}" if _beside else f"{dotted} names"


def described(error: BaseException, folder: Path | None = None) -> str:
    """An error in a user's code and its place, in one line.

    The place is the last line in a file of `folder`, by default that of the competition's code, or
    else the last line of all.
    """
    if isinstance(error, SyntaxError):
        return f"SyntaxError in line {error.lineno}: {error.msg}"
    where = own_frame(error, folder) or traceback.extract_tb(error.__traceback__)[-1]
    place = f"in line {where.lineno} of {Path(where.filename).name}"
    return f"{type(error).__name__} {place}: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """The message of an error, printable and without the full stop."""
    return printable(" ".join(str(error).split()).rstrip("."))
