"""Whatever the text of a competition's file is, reading it ends in a table or in a ValueError."""

import random

import pytest
from helpers_competition import competition_text
from hypothesis import given, settings
from hypothesis import strategies as st

from mico_competition.competition.columns import KINDS
from mico_competition.competition.reader import parse_competition
from mico_competition.competition.table import Competition

TEXT = competition_text({"lo": {}, "none": {"target_epsilon": float("inf")}})
COLUMNS = sorted({column for columns in KINDS.values() for column in columns})
VALUES = st.one_of(
    st.sampled_from(
        [
            *("inf", "-inf", "nan", "0x" + "f" * 5_000, "9" * 5_001, f"1{'0' * 400}", "1e999"),
            *("true", "1979-05-27", "07:32:00", "''", '"\\u0000"', '"\\U0010ffff"', "{}", "[]"),
            *("[" * 900 + "]" * 900, "[" * 20_000, "{a = " * 300 + "1" + "}" * 300, "[[0], 'a']"),
            *('["a|b", "|"]', "[0, 1, 2]", "[9, 0]", "['seed_challenge']", '"""\n[x]\n"""'),
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=5).map(repr),
)
KEYS = st.one_of(
    st.sampled_from([*KINDS, *COLUMNS, "a.a.a", '""', "'x y'"]), st.text(max_size=4).map(repr)
)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
LINES = st.one_of(
    st.tuples(PATHS, VALUES).map(" = ".join),
    PATHS.map("[{}]".format),
    PATHS.map("[[{}]]".format),
    st.text(max_size=20),
)


def read(text):
    try:
        assert isinstance(parse_competition(text, "x"), Competition)
    except ValueError as error:
        assert str(error).startswith("x") and "line " in str(error)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=8))
def test_any_lines(lines):
    read("\n".join(lines))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, TEXT.count("\n")), st.integers(0, 2), st.lists(LINES, max_size=2))
def test_lines_put_into_a_whole_file_or_in_the_place_of_some(at, count, lines):
    whole = TEXT.split("\n")
    read("\n".join([*whole[:at], *lines, *whole[at + count :]]))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, TEXT.count("\n")), VALUES)
def test_another_value_in_any_line(at, value):
    whole = TEXT.split("\n")
    whole[at] = f"{whole[at].partition('=')[0]} = {value}"
    read("\n".join(whole))


@pytest.mark.parametrize("seed", range(5))
def test_characters_that_were_lost_doubled_or_changed(seed):
    rng = random.Random(seed)
    for _ in range(40):
        text = list(TEXT)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(["", text[at] * 2, "[", '"', "\n", ".", "=", "#", "\x00", "é"])
        read("".join(text))
