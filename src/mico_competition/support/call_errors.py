"""Calls that lack an argument, or have one too many: errors that say what each argument is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mico_competition.support.spelling import nearest

P = ParamSpec("P")
R = TypeVar("R")


class CallError(TypeError, ValueError):
    """A call lacks an argument, or has one that there is not."""


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function whose docstring says what an argument is that a call lacks.

    The docstring of an `__init__` is that of its class.

    >>> @explained
    ... def train(*, epochs):
    ...     '''Train.
    ...
    ...     Args:
    ...         epochs: passes over the data; more cost more.
    ...     '''
    >>> train()
    Traceback (most recent call last):
    mico_competition.support.call_errors.CallError: train needs epochs (passes over the data).
    """

    @wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except TypeError:
            fault = _fault(function, args, named)
            if fault:
                raise CallError(fault) from None
            raise

    return call


def check_call(name: str, function: Any, arguments: str, *more: str) -> None:
    """ValueError unless a function of the user can be called with these positional arguments.

    Args:
        name: the argument that the function was passed as.
        function: whatever was passed.
        arguments: their names, such as "model, subset".
        more: what else to say, such as the fix.
    """
    expected = f"Expected {name} as a function that is called as {name}({arguments})"
    if not callable(function):
        raise ValueError(" ".join([f"{expected}, got {type(function).__name__}.", *more]))
    count = len(arguments.split(", ")) if arguments else 0
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        what = getattr(function, "__name__", type(function).__name__)
        takes = f"{what}{inspect.signature(function)}"
        raise ValueError(" ".join([f"{expected}, got {takes}.", *more])) from None
    except ValueError:  # a built-in function, whose arguments nobody knows
        return


def _fault(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> str:
    """What is wrong with the arguments of a call; empty if they fit."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **named)
    except TypeError:
        pass
    else:
        return ""
    title = function.__qualname__.removesuffix(".__init__")
    parameters = [p for name, p in signature.parameters.items() if name != "self"]
    unknown = [name for name in named if name not in signature.parameters]
    if unknown:
        near = nearest(unknown[0], [p.name for p in parameters])
        fix = (
            f"did you mean {near[0]}?" if near else f"it has {_listed(p.name for p in parameters)}."
        )
        return f"{title} has no argument {unknown[0]}: {fix}"
    by_place = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    first = next(iter(signature.parameters), "") == "self"
    given = {*by_place[: len(args) - first], *named}
    lacking = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    if len(args) - first > len(by_place):
        which = f"{_listed(by_place)} alone" if by_place else "no argument"
        example = next(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        return f"{title} takes {which} by position: name the others, such as {example}=..."
    doc = args[0].__class__.__doc__ if title != function.__qualname__ else function.__doc__
    said = descriptions(doc)
    return f"{title} needs {_listed(_with(name, said.get(name)) for name in lacking)}."


def descriptions(doc: str | None) -> dict[str, str]:
    """What a docstring says of each argument, up to its first semicolon or full stop.

    >>> descriptions(check_call.__doc__)["arguments"]
    'their names, such as "model, subset"'
    """
    _, _, rest = inspect.cleandoc(doc or "").partition("\nArgs:\n")
    section = re.split(r"\n\S", rest)[0]
    found = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.+(?:\n {8}.*)*)", section, re.MULTILINE):
        said = re.split(r";|\.(?:\s|$)", " ".join(text.split()))[0]
        found.update(dict.fromkeys(names.split(", "), said))
    return found


def _with(name: str, said: str | None) -> str:
    return f"{name} ({said})" if said else name


def _listed(names: Iterable[str]) -> str:
    """Names as words: "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
