"""What --dry_run lets through trains; what cannot be trained it refuses with the same sentence."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers_models import write_base
from torch import nn

from mico_competition.cli import main
from mico_competition.models import architectures as models

FLAGS = "--scenario digits_lo --num_epochs 2 --split_seed 1 --target_epsilon 6".split()


class Mixing(nn.Module):
    """Two layers, and the batch's mean between them."""

    def __init__(self):
        super().__init__()
        self.below, self.above = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x):
        hidden = self.below(x)
        return self.above(torch.tanh(hidden - hidden.mean(0)))


def with_layer(*layers):
    return nn.Sequential(nn.Linear(64, 32), *layers, nn.Tanh(), nn.Linear(32, 10))


TRAINED = {
    "GroupNorm": lambda: with_layer(nn.GroupNorm(4, 32)),
    "RMSNorm": lambda: with_layer(nn.RMSNorm(32)),
    "InstanceNorm": lambda: with_layer(
        nn.Unflatten(1, (4, 8)), nn.InstanceNorm1d(4, affine=True), nn.Flatten()
    ),
    "Conv1d": lambda: with_layer(
        nn.Unflatten(1, (4, 8)), nn.Conv1d(4, 4, 3, padding=1), nn.Flatten()
    ),
    "in place": lambda: with_layer(nn.ReLU(inplace=True)),
    "PReLU": lambda: with_layer(nn.PReLU()),
    "two calls": lambda: with_layer(*[nn.Linear(32, 32)] * 2),
}
REFUSED = {
    "BatchNorm": (lambda: with_layer(nn.BatchNorm1d(32, affine=False)), "batch normalisation"),
    "mixing": (Mixing, "changes with the others of its batch, before layer above"),
}


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """Lines that depend on how fast the machine is."""
    monkeypatch.setenv("MICO_QUIET", "1")


