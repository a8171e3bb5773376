"""Numbers with their nouns, and arguments that are whole numbers."""

from __future__ import annotations

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
