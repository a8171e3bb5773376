"""Many patterns at once find exactly what searching for one after another finds."""

import numpy as np
import pytest

from mico_competition.release.leak_check import byte_search
from mico_competition.release.leak_check.byte_search import ByteSearch


def test_as_searching_one_by_one():
    rng = np.random.default_rng(0)
    data = bytes(rng.integers(0, 3, 200_000, np.uint8))  # few values: much nearly fits
    starts = rng.integers(0, len(data) - 60, 300)
    patterns = [data[s : s + n] for s, n in zip(starts, rng.integers(8, 60, 300))]
    patterns += [bytes(rng.integers(0, 3, n, np.uint8)) for n in rng.integers(8, 20, 300)]
    search = ByteSearch({pattern: pattern for pattern in patterns})
    expected = {pattern for pattern in patterns if pattern in data}
    assert set(search.find(data)) == expected
    assert 300 <= len(expected) < 600


@pytest.mark.parametrize("length", [8, 9, 40, 900])
def test_at_every_place_of_a_chunk(monkeypatch, length):
    monkeypatch.setattr(byte_search, "_CHUNK", 64)
    pattern = bytes(range(1, 200))[:length] * (length // 199 + 1)
    pattern = pattern[:length]
    search = ByteSearch({pattern: "found"})
    for before in [*range(0, 140), 1000]:
        for after in (0, 1, 70):
            assert search.find(bytes(before) + pattern + bytes(after)) == ["found"]
    assert search.find(pattern[:-1] + b"\xff") == [] and search.find(b"") == []


def test_zeros_are_no_anchor():
    """A pattern of int64 numbers is found by its numbers, in data full of zeros."""
    pattern = np.array([0, 0, 0, 0, 0, 1, 0, 1], "<i8").tobytes()
    zeros = bytes(1 << 20)
    search = ByteSearch({pattern: 1})
    assert search.find(zeros) == []
    assert search.find(zeros + pattern) == [1]
    many = np.array([0, 1] * 20_000, "<i8").tobytes()  # the anchor stands everywhere
    assert search.find(many) == [] and search.find(many + pattern) == [1]


def test_a_search_on_top_of_others():
    one, two = ByteSearch({b"abcdefgh": 1}), ByteSearch({b"ijklmnop": 2, b"abcdefgh": 3})
    both = ByteSearch({b"qrstuvwx": 4}, one, two)
    assert sorted(both.find(b"..abcdefghijklmnopqrstuvwx")) == [1, 2, 3, 4]
    assert one.find(b"ijklmnop") == [] and ByteSearch({}).find(b"abcdefgh") == []


def test_short_patterns_mean_nothing():
    with pytest.raises(ValueError, match="at least 8 bytes, 1 are not"):
        ByteSearch({b"1234567": 1, b"12345678": 2})
