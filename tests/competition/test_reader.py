"""A competition's file: all its faults at once, each with its line and the fix."""

import pytest
from helpers_competition import PHASES, SCENARIO, TASK, competition_text

from mico_competition.competition.reader import parse_competition, read_competition
from mico_competition.competition.rows import DISTINGUISHER
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
    assert [(p.name, p.first, p.count, p.step) for p in table.phases["faces"].values()] == [
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
        "target_epsilon = -1.0": "target_epsilon: expected a number > 0 and at most 500, "
        "above which the accountant overflows, or inf (without quotes) for none, got -1.0.",
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
        ({"target_epsilon": 501}, "at most 500, above which the accountant overflows"),
        ({"learning_rate": 10**400}, "learning_rate: expected a number > 0 and finite, got 1000"),
        ({"target_delta": 1.0}, "expected a number in (0, 1)"),
        ({"task": "face"}, "unknown task 'face': did you mean faces"),
        ({"optimizer": "adm"}, "unknown name 'adm': did you mean adam"),
        ({"disclosure": "standrad"}, "unknown disclosure 'standrad': did you mean standard"),
        ({"batch_size": 121}, "batch_size = 121 exceeds training = 120 of task faces"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number > 0 and finite"),
        ({"challenge": "a/b"}, "challenge 'a/b' cannot be called that"),
        ({"challenge": "x.release"}, "folders of such names are beside"),
        ({"challenge": "fleet"}, "`mico fleet` keeps its ledger"),
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


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ({"challenge": 0}, "challenge: expected a whole number >= 1, got 0"),
        ({"challenge": 130}, "training = 120 is below challenge = 130"),
        ({"loader": "my competition:load"}, 'loader: expected "MODULE:FUNCTION"'),
        ({"model": "../x:Net"}, 'model: expected "MODULE:FUNCTION"'),
        ({"class_names": ["a"]}, "class_names has 1 names for 10 classes"),
        ({"max_length": 9}, "both max_length and base_model"),
        ({"loader": "digit"}, "line 4: loader: unknown name 'digit': did you mean digits?"),
        ({"loader": "x" * 40}, 'or name code beside the file as "MODULE:FUNCTION"'),
        ({"model": "resnet"}, "line 5: model: unknown name 'resnet': choose cnn, mlp, digits_mlp"),
        ({"weights": ["../model.pt"]}, "names of files"),
        ({"weights": ["a.pt", "b.pt"]}, "a model is in one file, and 2 are named"),
        ({"weights": ["Seed_Training"]}, "no file can be called 'Seed_Training': a model's folder"),
        ({"companions": ["a|metadata.json"]}, "no file can be called 'metadata.json'"),
        ({"companions": ["prediction.csv"]}, "no file can be called 'prediction.csv'"),
        ({"companions": ["model_3"]}, "'model_3': folders of phases and models"),
        ({"companions": ["aux.txt"]}, "'aux.txt': some systems refuse"),
        ({"companions": ["model.pt"]}, "file 'model.pt' of a model is named twice"),
        ({"companions": ["Model.pt"]}, "'model.pt' and 'Model.pt' of a model would be one"),
        (
            {"weights": ["model.pt"], "max_length": 9, "base_model": "x", "model": "roberta"},
            'its configuration "config.json" and its weights; name the two in this order',
        ),
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
        ({"dev": {"models": [200, 10**9]}}, "FIRST <= LAST <= 999999999"),
        ({"dev": {"models": [100, 149], "step": 0.5}}, "step: expected a number from"),
        ({"development": {"models": [200, 210]}}, "unknown phase 'development'"),
        ({"train": {"models": [0, 9], "step": 0.01}}, "train is not scored"),
    ],
)
def test_a_phases_faults(phases, fault):
    assert fault in refused(competition_text(ONE, phases={**PHASES, **phases}))


def test_a_missing_phase_and_missing_columns():
    phases = {name: row for name, row in PHASES.items() if name != "final"}
    said = refused(competition_text(ONE, phases=phases))
    assert "no phase final is described: add [phase.final] with models = [FIRST, LAST]" in said
    assert said.endswith("the scoring program and a bundle have the phases dev and final.")
    text = competition_text(ONE).replace(f"num_epochs = {SCENARIO['num_epochs']}\n", "")
    assert "[scenario.faces_lo] lacks the column num_epochs" in refused(text)


