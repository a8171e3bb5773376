"""What decoders work out without labels: once for an evaluation, kept no longer than of use."""

import weakref
from dataclasses import replace

import pytest
from helpers_whitebox import whitebox_problem

from mico_competition.attacks.whitebox.mlp.label_free import Last
from mico_competition.evaluation.cross_fitting import MaskedSource


def test_an_evaluation_decodes_its_models_once():
    """It wraps the source anew for each attack and fold; what no label goes into is kept."""
    problem, _ = whitebox_problem()
    made, last = [], Last()

    def make(source, rows):
        made.append(rows)
        return len(made)

    for _ in range(3):
        wrapped = replace(problem, source=MaskedSource(problem.source, problem.known_membership))
        assert last.get(wrapped, make) == 1
    fewer = replace(problem, shadows=problem.shadows[1:])
    assert last.get(fewer, make) == 2 and last.get(problem, make) == 3


class Made:
    """Something large."""


def test_what_was_decoded_goes_with_its_source_and_before_the_next_is_made():
    problem, _ = whitebox_problem()
    last, made = Last(), []

    def make(source, rows):
        assert all(one() is None for one in made)  # two do not fit into memory
        large = Made()
        made.append(weakref.ref(large))
        return large

    last.get(problem, make)
    assert made[0]() is not None
    last.get(replace(problem, shadows=problem.shadows[1:]), make)
    other, _ = whitebox_problem()
    last.get(other, make)
    del problem
    assert made[2]() is not None  # the source that went was not its own
    del other
    assert [one() for one in made] == [None] * 3


def test_what_fails_leaves_nothing_behind():
    problem, _ = whitebox_problem()
    last = Last()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            last.get(problem, lambda source, rows: 1 / 0)
    assert last.get(problem, lambda source, rows: 5) == 5
