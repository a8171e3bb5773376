"""The faults that rules find, and the phrases that all rules share."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mico_competition.scoring.printable import printable

ERROR, WARNING = "error", "warning"

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 4, 3


@dataclass(frozen=True)
class Fault:
    """One fault of a bundle.

    The platform refuses an error, or the competition cannot work with it. It accepts a warning, but
    then does not do what the bundle says. `where` is a place in the bundle, `what` a sentence with
    the platform's own words if they are known, and `fix` a sentence that says what to do.
    """

    severity: str
    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        where, what, fix = (printable(t, 1000) for t in (self.where, self.what, self.fix))
        return f"{self.severity}: {where}: {what} {fix}"


def error(where: str, what: str, fix: str) -> Fault:
    """A fault that stops the competition."""
    return Fault(ERROR, where, what, fix)


def warning(where: str, what: str, fix: str) -> Fault:
    """A fault that the competition survives."""
    return Fault(WARNING, where, what, fix)


def says(words: str) -> str:
    """The platform's message for something that it refuses."""
    return f'The platform says "{words}"'


def log(words: str) -> str:
    """The platform's message if its unpacker fails with a bare Python error."""
    return says(f"Unpacking the bundle failed. Here is the error log: {words}")


def silent(consequence: str) -> str:
    """A sentence that the platform reports nothing, and the consequence."""
    return f"The platform accepts this in silence, and {consequence}."


def shown(value: Any) -> str:
    """A value of the YAML file, short."""
    return _SHORT.repr(value)


def mappings(where: str, value: Any) -> tuple[list[tuple[str, Mapping[str, Any]]], list[Fault]]:
    """The entries of a list in the YAML file, with their places; faults for other entries."""
    if not isinstance(value, list):
        kind = type(value).__name__
        fault = error(where, log(f"'{kind}' object is not iterable"), "Make it a list.")
        return [], [fault]
    found: list[tuple[str, Mapping[str, Any]]] = []
    faults: list[Fault] = []
    for i, entry in enumerate(value):
        if isinstance(entry, dict):
            found.append((f"{where}[{i}]", entry))
        else:
            what = f"{shown(entry)} is not a mapping, and unpacking the bundle fails."
            faults.append(error(f"{where}[{i}]", what, "Write its keys and values below one dash."))
    return found, faults


def listed(
    spec: Mapping[str, Any], key: str, absent: str, empty: str, fix: str
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[Fault]]:
    """`mappings` of the list `key`; a fault too if it is `absent` or `empty`, in those words."""
    if key not in spec:
        return [], [error(key, absent, fix)]
    entries, faults = mappings(key, spec[key])
    return entries, faults if entries or faults else [error(key, empty, fix)]


def plain(value: Any) -> str:
    """A value as it stands in a sentence of the platform's, short."""
    return value[:100] if isinstance(value, str) else shown(value)


def keys(text: str) -> frozenset[str]:
    """Names, from a text with space between them."""
    return frozenset(text.split())


def unknown_keys(where: str, entry: Mapping[str, Any], known: frozenset[str]) -> Iterator[Fault]:
    """A warning for every key that Codabench does not read."""
    for key in entry:
        if key not in known:
            yield warning(
                f"{where}.{plain(key)}" if where else plain(key),
                silent("ignores a key that it does not know"),
                f"Take it out, or spell one of: {', '.join(sorted(known))}.",
            )


def text_rule(
    where: str, entry: Mapping[str, Any], key: str, limit: int | None = None
) -> Iterator[Fault]:
    """A text that must be there, of at most `limit` characters."""
    value = entry.get(key)
    place = f"{where}.{key}" if where else key
    if value is None or value == "":
        state = "null" if value is None else "blank"
        reason = f"may not be {state}." if key in entry else "is required."
        yield error(place, says(f"{key}: This field {reason}"), "Give it a text.")
    elif isinstance(value, (dict, list, bool)):
        yield error(place, says(f"{key}: Not a valid string.") + ".", "Give it a text.")
    elif limit is not None and len(str(value)) > limit:
        what = says(f"{key}: Ensure this field has no more than {limit} characters.")
        yield error(place, f"{what}, and it has {len(str(value))}.", "Shorten it.")


def choice_rule(
    where: str, entry: Mapping[str, Any], key: str, choices: tuple[str, ...]
) -> Iterator[Fault]:
    """One of a few words, if it is there."""
    value = entry.get(key)
    if key in entry and value not in choices:
        what = says(f'{key}: "{plain(value)}" is not a valid choice.') + "."
        yield error(f"{where}.{key}" if where else key, what, f"Use one of {', '.join(choices)}.")


def whole(value: Any) -> int | None:
    """The whole number that a value of the YAML file is, or spells; None if it is no such."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
