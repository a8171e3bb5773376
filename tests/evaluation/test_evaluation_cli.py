"""`mico evaluate` and `mico attack NAME` on a small fleet of digits models, trained here."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mico_competition.attacks import to_unit
from mico_competition.attacks.registry import get_attack
from mico_competition.cli import main
from mico_competition.cli.evaluate import _DEFAULTS_OF_EVALUATE
from mico_competition.competition.layout import walk_challenge
from mico_competition.competition.submission import score_phase
from mico_competition.evaluation import landlock
from mico_competition.evaluation.cross_fitting import make_task, run
from mico_competition.signals import open_signals

SECRETS = {"dev": ("seed_training", "seed_membership", "solution.csv")}
SECRETS["final"] = SECRETS["dev"]


@pytest.fixture(scope="module")
def participants(small_fleet, tmp_path_factory):
    """The same without what participants do not get."""
    folder = shutil.copytree(small_fleet, tmp_path_factory.mktemp("participant") / "digits")
    for model in walk_challenge(folder):
        for name in SECRETS.get(model.phase, ()):
            (model.path / name).unlink()
    return folder


@pytest.fixture
def mico(tmp_path, monkeypatch, capsys):
    """Runs a verb in an empty folder; gives its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MICO_QUIET", "1")  # else a slow machine says how far it is

    def run_verb(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as leave:
            code = leave.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_verb


LOSS = "problem.source.get('loss')[problem.targets[:, None], problem.columns]"


def write_attack(*lines, after=""):
    """mine.py:attack, which does `lines` and gives the loss; `after` is said of the function."""
    body = "".join(f"    {line}\n" for line in (*lines, f"return {LOSS}"))
    Path("mine.py").write_text(f"def attack(problem):\n{body}{after}\n")


def predictions(folder, phase, among):
    models = [m for m in walk_challenge(among) if m.phase == phase]
    return [np.loadtxt(m.prediction_in(folder), delimiter=",") for m in models]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["eb", "{}"], ["{}", "--attack", "eb"]])
def test_attack_writes_one_mapping_for_all_models_of_a_phase(participants, mico, tmp_path, words):
    out = tmp_path / "p" / "digits"
    code, printed, errors = mico(
        "attack", *(word.format(participants) for word in words), "--predictions", out
    )
    assert (code, errors) == (0, "") and "Wrote predictions of eb for 18 models" in printed
    assert "earlier" not in printed
    source = open_signals(participants, "digits_inf")
    for phase, count in (("train", 12), ("dev", 4), ("final", 2)):
        found = predictions(out, phase, participants)
        task = make_task(source, phase, scored=False)
        expected = to_unit(run(task, get_attack("eb")))
        assert len(found) == count
        np.testing.assert_allclose(found, expected)
        assert min(map(np.min, found)) == 0 and max(map(np.max, found)) == 1
    other = ("attack", "lira", participants, "--predictions", out, "--phase", "dev")
    code, printed, errors = mico(*other)
    assert code == 0 and "predictions of lira for 4 models" in printed
    assert printed.strip().endswith(", in place of 4 earlier ones")


