"""Names in a competition's file: every system keeps them, and no shell gives them a meaning."""

import shlex
import unicodedata

import pytest
from helpers_competition import TASK, competition_text
from hypothesis import given
from hypothesis import strategies as st

from mico_competition.competition.names import name_fault, twins
from mico_competition.competition.reader import parse_competition

KINDS = ("task", "scenario", "challenge", "disclosure")


def fault(kind, name):
    return name_fault(kind, name) or ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["faces_lo", "Two and a half", "dp-sgd", "eps=2.5", "a+b", "7", "人脸", "हिन्दी", "ε 4"]
)
def test_names_that_are_kept(kind, name):
    assert name_fault(kind, name) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [f"a{sign}b" for sign in "$`;&'()!#~*?<>|\"\\/:%^{}[]\t\n\x7f“’–"])
def test_signs_that_shells_read(kind, name):
    assert "it names folders and is typed in shells; use letters" in fault(kind, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-x", "=x", "@x", " x", "\ud800", "a\u200bb", "a\u202eb", "\u0301a"],
)
def test_names_that_begin_or_look_otherwise(kind, name):
    assert "begin with a letter or a digit" in fault(kind, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aux", "Windows"),
        ("CON", "Windows"),
        ("nul.x", "Windows"),
        ("com1", "Windows"),
        ("Lpt9.a.b", "Windows"),
        ("a.", "Windows"),
        ("a ", "Windows"),
        (unicodedata.normalize("NFD", "é"), "as one (NFC)"),
        ("x" * 101, "it takes 101 bytes"),
        ("人" * 34, "it takes 102 bytes"),
    ],
)
def test_names_that_not_all_systems_keep(kind, name, reason):
    assert reason in fault(kind, name)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("scenario", "status", "is a command"),
        ("scenario", "Merge", "is a command"),
        ("scenario", "Openings.json", "file of that name"),
        ("challenge", "Fleet", "keeps its ledger"),
        ("challenge", "README.md", "a published release has a page"),
        ("challenge", "x.Release", "are beside"),
        ("challenge", "x.predictions", "are beside"),
        *(
            (kind, name, "folders of phases and models")
            for kind in ("scenario", "challenge")
            for name in ("train", "Dev", "final", "model_7", "MODEL_007")
        ),
    ],
)
def test_names_of_what_lies_in_their_place(kind, name, reason):
    assert reason in fault(kind, name)
    assert name_fault("task", name) is None


def test_every_name_in_a_file_is_held_to_the_rule():
    row = '[disclosure."a;b"]\ntrain = []\ndev = []\nfinal = []\n'
    text = competition_text({"a$b": {"challenge": "a&b"}}).replace('"faces"', '"a`b"') + row
    with pytest.raises(ValueError, match="faults") as error:
        parse_competition(text.replace('task = "a`b"', 'task = "faces"'), "x")
    for kind, name in (("task", "a`b"), ("scenario", "a$b"), ("disclosure", "a;b")):
        assert f"{kind} '{name}' cannot be called that" in str(error.value)
    with pytest.raises(ValueError, match="line 13: challenge 'a&b' cannot be called that"):
        parse_competition(competition_text({"ab": {"challenge": "a&b"}}), "x")


def test_the_reason_is_given_whole_for_a_long_name():
    for name in ("x" * 300, "人" * 90, "$" * 300):
        with pytest.raises(
            ValueError, match=r"cannot be called that: .*(at most 100|or a digit)\.$"
        ):
            parse_competition(competition_text({name: {}}), "x")


def test_names_that_some_systems_take_for_one():
    assert list(twins(["a", "b", "A", "ß", "SS", "ﬁ", "fi"])) == [
        ("a", "A"),
        ("ß", "SS"),
        ("ﬁ", "fi"),
    ]
    for rows in ({"Faces": {}, "faces": {}}, {"a": {"challenge": "Ça"}, "b": {"challenge": "ça"}}):
        with pytest.raises(ValueError, match="would share a folder on some systems: rename one"):
            parse_competition(competition_text(rows, task=TASK), "x")


@given(st.text(max_size=12), st.sampled_from(KINDS))
def test_a_name_is_one_word_of_a_shell_but_for_spaces(name, kind):
    if name_fault(kind, name) is None:
        assert shlex.split(name, comments=True) == name.split()
        assert shlex.quote(name) == name or " " in name or not name.isascii()
        assert len(name.encode()) <= 100 and name == name.strip() == unicodedata.normalize(
            "NFC", name
        )
