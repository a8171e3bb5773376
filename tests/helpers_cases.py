"""Cases of a test, of which `make test` runs a part."""

from collections.abc import Iterable
from typing import Any

import pytest


def one_in(every: int, cases: Iterable[Any]) -> list[Any]:
    """`cases` as parameters, all but every so-many-th of them slow; a tuple is several."""
    found = []
    for i, case in enumerate(cases):
        values = case if type(case) is tuple else (case,)
        found.append(pytest.param(*values, marks=[pytest.mark.slow] * (i % every > 0)))
    return found
