"""Numbers with their nouns."""

from __future__ import annotations


def count_of(number: int, noun: str, plural: str = "") -> str:
    """`number` and the noun, in the plural where it is not 1.

    >>> count_of(1, "entry", "entries"), count_of(1000, "fault")
    ('1 entry', '1,000 faults')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
