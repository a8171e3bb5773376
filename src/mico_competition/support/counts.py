"""Numbers with their nouns, ids as ranges, and arguments that are whole numbers."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral


def count_of(number: int, noun: str, plural: str = "") -> str:
    """`number` and the noun, in the plural where it is not 1.

    >>> count_of(1, "entry", "entries"), count_of(1000, "fault")
    ('1 entry', '1,000 faults')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def check_whole(name: str, value: object, least: int = 0) -> None:
    """ValueError unless an argument is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        shown = repr(value) if len(repr(value)) < 50 else type(value).__name__
        raise ValueError(f"Expected {name}={shown} to be a whole number of at least {least}.")


def ids_text(ids: Iterable[int]) -> str:
    """Ids as ranges.

    >>> ids_text([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    ranges: list[list[int]] = []
    for number in sorted(ids):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
