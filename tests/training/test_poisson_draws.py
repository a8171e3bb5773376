"""The batches of an epoch are drawn at once, and are independent coins all the same."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from mico_competition.training import poisson_draws
from mico_competition.training.poisson_draws import moved, poisson_batches
from mico_competition.training.secure_random import SecureGenerator

LEAST_P = 1e-4  # of a test with fixed seeds, which an exact draw fails once in 10,000


def drawn(n, q, steps, generator):
    batches = poisson_batches(n, sample_rate=q, num_steps=steps, generator=generator)
    return [batch.tolist() for batch in batches]


@pytest.fixture
def short_draws(monkeypatch):
    """Two gaps at a time, so that most draws go on from an earlier one."""
    few = SimpleNamespace(ceil=lambda _: -6, sqrt=math.sqrt, log1p=math.log1p)
    monkeypatch.setattr(poisson_draws, "math", few)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one or two steps."""
    monkeypatch.setattr(poisson_draws, "BLOCK", 5)


@pytest.mark.parametrize("how", ["at once", "short_draws", "small_blocks", "secure"])
def test_every_set_of_coins_is_as_likely_as_it_should_be(how, request):
    """A chi-square test of the joint distribution of 3 records in 2 steps, all 64 outcomes."""
    generator = torch.Generator().manual_seed(11)
    if how == "secure":
        generator = SecureGenerator._from_key(bytes(32))
    elif how != "at once":
        request.getfixturevalue(how)
    n, steps, q, runs = 3, 2, 0.4, 8000
    found = {}
    for _ in range(runs):
        batches = drawn(n, q, steps, generator)
        key = tuple(int(i in batch) for batch in batches for i in range(n))
        found[key] = found.get(key, 0) + 1
    outcomes = list(itertools.product((0, 1), repeat=n * steps))
    expected = [runs * math.prod(q if coin else 1 - q for coin in o) for o in outcomes]
    test = stats.chisquare([found.get(o, 0) for o in outcomes], expected)
    assert sum(found.values()) == runs and test.pvalue > LEAST_P


@pytest.mark.parametrize(("n", "q"), [(40, 0.02), (300, 0.1), (1000, 0.9)])
def test_lengths_are_binomial(n, q):
    """A chi-square test over bins of an expected count of 20 or more; some batches are empty."""
    steps = 5000
    lengths = [len(b) for b in drawn(n, q, steps, torch.Generator().manual_seed(12))]
    law = stats.binom(n, q)
    edges = sorted({int(law.ppf(i / 20)) for i in range(1, 20)})
    bins = [0, *edges, n]
    below = [law.cdf(edge) for edge in edges]
    expected = [steps * (b - a) for a, b in zip([0.0, *below], [*below, 1.0])]
    counts = [0] * len(expected)
    for length in lengths:
        counts[sum(length > edge for edge in edges)] += 1
    assert len(lengths) == steps and min(expected) > 20 and len(bins) > 3
    assert stats.chisquare(counts, expected).pvalue > LEAST_P
    assert (0 in lengths) == (n == 40)


def test_records_are_independent_across_the_border_of_two_steps():
    """The last record of a step and the first of the next are neighbours in the one draw."""
    n, q, steps = 7, 0.3, 20_000
    batches = drawn(n, q, steps, torch.Generator().manual_seed(13))
    pairs = [(n - 1 in a, 0 in b) for a, b in itertools.pairwise(batches)]
    joint = [[sum(p == (i, j) for p in pairs) for j in (False, True)] for i in (False, True)]
    assert stats.chi2_contingency(joint).pvalue > LEAST_P
    assert abs(joint[1][1] / len(pairs) - q**2) < 5 * math.sqrt(q**2 * (1 - q**2) / len(pairs))


@pytest.mark.parametrize(
    ("n", "q", "steps"), [(1, 1.0, 3), (5, 1.0, 4), (1, 1e-9, 5), (3, 0.5, 0), (10**9, 1e-9, 20)]
)
def test_extreme_rates_and_sizes(n, q, steps):
    batches = drawn(n, q, steps, torch.Generator().manual_seed(14))
    assert len(batches) == steps
    for batch in batches:
        assert batch == sorted(set(batch)) and all(0 <= i < n for i in batch)
        assert q < 1 or batch == list(range(n))
    if n == 10**9:
        assert 0 < sum(map(len, batches)) < 60  # 20 are expected
        assert max(map(max, filter(None, batches))) > 1e8


def test_a_rate_that_is_hardly_a_number_draws_nothing():
    assert drawn(10, 1e-320, 3, torch.Generator().manual_seed(15)) == [[], [], []]


def test_memory_is_bounded_by_blocks(monkeypatch):
    """An epoch of a million positions in blocks of a thousand draws no more than that at once."""
    sizes = []
    heads = poisson_draws._heads

    def seen(*args):
        places = heads(*args)
        sizes.append(len(places))
        return places

    monkeypatch.setattr(poisson_draws, "BLOCK", 1000)
    monkeypatch.setattr(poisson_draws, "_heads", seen)
    batches = drawn(10_000, 0.01, 100, torch.Generator().manual_seed(16))
    assert len(batches) == 100 and sum(map(len, batches)) == sum(sizes)
    assert max(sizes) < 1200


@pytest.mark.parametrize("block", [4, 10**6])
def test_batches_move_to_a_device_together(monkeypatch, block):
    """In one copy a block; their lengths are known without the device."""
    monkeypatch.setattr(poisson_draws, "BLOCK", block)
    given = [torch.arange(3), torch.arange(0), torch.arange(5), torch.arange(1)]
    there = list(moved(iter(given), torch.device("meta")))
    assert [len(batch) for batch in there] == [3, 0, 5, 1]
    assert all(batch.device.type == "meta" and batch.dtype == torch.int64 for batch in there)
    assert len({batch.untyped_storage()._cdata for batch in there}) == (2 if block == 4 else 1)
    assert list(moved(iter([]), torch.device("meta"))) == []


def test_batches_stay_where_they_are_on_a_cpu():
    given = [torch.arange(3), torch.arange(0)]
    assert all(a is b for a, b in zip(moved(iter(given), torch.device("cpu")), given, strict=True))
