"""Text from outside is printed in one line that hides nothing, whatever it holds."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mico_competition.scoring.printable import is_plain, printable, printable_lines, shown

ANYTHING = st.text(st.characters(), max_size=300)  # halves of surrogate pairs among them


@given(ANYTHING)
def test_one_line_without_anything_unseen_and_never_escaped_twice(text):
    line = printable(text)
    assert is_plain(line) and line.isprintable() and len(line) <= 200
    line.encode("utf-8")
    assert printable(line) == line
    assert shown(text).isascii() and shown(text).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "José's attack (v2.1)",
        "Ελένη",
        "наталья",
        "木下",
        "الهجوم",
        "עִברִית",
        "Việt",
        "☃ 100 %",
    ],
)
def test_names_of_people_stay_as_they_are(text):
    assert printable(text) == text
    assert printable(unicodedata.normalize("NFD", text)) == unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n::set-output name=x::1", r"a\x0a::set-output name=x::1"),
        ("::add-mask::x", r"\x3a:add-mask::x"),
        ("  ::stop-commands::x", r"  \x3a:stop-commands::x"),
        ("x ##[error]no ##vso[task.complete]", r"x \x23#[error]no \x23#vso[task.complete]"),
        ("\x1b]0;title\x07\x1b[2J\x9b31m", r"\x1b]0;title\x07\x1b[2J\x9b31m"),
        ("\r\x08\x00\x7f\t", r"\x0d\x08\x00\x7f\x09"),
        ("a\u2028b\u2029c\x85d\x0be", r"a\u2028b\u2029c\x85d\x0be"),
        ("gpj.\u202eexe\u2066\u200f", r"gpj.\u202eexe\u2066\u200f"),
        ("a\u200bb\ufeffc\u00add\u2060\U000e0041", r"a\u200bb\ufeffc\xadd\u2060\U000e0041"),
        ("\u3164\u115f\uffa0\u2800\u034f\ufe0f", r"\u3164\u115f\uffa0\u2800\u034f\ufe0f"),
        ("\u00a0\u2003\u3000", r"\xa0\u2003\u3000"),
        ("e\u0301\u0302\u0303\u0304", "e\u0301\u0302\\u0303\\u0304"),
        ("\u0301a\u20dd", r"\u0301a\u20dd"),
        ("\ud83d\udcff\U0010ffff\ue000", r"\ud83d\udcff\U0010ffff\ue000"),
    ],
)
def test_what_could_do_harm_is_escaped(text, line):
    assert printable(text) == line


def test_long_text_is_cut_and_many_lines_are_counted():
    assert printable("x" * 10**6) == "x" * 197 + "..."
    assert printable("\0" * 100, 20) == r"\x00\x00\x00\x00\..."
    assert printable("x" * 200) == "x" * 200
    assert (
        printable_lines("a\nb\x1b\n" + "c\n" * 200, lines=3)
        == "a\nb\\x1b\nc\n... and 200 more lines"
    )
    assert printable(ValueError("a\nb")) == r"a\x0ab"