def test_a_disclosure_never_tells_the_members():
    row = '[disclosure.all]\ntrain = ["seed_challenge", "seed_training", "seed_membership", '
    row += '"solution.csv"]\ndev = ["solution.csv"]\nfinal = []\n'
    assert "the others reveal the members" in refused(competition_text(ONE) + row)
    shy = row.replace(', "solution.csv"]\ndev = ["solution.csv"]', "]\ndev = []")
    said = refused(competition_text(ONE) + shy)
    assert "train lacks solution.csv" in said
    assert all(f"{name} lacks seed_challenge: it determines" in said for name in ("dev", "final"))


def test_a_disclosure_has_one_order():
    row = '[disclosure.all]\ntrain = ["solution.csv", "seed_membership", "seed_training", '
    row += '"seed_challenge"]\ndev = ["seed_training", "seed_challenge", "seed_training"]\n'
    row += 'final = ["seed_training", "seed_challenge"]\n'
    text = competition_text({"faces_lo": {"disclosure": "all"}}) + row
    assert parse_competition(text, "x").scenarios["faces_lo"].disclosure == DISTINGUISHER


def test_what_is_no_toml_and_what_is_twice():
    text = competition_text(ONE)
    assert refused(text + "x =").startswith("competition.toml, line ")
    assert "is not valid TOML" in refused(text + "[task.faces]\ntitle = 'again'\n")
    assert "unknown table [tasks]: did you mean task" in refused(text + "[tasks.x]\na = 1\n")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("phase = 3", "line 1: expected tables [phase.NAME], got phase = ..."),
        ("task = 5", "line 1: expected tables [task.NAME], got task = ..."),
        ("scenario = []", "line 1: expected tables [scenario.NAME], got scenario = ..."),
        ("challenge = 'x'", "expected tables [challenge.NAME]"),
        ("task.x = 1", "line 1: expected a table [task.x]"),
        ("x = " + "[" * 20_000, "line 1: holds lists or tables in each other, too deep"),
        ("x = " + "{a = " * 20_000, "line 1: holds lists or tables in each other, too deep"),
        ("\nx = " + "[\n" * 20_000, "holds lists or tables in each other, too deep"),
        ("x = 1\ny = " + "9" * 5_001, "line 2: holds a number of thousands of digits"),
        ("x = 1\n" + "a." * 200_000 + "a = 1", "line 2: has over 200 dots, too many to be read"),
        ("[x]\ny = 0x" + "9" * 5_001, "line 1: unknown table [x]"),
    ],
    ids=lambda text: text[:12],
)
def test_values_that_are_no_tables_or_that_python_cannot_read(line, fault):
    rest = competition_text(ONE).replace("[phase", "[other") if line.startswith("phase") else ""
    assert fault in refused(f"{line}\n{rest}")


def test_a_number_that_cannot_be_shown():
    text = competition_text(ONE).replace("batch_size = 30", "batch_size = 0x" + "f" * 5_000)
    assert "whole number >= 1, got a value that is too long to show" in refused(text)


def test_lines_count_as_editors_do():
    """Other line ends than those of TOML, and lines of a text that look like keys."""
    title = 'title = """\n[x = [[[\n[a = ' + "[" * 20_000 + ']\n\u2028\x85"""'
    text = competition_text(ONE).replace('title = "Faces"', title)
    line = text.split("\n").index("batch_size = 30") + 1
    assert f"line {line}: batch_size" in refused(text.replace("batch_size = 30", "batch_size = 0"))


def test_more_scenarios_than_are_scored():
    rows = {f"s{i}": {"challenge": "faces" if i < 30 else "others"} for i in range(40)}
    text = competition_text(rows)
    line = text.split("\n").index('[scenario."s20"]') + 3
    fault = "challenge 'faces' has 30 scenarios, and the scoring program takes 20: make two"
    assert f"line {line}: {fault}" in refused(text)
    assert len(parse_competition(competition_text(dict(list(rows.items())[10:])), "x").scenarios)


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