def told(capsys, *arguments):
    """The exit code, what was printed, and the complaint."""
    try:
        code = main([*arguments])
    except SystemExit as leave:
        code = leave.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_what_a_dry_run_lets_through_trains(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", TRAINED[name])
    folder = tmp_path / "model"
    command = ["train", *FLAGS, "--output_dir", str(folder)]
    code, plan, _ = told(capsys, *command, "--dry_run")
    assert code == 0 and json.loads(plan)["checked"] == "settings, model, first records"
    assert not folder.exists()
    assert told(capsys, *command)[0] == 0
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["privacy"]["epsilon"] == json.loads(plan)["epsilon"] <= 6


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_with_the_same_sentence(
    name, monkeypatch, tmp_path, capsys
):
    make, message = REFUSED[name]
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", make)
    command = ["train", *FLAGS, "--output_dir", str(tmp_path / "model")]
    dry, real = told(capsys, *command, "--dry_run"), told(capsys, *command)
    assert dry[0] == real[0] == 1
    assert dry[2] == real[2]
    assert re.search(message, dry[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target_epsilon", "1000"], r"target_epsilon=1000.0 in (0, 500]"),
        (["--num_epochs", "1000000000000"], "take fewer steps"),
        (["--grad_sample_mode", "hook"], "Unknown grad_sample_mode 'hook'"),
        (["--len_training", "1790"], "1790"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_so_too(flags, message, tmp_path, capsys):
    command = ["train", *FLAGS, *flags, "--output_dir", str(tmp_path / "model")]
    dry, real = told(capsys, *command, "--dry_run"), told(capsys, *command)
    assert dry[0] == real[0] == 1
    assert dry[2] == real[2] and message in dry[2]


def test_a_folder_in_use_is_refused_so_too(tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    command = ["train", *FLAGS, "--output_dir", str(tmp_path)]
    dry, real = told(capsys, *command, "--dry_run"), told(capsys, *command)
    assert dry == real and "exists already" in dry[2]


IDS = "train --scenario digits_inf --num_epochs 1 --model_id".split()


def test_a_range_goes_on_behind_the_models_that_are_finished(tmp_path, capsys):
    out = ["--output_dir", str(tmp_path)]
    assert told(capsys, *IDS, "0-1", *out)[0] == 0
    first = tmp_path / "digits" / "digits_inf" / "train"
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert told(capsys, *IDS, "0-2", *out, "--dry_run")[0] == 0
    assert told(capsys, *IDS, "0-2", *out)[0] == 0
    assert sorted(path.name for path in first.iterdir()) == ["model_0", "model_1", "model_2"]
    assert {path: path.read_bytes() for path in before} == before
    for flags, message in (
        (["--learning_rate", "0.5"], "with learning_rate=0.002, and this command has learning_r"),
        (["--train_seed", "7"], "was trained with another train_seed: leave its id out, remove"),
        (["--max_physical_batch_size", "7"], "and this command has max_physical_batch_size=7"),
    ):
        code, _, complaint = told(capsys, *IDS, "0-3", *out, *flags)
        assert code == 1 and message in complaint
    code, _, complaint = told(capsys, *IDS, "1", *out, "--split_seed", "3")
    assert code == 1 and "with other split seeds: leave its id out" in complaint
    (first / "model_1" / "model.pt").write_bytes(b"")
    code, _, complaint = told(capsys, *IDS, "0-3", *out)
    assert code == 1 and "model_1/model.pt is empty" in complaint
    assert not (first / "model_3").exists()


def test_finished_models_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MICO_QUIET")
    for _ in range(2):
        code = main([*IDS, "4", "--output_dir", str(tmp_path)])
        printed = capsys.readouterr()
    assert code == 0 and "model_4 is finished: it is left as it is" in printed.out + printed.err


def test_a_model_without_a_place_is_refused_and_the_current_folder_kept(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    settings = "--task digits --disable_dp --optimizer sgd --learning_rate 0.1 --batch_size 9"
    for flags, choice in (
        (["--scenario", "digits_inf"], "Give --model_id or --output_dir."),
        ([*settings.split(), "--num_epochs", "1", "--model_id", "1"], "Give --output_dir."),
        (["--scenario", "digits_inf", "--output_dir", "."], "choose another --output_dir"),
    ):
        code, _, complaint = told(capsys, "train", *flags)
        assert code == (1 if "another" in choice else 2)
        assert choice in complaint and "remove" not in complaint
        assert list(Path.cwd().iterdir()) == []  # which fails in a directory that was replaced


def test_a_dry_run_says_what_it_could_not_check(tmp_path, capsys):
    flags = ["--disable_dp", "--optimizer", "sgd", "--learning_rate", "0.1", "--batch_size", "9"]
    base = write_base(tmp_path)
    for task, more, checked, word in (
        ("cifar10", ["--dataset_dir", str(tmp_path)], "settings, model", "--download"),
        ("sst2", [], "settings", "tokenised"),
        ("sst2", ["--model_name", base], "settings, model", "tokenised"),
    ):
        command = ["train", "--task", task, *flags, "--num_epochs", "1", *more, "--dry_run"]
        code, plan, complaint = told(capsys, *command)
        assert code == 0, complaint
        assert json.loads(plan)["checked"] == checked
        assert word in json.loads(plan)["not_checked"]
        assert complaint.startswith("mico: Not checked: the data. ") and word in complaint
        assert len(complaint.splitlines()) == 1
        if task == "cifar10":
            command = complaint.partition("`mico ")[2].partition("`")[0]
            assert command.endswith(f"--dataset_dir {tmp_path} --download --dry_run")
            assert command.startswith("train --task cifar10 --disable_dp --optimizer sgd ")
    code, plan, complaint = told(capsys, "train", "--scenario", "purchase100_inf", "--dry_run")
    assert "`mico train --scenario purchase100_inf --download --dry_run` fetches" in complaint


@pytest.mark.slow
def test_a_fleet_is_refused_at_the_door(monkeypatch, tmp_path, capsys):
    """Not once for each of its models, after hours."""
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", Mixing)
    command = ["fleet", "digits_lo", "--models", "0-1", "--out", str(tmp_path / "fleet")]
    code, _, complaint = told(capsys, *command, "--num_epochs", "2")
    assert code == 1 and "the others of its batch" in complaint
    assert not list((tmp_path / "fleet").rglob("*.jsonl"))
