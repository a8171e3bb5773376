"""A competition's file: all its faults at once, each with its line and the fix."""

import pytest
from helpers_competition import PHASES, SCENARIO, TASK, competition_text

from mico_competition.competition.reader import parse_competition, read_competition
from mico_competition.competition.toml_lines import Lines

ONE = {"faces_lo": {}}


def refused(text):
    with pytest.raises(ValueError) as error:
        parse_competition(text, "competition.toml")
    return str(error.value)


def test_a_whole_file_becomes_rows():
    text = competition_text(
        {"b": {"target_epsilon": 0.5, "title": "Half"}, "a": {"target_epsilon": float("inf")}},
        phases={
            "train": {"models": [0, 19]},
            "final": {"models": [30, 39]},
            "dev": {"models": [20, 29]},
        },
    )
    table = parse_competition(text, "competition.toml")
    assert table.challenges == {"faces": ("a", "b")} and list(table.scenarios) == ["a", "b"]
    assert table.scenarios["b"].label == "Half" and table.scenarios["b"].target_epsilon == 0.5
    assert table.scenarios["a"].max_grad_norm is None and not table.scenarios["a"].private
    assert [(p.name, p.first, p.count, p.step) for p in table.phases.values()] == [
        ("train", 0, 20, 0.0),
        ("dev", 20, 10, 0.005),
        ("final", 30, 10, 0.0),
    ]
    assert table.tasks["faces"].weights == ("model.pt",)


def test_all_faults_are_listed_with_their_lines():
    text = competition_text(
        {
            "one": {"target_epsilon": -1.0},
            "two": {"optimiser": "adam", "num_epochs": "30"},
        },
        task={**TASK, "training": 1750},
        phases={**PHASES, "dev": {"models": [90, 149]}},
    )
    lines = text.splitlines()
    expected = {
        "training = 1750": "training = 1750 + challenge = 100 exceed records = 1797: train on "
        "fewer records.",
        "target_epsilon = -1.0": "target_epsilon: expected a number > 0 (inf for none), got -1.0.",
        'num_epochs = "30"': "num_epochs: expected a whole number >= 1, got '30'.",
        'optimiser = "adam"': "unknown column optimiser: did you mean optimizer?",
        "models = [90, 149]": "phases train and dev share models: give each its own.",
    }
    faults = [f"  line {lines.index(line) + 1}: {fault}" for line, fault in expected.items()]
    assert refused(text) == "\n".join(["competition.toml has 5 faults:", *faults])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"target_epsilon": 0}, "expected a number > 0"),
        ({"target_epsilon": True}, "expected a number > 0"),
        ({"target_delta": 1.0}, "expected a number in (0, 1)"),
        ({"task": "face"}, "unknown task 'face': did you mean faces"),
        ({"optimizer": "adm"}, "unknown name 'adm': did you mean adam"),
        ({"disclosure": "standrad"}, "unknown disclosure 'standrad': did you mean standard"),
        ({"batch_size": 121}, "batch_size = 121 exceeds training = 120 of task faces"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number > 0 and finite"),
        ({"challenge": "a/b"}, "challenge 'a/b' cannot be called that"),
        ({"challenge": "x.release"}, "folders of such names lie beside"),
        ({"challenge": "fleet"}, "`mico fleet` keeps its books"),
    ],
)
def test_a_scenarios_faults(change, fault):
    said = refused(competition_text({"faces_lo": change}))
    assert said.startswith("competition.toml, line ") and fault in said


def test_privacy_and_its_norm_go_together():
    text = competition_text(ONE)
    without = text.replace("max_grad_norm = 1.0\n", "")
    assert "target_epsilon = 4 needs max_grad_norm" in refused(without)
    assert "clips nothing" in refused(text.replace("target_epsilon = 4.0", "target_epsilon = inf"))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "status", "nul\\t", ""])
def test_names_that_are_no_safe_folders(name):
    assert "cannot be called that" in refused(competition_text({name: {}}))


def test_names_that_differ_in_case_alone():
    assert "would share a folder" in refused(competition_text({"Faces": {}, "faces": {}}))


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ({"challenge": 0}, "challenge: expected a whole number >= 1, got 0"),
        ({"challenge": 130}, "training = 120 is below challenge = 130"),
        ({"loader": "my competition:load"}, 'loader: expected "MODULE:FUNCTION"'),
        ({"model": "../x:Net"}, 'model: expected "MODULE:FUNCTION"'),
        ({"class_names": ["a"]}, "class_names has 1 names for 10 classes"),
        ({"max_length": 9}, "both max_length and base_model"),
        ({"weights": ["../model.pt"]}, "names of files"),
        ({"colour": 1}, "unknown column colour"),
    ],
)
def test_a_tasks_faults(task, fault):
    assert fault in refused(competition_text(ONE, task={**TASK, **task}))


@pytest.mark.parametrize(
    ("phases", "fault"),
    [
        ({"dev": {"models": [5]}}, "expected models = [FIRST, LAST]"),
        ({"dev": {"models": [149, 100]}}, "FIRST <= LAST"),
        ({"dev": {"models": [100, 149], "step": 0.5}}, "step: expected a number from"),
        ({"development": {"models": [200, 210]}}, "unknown phase 'development'"),
        ({"train": {"models": [0, 9], "step": 0.01}}, "train is not scored"),
    ],
)
def test_a_phases_faults(phases, fault):
    assert fault in refused(competition_text(ONE, phases={**PHASES, **phases}))


def test_a_missing_phase_and_missing_columns():
    phases = {name: row for name, row in PHASES.items() if name != "final"}
    assert "no phase final is described" in refused(competition_text(ONE, phases=phases))
    text = competition_text(ONE).replace(f"num_epochs = {SCENARIO['num_epochs']}\n", "")
    assert "[scenario.faces_lo] lacks the column num_epochs" in refused(text)


def test_a_disclosure_never_tells_the_members():
    row = '[disclosure.all]\ntrain = ["seed_challenge", "seed_training", "seed_membership", '
    row += '"solution.csv"]\ndev = ["solution.csv"]\nfinal = []\n'
    assert "the others tell who the members are" in refused(competition_text(ONE) + row)
    shy = row.replace(', "solution.csv"]\ndev = ["solution.csv"]', "]\ndev = []")
    assert "train lacks solution.csv" in refused(competition_text(ONE) + shy)


def test_what_is_no_toml_and_what_is_twice():
    text = competition_text(ONE)
    assert refused(text + "x =").startswith("competition.toml, line ")
    assert "is no TOML" in refused(text + "[task.faces]\ntitle = 'again'\n")
    assert "unknown table [tasks]: did you mean task" in refused(text + "[tasks.x]\na = 1\n")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="There is no competition file .*`mico init FOLDER`"):
        read_competition(tmp_path / "nowhere.toml")
    with pytest.raises(ValueError, match="is a folder: name the competition's file in it"):
        read_competition(tmp_path)


def test_lines_of_keys_in_all_their_forms():
    lines = Lines(
        'a.b = 1\n\n[ "x y" . z ]  # head\n"q\\"r" = 2\ns.t = 3\n[[list]]\n  deep = [\n1,\n]\n'
    )
    assert lines.of("a", "b") == 1
    assert lines.of("x y", "z") == 3
    assert lines.of("x y", "z", 'q"r') == 4
    assert lines.of("x y", "z", "s", "t") == 5
    assert lines.of("list", "deep") == 7
    assert lines.of("list", "shallow") == 6
    assert lines.of("nowhere") == 1
