"""Recognises a function that was changed between two runs, with the numbers that it depends on.

A resumed run must not mix models of two trainings. This covers a function's instructions, defaults,
closure and the plain values and functions of its own module that it names, which is where learning
rates and numbers of epochs stand. It does not follow other modules, nor what is in a list.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def code_digest(function: Any) -> str:
    """SHA-256, in hex, of what a function or class of the user does, as far as it can be seen."""
    return hashlib.sha256("\n".join(_facts(function, None, set())).encode()).hexdigest()


def _facts(value: Any, module: str | None, seen: set[int]) -> Iterator[str]:
    """Lines that change with `value`; of another module's code, its name only."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, list):
        yield "list"  # of what? A function may keep its losses in it
    elif isinstance(value, tuple):
        yield f"tuple of {len(value)}"
        for item in value:
            yield from _facts(item, module, seen)
    elif isinstance(value, (set, frozenset)):
        yield f"set {sorted(map(repr, value))}"
    elif isinstance(value, dict):
        for key in value:
            yield f"key {key!r}"
            yield from _facts(value[key], module, seen)
    elif isinstance(value, types.CodeType):
        yield f"code {value.co_code.hex()} {value.co_names}"
        for constant in value.co_consts:
            yield from _facts(constant, module, seen)
    else:
        yield f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}"
        if id(value) not in seen:
            seen.add(id(value))
            yield from _parts(value, module, seen)


def _parts(value: Any, module: str | None, seen: set[int]) -> Iterator[str]:
    home = getattr(value, "__module__", None)
    if isinstance(value, functools.partial):
        yield from _facts((value.func, value.args, value.keywords), module, seen)
    elif isinstance(value, types.MethodType):
        yield from _facts((value.__func__, value.__self__), module, seen)
    elif isinstance(value, types.FunctionType):
        if module in (None, home) and not _installed(value.__code__):
            yield from _of_function(value, home, seen)
    elif isinstance(value, type):
        if module in (None, home):
            for name, part in vars(value).items():
                method = isinstance(part, types.FunctionType)
                if method or (isinstance(part, _PLAIN) and not name.startswith("__")):
                    yield f"attribute {name}"
                    yield from _facts(part, home, seen)
    elif callable(value) and hasattr(value, "__dict__"):  # an object with settings
        yield from _facts((type(value), vars(value)), module, seen)


def _of_function(function: types.FunctionType, home: str | None, seen: set[int]) -> Iterator[str]:
    code = function.__code__
    yield from _facts((code, function.__defaults__, function.__kwdefaults__), home, seen)
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a variable without a value yet
            yield from _facts(cell.cell_contents, home, seen)
    for name in _names(code):
        if name in function.__globals__:
            yield f"name {name}"
            yield from _facts(function.__globals__[name], home, seen)


def _names(code: types.CodeType) -> list[str]:
    """The names in a function, and in those that it defines."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return sorted({*code.co_names, *(name for part in inner for name in _names(part))})


def _installed(code: types.CodeType) -> bool:
    """Whether a function belongs to an installed library."""
    return "site-packages" in code.co_filename or "dist-packages" in code.co_filename
