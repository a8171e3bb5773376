"""Phases of one challenge: rows of their own in the file, or those of the whole file."""

import pytest
from helpers_competition import PHASES, competition_text

from mico_competition.competition.reader import parse_competition
from mico_competition.competition.table import get_phase, phase_of, using

TWO = {"a": {}, "b": {"challenge": "few"}}
OWN = """
[challenge.few.phase.train]
models = [0, 19]
[challenge.few.phase.dev]
models = [20, 29]
step = 0.01
[challenge.few.phase.final]
models = [30, 39]
"""


def ranges(table, challenge):
    return {name: (p.first, p.count, p.step) for name, p in table.phases[challenge].items()}


def refused(text):
    with pytest.raises(ValueError) as error:
        parse_competition(text, "competition.toml")
    return str(error.value)


def test_a_challenge_has_its_own_phases_and_the_others_those_of_the_file():
    table = parse_competition(competition_text(TWO) + OWN, "competition.toml")
    assert ranges(table, "few") == {
        "train": (0, 20, 0.0),
        "dev": (20, 10, 0.01),
        "final": (30, 10, 0.0),
    }
    assert ranges(table, "faces")["final"] == (150, 50, 0.0)


def test_phases_of_the_file_are_needed_only_for_challenges_without_their_own():
    table = parse_competition(competition_text({"b": TWO["b"]}, phases={}) + OWN, "c.toml")
    assert list(table.phases) == ["few"]
    said = refused(competition_text(TWO, phases={}) + OWN)
    assert "no phase train is described: add [phase.train]" in said


def test_an_id_has_the_phase_of_its_challenge(tmp_path):
    file = tmp_path / "competition.toml"
    file.write_text(competition_text(TWO) + OWN, encoding="utf-8")
    with using(file):
        assert [phase_of(i, "few").name for i in (0, 19, 20, 39)] == [
            *("train", "train", "dev", "final")
        ]
        assert phase_of(39, "faces").name == "train"
        assert get_phase("few", "dev").step == 0.01 and get_phase("faces", "dev").step == 0.005
        with pytest.raises(ValueError, match="40: ids of few are train 0 to 19, dev 20 to 29"):
            phase_of(40, "few")


@pytest.mark.parametrize(
    ("was", "now", "fault"),
    [
        ("[30, 39]", "[25, 39]", "line 48: phases dev and final share models"),
        ("few.phase.final", "few.phase.test", "line 47: unknown phase 'test'"),
        ("few.phase.final", "few.phase.test", "add [challenge.few.phase.final] with models"),
        ("models = [30, 39]", "", "[challenge.few.phase.final] lacks the column models"),
        ("step = 0.01", "steps = 1", "unknown column steps: did you mean step?"),
        ("few.phase.final", "few.phases.final", "unknown column phases: did you mean phase?"),
        (OWN, "[challenge.few]\nphase = 3\n", "expected tables [challenge.few.phase.NAME]"),
        (OWN, "[challenge.fwe]\n", "unknown challenge 'fwe', which no scenario names: did you"),
    ],
)
def test_faults_name_the_line_and_the_table(was, now, fault):
    text = competition_text(TWO, phases=PHASES) + OWN
    assert was in text
    assert fault in refused(text.replace(was, now))
