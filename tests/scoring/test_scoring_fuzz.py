"""Random bytes, zips and trees: read as they are, or refused in lines; see helpers_fuzz.py.

A short run of fixed examples; `benchmarks/fuzz_scoring.py` runs the same for as long as one likes.
"""

import os

import pytest
from helpers_fuzz import (
    KINDS,
    PARTS,
    WORDS,
    check_archive,
    check_program,
    check_values,
    scratch,
    sound_zip,
    spoilt_zip,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")


def fixed(examples):
    """The same examples in every run: a fault found here is one of the change just made."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


TEXTS = st.lists(st.sampled_from(WORDS), max_size=12)
LINES = st.lists(st.sampled_from([*WORDS[:7], "0.123", "0.9"]), min_size=4, max_size=5)
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    TEXTS.map(lambda words: "".join(words).encode()),
    TEXTS.map(lambda words: ",".join(words).encode()),
    LINES.map(lambda words: ",".join(words).encode()),
)
SOME_PATHS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5)
GOOD_PATHS = st.builds(
    lambda scenario, depth: ["cifar10", scenario, "dev", "model_0", "prediction.csv"][:depth],
    st.sampled_from(["cifar10_hi", "cifar10_lo"]),
    st.integers(1, 5),
)
PATHS = st.one_of(
    GOOD_PATHS, SOME_PATHS, st.builds(lambda a, b: a[:-1] + b, GOOD_PATHS, SOME_PATHS)
)
TREE_EDITS = st.lists(st.tuples(PATHS, st.sampled_from(KINDS), PATHS, CONTENTS), max_size=5)
NUMBERS = st.integers(0, 1 << 32)
ZIP_EDITS = st.lists(st.tuples(NUMBERS, st.integers(0, 6), NUMBERS), min_size=1, max_size=3)


@fixed(400)
@given(CONTENTS)
def test_any_file_is_read_or_refused(data):
    with scratch() as folder:
        check_values(data, f"{folder}/prediction.csv")


@fixed(300)
@given(ZIP_EDITS)
def test_any_zip_is_unpacked_as_zipfile_does_or_refused(edits):
    check_archive(spoilt_zip(edits))


@fixed(100)
@given(st.binary(max_size=200))
def test_any_bytes_for_a_zip_are_refused(data):
    assert not check_archive(data)


@fixed(60)
@given(TREE_EDITS)
def test_any_tree_is_scored_or_refused_and_the_truth_is_not_told(edits):
    check_program(edits)


def test_what_is_fuzzed_is_sound_to_begin_with():
    assert check_archive(sound_zip()) and check_program([])
    with scratch() as folder:
        assert check_values(b"0.25,0.5,1,0\n", f"{folder}/prediction.csv")