@pytest.mark.slow
def test_predictions_score_as_evaluate_says(small_fleet, mico, tmp_path):
    out = tmp_path / "p" / "digits"
    flags = ["--phase", "dev", "--predictions", out]
    assert mico("attack", "lira-online-global", small_fleet, *flags)[0] == 0
    assert len(list(out.rglob("prediction.csv"))) == 4
    words = ["--attack", "lira-online-global", "--phase", "dev", "--json", "e.json"]
    assert mico("evaluate", small_fleet, *words, "--resamples", 20)[0] == 0
    (found,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
    scored = score_phase(small_fleet, out, phase="dev")["digits_inf"]
    for metric, number in found["attacks"][1]["metrics"].items():
        assert number["value"] == pytest.approx(scored[metric], abs=1e-12)


def test_the_default_attack_is_the_threshold_of_each_model_alone(participants, mico, tmp_path):
    shutil.copytree(participants / "digits_inf/dev", tmp_path / "digits/digits_inf/dev")
    assert mico("attack", tmp_path / "digits")[0] == 0  # no train models are needed
    source = open_signals(participants, "digits_inf", phases=("dev",))
    found = predictions(tmp_path / "digits.predictions", "dev", tmp_path / "digits")
    confidence = np.take_along_axis(source.get("confidence"), source.fleet.challenge, axis=1)
    np.testing.assert_allclose(found, confidence, rtol=1e-5, atol=1e-7)
    code, _, errors = mico("attack", "eb", tmp_path / "digits")
    assert code == 1 and "needs the train models of digits_inf" in errors
    assert mico("attack", "entropy", tmp_path / "digits")[0] == 0  # nor by others that are alone
    found = predictions(tmp_path / "digits.predictions", "dev", tmp_path / "digits")
    entropy = np.take_along_axis(source.get("entropy"), source.fleet.challenge, axis=1)
    np.testing.assert_allclose(found, to_unit(entropy))


@pytest.mark.parametrize("name", ["threshold", "eb"])
def test_one_scenario_of_a_folder(participants, mico, tmp_path, name):
    folder = shutil.copytree(participants, tmp_path / "digits")
    shutil.copytree(folder / "digits_inf", folder / "digits_lo")
    words = ["attack", name, folder, "--phase", "dev"]
    assert "for 4 models" in mico(*words, "--scenario", "digits_lo")[1]
    assert not list(folder.rglob("prediction.csv"))
    beside = tmp_path / "digits.predictions"
    assert {path.parts[-4] for path in beside.rglob("prediction.csv")} == {"digits_lo"}
    code, _, errors = mico(*words, "--scenario", "digits_hi")
    assert code == 1 and f"no models of digits_hi in {folder}" in errors


@pytest.mark.slow
def test_evaluate_train_models_by_default(participants, mico, tmp_path):
    files = ["--csv", "e.csv", "--json", "e.json", "--html", "e.html"]
    words = ["--resamples", 50, "--shadows", "4,9", *files]
    code, printed, errors = mico("evaluate", participants, *words)
    assert (code, errors) == (0, "")
    assert "digits_inf, train: 12 models, 1,200 members and 1,200 non-members" in printed
    assert "gain over winner-best (calibrate-" in printed and "eb, 9 shadows" in printed
    with open(tmp_path / "e.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["attack"] for row in rows} == {"winner-best", *_DEFAULTS_OF_EVALUATE}
    (found,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
    auc = {a["name"]: a["metrics"]["AUC"]["value"] for a in found["attacks"]}
    assert auc["eb"] > 0.6 and all(0.5 < value < 1 for value in auc.values())
    assert (tmp_path / "e.html").read_text().count("<svg role") == 3


@pytest.mark.slow
def test_all_records_are_less_noisy(small_fleet, mico, tmp_path):
    words = ["--attack", "eb", "--against", "threshold", "--resamples", 200]
    found = {}
    for records in ("challenge", "all"):
        flags = [*words, "--records", records, "--phase", "dev", "--json", "e.json"]
        assert mico("evaluate", small_fleet, *flags)[0] == 0
        (found[records],) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
    assert found["all"]["members"] + found["all"]["nonmembers"] == 4 * 1797
    width = {
        name: [a["metrics"]["AUC"]["high"] - a["metrics"]["AUC"]["low"] for a in one["attacks"]]
        for name, one in found.items()
    }
    assert width["all"][0] < width["challenge"][0]
    assert [a["name"] for a in found["all"]["attacks"]] == ["threshold", "eb"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "dev"])
def test_what_a_distinguisher_knows_is_offered(small_fleet, mico, phase):
    """An attack of one's own sees who else was trained on, and not what it is asked."""
    write_attack(
        "told = problem.told[problem.targets]",
        "asked = problem.told[problem.targets[:, None], problem.columns]",
        "assert not problem.targets_in_shadows and (asked == -1).all()",
        "assert (told == 1).sum() > 20 and (told == 0).sum() > 1000",
    )
    words = ["--knowledge", "distinguisher", "--phase", phase, "--resamples", 10]
    code, printed, errors = mico("evaluate", small_fleet, "--attack", "mine.py:attack", *words)
    assert (code, errors) == (0, "")
    assert "training set known otherwise" in printed and "mine.py:attack" in printed


@pytest.mark.slow
def test_options_of_the_runner_up(participants, mico, tmp_path):
    source = open_signals(participants, "digits_inf")
    found = []
    for number, flags in enumerate(
        [[], ["--global_variance"], ["--stable_logit_scaling", "--online_attack"]]
    ):
        out = tmp_path / str(number) / "digits"
        words = [participants, "--phase", "dev", "--predictions", out, *flags]
        assert mico("attack", "first-principles", *words)[0] == 0
        found.append(predictions(out, "dev", participants))
    for options, values in zip(({}, {"global_variance": True}), found):
        attack = get_attack("first-principles", **options)
        expected = to_unit(run(make_task(source, "dev", scored=False), attack))
        np.testing.assert_allclose(values, expected)
    assert not np.allclose(found[2], found[0])


@pytest.mark.slow
@pytest.mark.parametrize("pair", [("first-principles", "eb"), ("eb", "first-principles")])
def test_options_of_the_runner_up_are_of_either_attack(participants, mico, tmp_path, pair):
    words = ["--attack", pair[0], "--against", pair[1], "--global_variance", "--resamples", 5]
    assert mico("evaluate", participants, *words, "--json", "e.json")[::2] == (0, "")
    (found,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
    names = {"eb", "first-principles --global_variance"}
    assert {attack["name"] for attack in found["attacks"]} == names


@pytest.mark.slow
def test_what_was_measured_is_kept_when_a_study_fails(participants, mico, tmp_path):
    write_attack("if not problem.targets_in_shadows: raise ZeroDivisionError")
    words = ["--attack", "mine.py:attack", "--resamples", 5, "--json", "e.json", "--csv", "e.csv"]
    code, printed, errors = mico("evaluate", participants, *words, "--shadows", "4")
    assert code == 1 and "mine.py:attack failed: ZeroDivisionError" in errors
    assert "gain over winner-best" in printed and "by the number of shadow" not in printed
    (found,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
    assert len(found["attacks"]) == 2 and found["study"] == []
    assert "mine.py:attack" in (tmp_path / "e.csv").read_text()


@pytest.mark.slow
def test_what_was_measured_is_kept_when_another_scenario_fails(participants, mico, tmp_path):
    folder = shutil.copytree(participants, tmp_path / "digits")
    shutil.copytree(folder / "digits_inf/train", folder / "digits_lo/train")
    (folder / "digits_lo/train/model_3/model.pt").write_bytes(b"damaged")
    words = ["--attack", "eb", "--against", "threshold", "--resamples", 5, "--shadows", "4"]
    code, printed, errors = mico("evaluate", folder, *words, "--json", "e.json")
    assert code == 1 and "digits_lo/train/model_3" in errors and "eb, 4 shadows" in printed
    (found,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
    assert found["scenario"] == "digits_inf" and len(found["study"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--shadows 4,40", "shadow models from 2 to 9 to study attack mine.py:attack, got 4, 40"),
        ("--shadows 2 --attack eb", "shadow models from 3 to 9 to study attack eb, got 2"),
        ("--csv .", ". is a folder: name the file to write"),
        ("--json mine.py/e.json", "mine.py/e.json cannot be written, because of"),
        ("--csv e --html ./e", "different files for --csv, --json and --html"),
        ("--attack ./mine.py:attack", "two named mine.py:attack: give each once"),
    ],
)
def test_what_cannot_be_is_said_before_any_attack_runs(participants, mico, words, message):
    write_attack("open('ran', 'w').close()")
    code, _, errors = mico("evaluate", participants, "--attack", "mine.py:attack", *words.split())
    assert code == (2 if words.startswith(("--csv", "--json")) else 1)
    assert message in errors and not Path("ran").exists()
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["attack", "evaluate"])
def test_an_attack_that_wants_all_records_gets_them(participants, mico, verb):
    write_attack(
        "assert problem.told.shape[1] == 1797 and problem.columns.shape[1] == 200",
        after="attack.all_records = True",
    )
    words = [verb, participants, "--attack", "mine.py:attack", "--phase", "train"]
    words += ["--predictions", "p/digits"] if verb == "attack" else ["--resamples", 10]
    assert mico(*words)[::2] == (0, "")


def leaky(problem):
    return problem.known_membership[problem.targets[:, None], problem.columns]


def test_a_leak_is_refused(participants, mico):
    words = ["--attack", f"{__file__}:leaky", "--resamples", 10]
    code, _, errors = mico("evaluate", participants, *words)
    assert code == 1 and errors.startswith(f"mico: Attack {__file__}:leaky leaks")
    code, _, errors = mico("attack", participants, "--attack", f"{__file__}:leaky")
    assert code == 1 and "leaks" in errors
    assert not list(participants.rglob("prediction.csv"))


SPY = """
from mico_competition.attacks import calibrate


def attack(problem):
    try:
        print(open({path!r}).read())
    except PermissionError:
        return problem.gather("logit").score(calibrate, centre="out")
    return problem.columns
"""


@pytest.mark.slow
@pytest.mark.skipif(not landlock.version(), reason="no Landlock on this system")
@pytest.mark.parametrize("verb", ["evaluate", "attack", "audit"])
def test_a_strangers_file_is_isolated(small_fleet, mico, tmp_path, verb):
    """It runs as it would here, but for the solution that it looks for."""
    path = small_fleet / "digits_inf/dev/model_100/solution.csv"
    Path("spy.py").write_text(SPY.format(path=str(path)))
    words = {
        "evaluate": [
            small_fleet,
            "--attack",
            "spy.py:attack",
            "--resamples",
            5,
            "--json",
            "e.json",
        ],
        "attack": ["spy.py:attack", small_fleet, "--phase", "dev", "--predictions", "p/digits"],
        "audit": [small_fleet, "--attack", "spy.py:attack"],
    }[verb]
    code, printed, errors = mico(verb, *words, "--isolate")
    assert (code, errors) == (0, "") and path.read_text()[:20] not in printed
    if verb == "evaluate":
        (found,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
        assert found["attacks"][1]["name"] == "spy.py:attack"
        assert found["attacks"][1]["metrics"]["AUC"]["value"] > 0.6


@pytest.mark.slow
def test_no_row_depends_on_the_others(participants, mico, tmp_path):
    """`joint` wants signals of all records; `eb` beside it is as by itself."""
    found = {}
    for names in (["eb"], ["joint"], ["joint", "eb"], ["eb", "joint"]):
        words = [word for name in names for word in ("--attack", name)]
        flags = ["--resamples", 5, "--blind_check", "never", "--json", "e.json"]
        assert mico("evaluate", participants, *words, *flags)[::2] == (0, "")
        (values,) = json.loads((tmp_path / "e.json").read_text())["scenarios"]
        for attack in values["attacks"]:
            metrics = attack["metrics"], attack["gain"]
            assert found.setdefault(attack["name"], metrics) == metrics, names
            assert attack["models_used"] == 12 and attack["records_used"] > 1000
            assert (attack["records_used"] == 1797) == (attack["name"] == "joint")
    assert set(found) == {"winner-best", "eb", "joint"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate {} --phase dev", "digits_inf/dev/model_100 has no seed_"),
        ("evaluate {} --attack lora", "Unknown attack 'lora': did you mean lira?"),
        ("evaluate {} --against lora", "Unknown attack 'lora'"),
        ("evaluate {} --scenario digits_lo", "no train models of digits_lo"),
        ("evaluate {} --resamples 0", "resamples=0"),
        ("evaluate {} --folds 1 --attack quantile", "at least 2 folds"),
        ("evaluate {} --shadows 4,many", "Argument --shadows: expected a whole number, got 'many'"),
        ("evaluate {} --seed -1", "Argument --seed: expected a whole number from 0, got -1"),
        ("evaluate {} --attack nowhere.py:attack", "There is no file nowhere.py"),
        ("evaluate {} --online_attack", "--online_attack is an option of the attack first"),
        ("evaluate /nowhere/digits", "no challenge folder /nowhere/digits"),
        ("attack eb", "Name the folder to attack: mico attack eb FOLDER"),
        ("attack eb {} --attack rmia", "Expected one attack, got eb, rmia"),
        ("attack lora {}", "Unknown attack 'lora'"),
        ("attack lria", "There is no folder lria: name attack and folder, mico attack lira FOLDER"),
        ("attack mine.pi:attack {}", "Expected an attack's name or path/to/file.py:function"),
        ("attack mine.py {}", "Expected an attack's name or path/to/file.py:function"),
        ("attack nowhere.py:attack {}", "There is no file nowhere.py"),
        ("audit {} --attack lria", "Unknown attack 'lria': did you mean lira?"),
        ("attacks lria", "Unknown attack 'lria': did you mean lira?"),
        ("attack {} --global_variance", "is an option of the attack first-principles"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(participants, mico, words, message):
    code, _, errors = mico(*words.format(participants).split())
    failed = (
        "has no seed_",
        "no train models",
        "=0",
        "2 folds",
        "is no file",
        "no challenge folder",
    )
    assert code == (1 if any(part in message for part in failed) else 2) and message in errors
    assert errors.startswith("mico: ") and len(errors.strip().splitlines()) == 1
