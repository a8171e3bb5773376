"""`mico`: quick help, one sentence and exit code 1 for a mistake, verbs that do their work."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_extras import run_without_extras

from mico_competition.cli import build_parser, main
from mico_competition.competition.table import PUBLISHED, SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
MICO = Path(sys.executable).with_name("mico")
FAILURES = ("/nowhere", "no challenge folder", "Unknown", "(--competition", "ddp is no")


def test_help_imports_nothing_heavy_and_little_else():
    code = (
        "import sys; from mico_competition.cli import build_parser; build_parser().print_help();"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'opacus', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)), len(sys.modules), file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heavy, modules = finished.stderr.rsplit(" ", 1)
    assert "attack" in finished.stdout
    assert heavy == "[]" and int(modules) < 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train", "Give --scenario, or --task"),
        ("train --scenario cifar10_low", "Argument --scenario: invalid choice"),
        ("train --scenario cifar10_lo --batch_size 60000", "batch_size=60000"),
        ("train --scenario cifar10_lo --seed_training 5", "Give --seed_challenge and"),
        ("train --scenario digits_lo --model_id 100 --split_seed 1", "not for phase dev"),
        ("train --scenario digits_lo --model_id 0-3 --split_seed 1", "draws fresh seeds"),
        (
            "train --task digits --model_id 0-3 --disable_dp --optimizer sgd --learning_rate 1 "
            "--batch_size 9 --num_epochs 1",
            "needs --scenario",
        ),
        ("train --scenario digits_lo --model_id 3-0", "a range such as 0-99, got '3-0'"),
        (
            "train --scenario digits_lo --model_id 200",
            "dev 100 to 149, final 150 to 199",
        ),
        ("train --scenario purchase100_inf --model_id 0 --dataset_dir /nowhere", "/nowhere"),
        ("attack /nowhere/cifar10", "no challenge folder /nowhere/cifar10: `mico download cifar10"),
        ("check /nowhere/cifar10", "no challenge folder"),
        ("submit /nowhere", "no challenge folder"),
        ("score /nowhere/ddp", "no challenge folder"),
        ("release /nowhere --challenge ddp --to /tmp/x", "no challenge folder"),
        ("frobnicate", "invalid choice: 'frobnicate' (choose from demo, tracks"),
        ("attcks", "invalid choice: 'attcks' (did you mean attacks, attack or tracks?)"),
        ("AUDIT_TRAIN digits_lo", "did you mean audit-train?)"),
        ("fleet purchase100_ifn", "'purchase100_ifn' (did you mean purchase100_inf?)"),
        ("fleet statsu x", "'statsu' (did you mean status?)"),
        ("train --scenario digits_low", "'digits_low' (did you mean digits_lo, digits_hi or"),
        ("train --task purchse100", "(did you mean purchase100?)"),
        ("evaluate x --phase devv", "'devv' (did you mean dev?)"),
        ("release x --challenge cifar --to y", "(did you mean cifar10?)"),
        ("download mine --repo a/b", "Unknown challenge 'mine': choose one of cifar10, "),
        ("download mine --repo a/b", "name the competition that has it (--competition FILE)."),
        ("download cifra10", "(--competition FILE); did you mean cifar10?"),
        ("download sst2 --scenario ddp", "ddp is no scenario of sst2: choose among sst2_hi, "),
        ("leaderboard biuld", "(did you mean build?)"),
        (
            "train --senario digits_lo",
            "Unrecognized argument '--senario': did you mean --scenario? ",
        ),
        ("submit purchase100 --out x.zip", "'--out': did you mean --zip? "),
        ("bundle --chalenge=digits", "did you mean --challenge? See mico bundle --help."),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(arguments, message, capsys):
    try:
        code = main(arguments.split())
    except SystemExit as leave:
        code = leave.code
    captured = capsys.readouterr()
    assert code == (1 if any(word in message for word in FAILURES) else 2)
    assert message in captured.err
    sentence = captured.err
    if " " not in arguments and code == 2:  # nothing was given: the usage line stands first
        usage, _, sentence = captured.err.rpartition("mico: ")
        assert usage.startswith(f"usage: mico {arguments} ") or not usage
        sentence = f"mico: {sentence}"
    assert sentence.startswith("mico: ")
    assert "Traceback" not in sentence
    assert len(sentence.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_dry_run_prints_the_resolved_settings(scenario, capsys):
    if SCENARIOS[scenario].private and scenario != "sst2_lo":
        pytest.skip("the search for the noise takes seconds; one private row is enough")
    assert main(["train", "--scenario", scenario, "--dry_run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    row = SCENARIOS[scenario]
    assert (plan["learning_rate"], plan["batch_size"]) == (row.learning_rate, row.batch_size)
    assert ("noise_multiplier" in plan) == row.private


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cifar10", "purchase100", "sst2"])
def test_the_scripts_of_2022_take_2022s_flags(task):
    flags = (
        "--model_id 0 --train_seed 1 --split_seed 2 --len_training 300 --len_challenge 100 "
        "--disable_dp --batch_size 32 --max_physical_batch_size 16 --num_epochs 2 "
        "--learning_rate 0.1 --lr_scheduler_gamma 0.9 --lr_scheduler_step 1 --optimizer sgd "
        "--dataset_dir . --output_dir out --dry_run"
    ).split()
    script = ROOT / "training" / f"train_{task}.py"
    finished = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    plan = json.loads(finished.stdout)
    assert (plan["task"], plan["len_training"], plan["disable_dp"]) == (task, 300, True)


def test_every_official_scenario_has_a_launcher():
    for name, row in SCENARIOS.items():
        if row.challenge in PUBLISHED:
            text = (ROOT / "training" / f"train_{name}.sh").read_text()
            assert f"train_{row.task}.py" in text and f"--scenario {name} " in text
            assert len(text.splitlines()) == 2


@pytest.mark.slow
def test_predictions_are_checked_without_importing_torch(competition, tmp_path):
    program = (
        "import sys\n"
        "from mico_competition.cli import main\n"
        f"main(['check', {str(competition.released / 'cifar10')!r}, '--predictions', 'none'])\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert found.stdout.splitlines()[-1] == "False", found


@pytest.mark.slow
def test_the_verbs_work_on_a_released_challenge(competition, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    challenge = str(competition.released / "cifar10")
    predictions = str(tmp_path / "predictions" / "cifar10")
    data = ["--dataset_dir", str(competition.datasets)]
    assert main(["attack", challenge, "--predictions", predictions, *data]) == 0
    assert main(["check", challenge, "--predictions", predictions]) == 0
    assert main(["submit", challenge, "--predictions", predictions]) == 0
    assert main(["check", challenge, "--zip", "predictions_cifar10.zip"]) == 0
    assert main(["score", challenge, "--predictions", predictions, "--html", "page.html"]) == 0
    printed = capsys.readouterr().out
    assert "Wrote predictions of threshold for 12 models" in printed
    assert "ready to submit" in printed
    assert "TPR at 10% FPR" in printed
    lines = printed[printed.index("\nscenario ") :].splitlines()[1:]
    assert lines[0].split() == ["scenario", "cifar10_inf", "cifar10_hi", "cifar10_lo", "average"]
    assert re.split("  +", lines[1].strip()) == ["No DP", "High ε = 10", "Low ε = 4"]
    assert [line[:19].strip() for line in lines[2:11]] == [
        *("TPR at 10% FPR", "95% interval", "", "TPR at 0.1% FPR", "TPR at 1% FPR"),
        *("TPR at 5% FPR", "TPR at 15% FPR", "TPR at 20% FPR", "AUC"),
    ]
    assert max(map(len, lines)) <= 100
    assert "cifar10_lo" in (tmp_path / "page.html").read_text()
    (tmp_path / "predictions/cifar10/cifar10_lo/dev/model_100/prediction.csv").unlink()
    assert main(["check", challenge, "--predictions", predictions]) == 1
    captured = capsys.readouterr()
    assert "1 fault\n" in captured.out
    assert "cifar10_lo/dev/model_100/prediction.csv" in captured.err


def test_a_range_of_ids_trains_them_all(tmp_path, capsys):
    flags = ["--num_epochs", "1", "--output_dir", str(tmp_path), "--train_seed", "3"]
    assert main(["train", "--scenario", "digits_inf", "--model_id", "99-101", *flags]) == 0
    assert capsys.readouterr().out.count("evaluation accuracy") == 3
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("digits/*/*/*"))
    assert found == [
        "digits/digits_inf/dev/model_100",
        "digits/digits_inf/dev/model_101",
        "digits/digits_inf/train/model_99",
    ]
    seeds = {(tmp_path / f / "seed_membership").read_text() for f in found}
    assert len(seeds) == 3


def test_train_takes_a_scenario_without_its_flag(capsys):
    parse = build_parser().parse_args
    for line in ("train digits_inf --model_id 3", "train --scenario digits_inf --model_id 3"):
        assert parse(line.split()).scenario == "digits_inf"
    assert parse("train --task digits --output_dir m".split()).scenario is None
    assert parse("train --model_id 3 digits_inf".split()).scenario == "digits_inf"
    with pytest.raises(SystemExit, match="2"):
        main("train digits_inf --scenario digits_lo --model_id 3".split())
    assert "Name one scenario, not both digits_inf and digits_lo" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main("train digit_inf --model_id 3".split())
    assert "did you mean digits_inf, " in capsys.readouterr().err


def test_every_verb_has_a_help_text():
    for action in build_parser()._actions:
        if action.dest == "verb":
            assert all(choice.help for choice in action._choices_actions)
            assert len(action.choices) == len(action._choices_actions) >= 9


@pytest.mark.slow
def test_the_core_install_is_enough_to_attack_and_submit(competition, tmp_path):
    challenge, data = competition.released / "purchase100", competition.datasets
    predictions = tmp_path / "predictions" / "purchase100"
    folders = [str(challenge), "--predictions", str(predictions)]
    zip_path = str(tmp_path / "a.zip")
    finished = run_without_extras(
        "from mico_competition.cli import main;"
        f"codes = [main(['attack', *{folders!r}, '--dataset_dir', {str(data)!r}]),"
        f"main(['check', *{folders!r}]), main(['submit', *{folders!r}, '--zip', {zip_path!r}])];"
        "print(codes)"
    )
    assert finished.stdout.splitlines()[-1] == "[0, 0, 0]", finished.stderr


@pytest.mark.slow
def test_a_missing_extra_is_named_with_the_line_that_mends_it():
    finished = run_without_extras(
        "from mico_competition.cli import main;"
        "main(['train', '--scenario', 'digits_lo', '--dry_run', '--quiet'])"
    )
    assert finished.stderr.startswith("mico: opacus is not installed: `pip install -e '.[train]'`")
    assert len(finished.stderr.splitlines()) == 1
