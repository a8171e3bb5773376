"""Names on the leaderboard: one form, printable, and no two that look alike."""

import unicodedata

import pytest
from helpers_leaderboard import made_up
from hypothesis import given
from hypothesis import strategies as st
from mico_competition.scoring.printable import is_plain

from mico_competition.hosting.leaderboard.add import About
from mico_competition.hosting.leaderboard.entries import check_entries, write_entry
from mico_competition.hosting.leaderboard.form import check_values
from mico_competition.hosting.leaderboard.names import Taken, in_one_form, is_name, looks, name_key

PEOPLE = [
    "Ada",
    "José",
    "Ελένη",
    "Наталья",
    "木下",
    "الهجوم",
    "می‌خواهم",
    "क्‍ष",
    "Việt",
    "O'Neill & co",
]


@pytest.mark.parametrize("name", PEOPLE)
def test_names_of_people_are_names(name):
    assert is_name(name) and check_values(made_up(name)) == []
    assert About(unicodedata.normalize("NFD", name)).fields()["name"] == name


@pytest.mark.parametrize(
    "name",
    [
        *("", " a", "a ", "a\nb", "a\tb", "\x1b[1m", "\u202ea", "a\u200bb", "\ufeffa", "a\u00adb"),
        *("a\u200db", "\u200dا", "ا\u200c", "a\u3164", "\u2800", "a\ufe0f", "e\u0301\u0302\u0303"),
        *(
            "\u0301a",
            "a\u20dd",
            "\ud800",
            "\ue000",
            "\U0010ffff",
            "Ｗｉｄｅ",
            "ﬁ",
            "e\u0301",
            "x" * 81,
        ),
        *("a\u2028b", "a\u00a0b", "①", "𝕏", "K\u212a", "\U000e0041", "a\u2066b\u2069"),
    ],
)
def test_what_is_no_name(name):
    assert not is_name(name)
    assert any(
        f.startswith("name: ")
        for f in check_values(made_up("x", predictions_sha256="0" * 64) | {"name": name})
    )
    assert any(f.startswith("authors: ") for f in check_values(made_up("x") | {"authors": [name]}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("paypal", "раураl"),
        ("PayPal", "PayPaI"),
        ("Attack", "Аttаck"),
        ("ATTACK", "ΑΤΤΑϹΚ"),
        ("LiRA", "LіRΑ"),
        ("LiRA", "Lirá"),
        ("LIRA", "L1RA"),
        ("iris", "ІRIS"),
        ("RMIA 10", "RMIA lO"),
        ("modern", "modem"),
        ("wave", "vvave"),
        ("Ada–Eve", "Ada-Eve"),
        ("O'Neill", "O’Neill"),
        ("naïve", "naive"),
        ("Łódz", "Łódź"),
        ("team|", "teaml"),
        ("scope", "ѕсоре"),
    ],
)
def test_names_that_look_alike(one, other):
    assert looks(one) & looks(other) and name_key(one) != name_key(other)
    taken = Taken()
    assert taken.add(one) is None and taken.add(other) == one and taken.add(one.upper()) is None


@pytest.mark.parametrize(
    ("one", "other"), [("Ada", "Eve"), ("team 1", "team 2"), ("木", "本"), ("a", "b")]
)
def test_names_that_do_not(one, other):
    assert not looks(one) & looks(other)
    taken = Taken()
    assert taken.add(one) is None and taken.add(other) is None


@given(st.text(max_size=100))
def test_any_text_is_put_into_one_form_or_is_no_name(text):
    name = in_one_form(text)
    assert in_one_form(name) == name
    if is_name(name):
        assert is_plain(name.replace("\u200c", "").replace("\u200d", "")) and looks(name)


def test_entries_that_look_alike_are_a_fault_of_the_later(tmp_path):
    write_entry(tmp_path, made_up("LiRA", day=2))
    write_entry(tmp_path, made_up("LіRA", day=5, challenge="sst2"))
    write_entry(tmp_path, made_up("lira", day=9))  # the same team
    (fault,) = check_entries(tmp_path)[1]
    assert fault.startswith("sst2/") and "looks like 'LiRA' of an earlier entry" in fault
