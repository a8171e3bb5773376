"""The masks of shadow models: balanced columns, level rows, and nothing else in them."""

import numpy as np
import pytest

from mico_competition.shadows.membership import _COLUMNS, balanced_membership


@pytest.mark.parametrize(
    ("count", "records", "fraction"),
    [(2, 2, 0.5), (4, 7, 0.5), (16, 1001, 0.5), (10, 333, 0.3), (8, 50, 0.75), (64, 300, 0.25)],
)
def test_every_record_is_held_equally_often(count, records, fraction):
    mask = balanced_membership(count, records, fraction, seed=3)
    assert mask.shape == (count, records) and mask.dtype == bool
    assert (mask.sum(axis=0) == round(count * fraction)).all()
    sizes = mask.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.sum() == round(count * fraction) * records


@pytest.mark.parametrize(("count", "fraction"), [(7, 0.3), (16, 0.7), (3, 0.4)])
def test_other_shares_are_rounded_at_random(count, fraction):
    mask = balanced_membership(count, 1000, fraction, seed=0)
    held, exact = mask.sum(axis=0), count * fraction
    assert set(held) == {int(exact), int(exact) + 1}
    assert mask.sum() == round(exact * 1000)
    upper = np.flatnonzero(held == int(exact) + 1)
    assert 350 < upper.mean() < 650  # the records with one model more are anywhere
    assert np.ptp(mask.sum(axis=1)) <= 1


def test_halves_come_in_pairs_that_are_independent_of_each_other():
    mask = balanced_membership(9, 20_001, 0.5, seed=2)
    assert (mask[0:8:2] == ~mask[1:8:2]).all()
    sizes = mask.sum(axis=1)
    assert set(sizes) == {10_000, 10_001}
    first = mask[::2]  # one of each pair, and the odd model
    both = (first.astype(float) @ first.T / mask.shape[1])[np.triu_indices(5, 1)]
    assert np.abs(both - 0.25).max() < 4.5 * np.sqrt(0.1875 / mask.shape[1])
    assert set(mask.sum(axis=0)) == {4, 5}


def test_the_seed_decides():
    first, again, other = (balanced_membership(8, 500, 0.5, seed) for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).mean() > 0.4


def test_rows_overlap_as_random_rows_with_balanced_columns_do():
    """Two of k models per column of count hold a record with probability k (k-1) / (c (c-1))."""
    count, records = 8, 40_000  # more columns than are drawn at a time
    assert records > 2 * _COLUMNS
    mask = balanced_membership(count, records, 0.25, seed=1).astype(float)
    both = (mask @ mask.T / records)[np.triu_indices(count, 1)]
    expected = 2 * 1 / (8 * 7)
    deviation = np.sqrt(expected * (1 - expected) / records)
    assert np.abs(both - expected).max() < 4.5 * deviation
    neighbours = (mask[:, 1:] * mask[:, :-1]).mean()
    assert abs(neighbours - 0.0625) < 4.5 * np.sqrt(0.0625 / mask.size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 10, 0.5, 0), "count=1 to be a whole number of at least 2"),
        ((4, 10, 0.5, -1), "seed=-1"),
        ((4.0, 10, 0.5, 0), "count=4.0"),
        ((4, 10, 1.0, 0), r"fraction=1.0 in \(0, 1\)"),
        ((4, 3, 0.5, 0), "3 records for 4 shadow models"),
        ((4, 100, 0.1, 0), "at least 10 shadow models"),
        ((8, 100, 0.95, 0), "at least 20 shadow models"),
        ((3, 100, 0.7, 0), "at least 4 shadow models"),
    ],
)
def test_what_no_mask_can_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        balanced_membership(*arguments)
