"""The ledger: drawn once, kept for ever, its owner's alone; and what a second run is refused."""

import json
import re
import stat
from dataclasses import replace
from functools import partial
from importlib.resources import files

import pytest
import torch
from helpers_models import large_weights
from torch.nn.functional import cross_entropy

from mico_competition.cli import main
from mico_competition.competition import challenge
from mico_competition.competition.splits import Seeds
from mico_competition.competition.table import get_scenario, using
from mico_competition.fleets.ledger import Entry, Ledger
from mico_competition.fleets.status import fleet_states
from mico_competition.models import architectures as models
from mico_competition.models.architectures import MLP
from mico_competition.training import train
from mico_competition.training.settings import resolve, stated_by

SHORT = ["--num_epochs", "1", "--threads", "1", "--workers", "1"]


def ledger(out, scenario="digits_lo", **changes):
    settings = resolve({"scenario": scenario, **changes.pop("flags", {})})
    return Ledger(out, settings, "0" * 64, changes.pop("splits_of_2022", False))


def test_a_line_holds_all_that_a_model_needs_and_reads_back():
    seeds = Seeds(bytes(range(16)), bytes(16), b"\xff" * 16)
    entry = Entry(107, seeds, 2**62)
    assert json.loads(entry.line("dev")) == {
        "model_id": 107,
        "phase": "dev",
        "seed_challenge": "000102030405060708090a0b0c0d0e0f",
        "seed_training": "0" * 32,
        "seed_membership": "f" * 32,
        "train_seed": 2**62,
        "secure_mode": False,
    }
    assert Entry.of_line(entry.line("dev")) == entry
    assert str(2**62) not in repr(entry) and "000102" not in repr(entry)


def test_a_secure_model_has_no_train_seed():
    entry = Entry.draw(0, secure_mode=True, splits_of_2022=False)
    assert entry.train_seed is None and json.loads(entry.line("dev"))["secure_mode"] is True


def test_seeds_are_fresh_and_keyed_unless_asked_otherwise(tmp_path):
    entries = ledger(tmp_path).with_models(range(40)).entries
    assert all(entry.seeds.keyed for entry in entries)
    assert len({seed for e in entries for seed in vars(e.seeds).values()}) == 120
    assert len({entry.train_seed for entry in entries}) == 40
    old = ledger(tmp_path, splits_of_2022=True).with_models([0]).entries[0]
    assert not old.seeds.keyed


def test_more_models_leave_the_lines_there_are(tmp_path):
    first = ledger(tmp_path).with_models([3, 1])
    first.write()
    more = Ledger.read(tmp_path, "digits_lo").with_models(range(6))
    assert [entry.model_id for entry in more.entries] == [0, 1, 2, 3, 4, 5]
    assert [e for e in more.entries if e.model_id in (1, 3)] == list(first.entries)
    more.write()
    assert Ledger.read(tmp_path, "digits_lo") == more


def test_only_the_owner_reads_it(tmp_path):
    written = ledger(tmp_path).with_models([0])
    written.write()
    written.write()
    for name in ("ledger.jsonl", "settings.json"):
        assert stat.S_IMODE((written.folder / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"seed_training"', '"seed"'),
        lambda text: text.replace('"model_id": 0', '"model_id": "0"'),
    ],
)
def test_a_damaged_ledger_is_named_and_not_quoted(tmp_path, damage):
    written = ledger(tmp_path).with_models([0])
    written.write()
    file = written.folder / "ledger.jsonl"
    file.write_text(damage(file.read_text()))
    with pytest.raises(ValueError, match=r"restore settings\.json and ledger\.jsonl") as error:
        Ledger.read(tmp_path, "digits_lo")
    assert str(written.entries[0].train_seed) not in str(error.value)


def fleet(out, *flags, scenario="digits_inf"):
    return main(["fleet", scenario, "--out", str(out), *SHORT, *flags])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--learning_rate", "0.1"], "was begun with --learning_rate 0.002, not 0.1"),
        (["--secure_mode"], "was begun with --secure_mode False, not True"),
        (["--precision", "bfloat16"], "was begun with --precision float32, not bfloat16"),
        (["--splits_of_2022"], "has keyed splits: leave --splits_of_2022 out"),
    ],
)
def test_a_second_run_with_other_settings_is_refused(tmp_path, capsys, flags, sentence):
    assert fleet(tmp_path, "--models", "0", scenario="digits_lo") == 0
    assert fleet(tmp_path, "--models", "0-1", *flags, scenario="digits_lo") == 1
    assert sentence in capsys.readouterr().err
    assert [state.total for state in fleet_states(tmp_path)] == [1]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epsilon = 4", "epsilon = 0.5", "digits_lo stated target_epsilon = 4.0 (now 0.5): put"),
        ("max_grad_norm = 1.0", "max_grad_norm = 2.5", "stated max_grad_norm = 1.0 (now 2.5): put"),
        ("rate = 0.002", "rate = 0.1", "digits_lo stated learning_rate = 0.002 (now 0.1): put"),
        (
            "rate = 0.002",
            'rate = 0.002\nprecision = "tf32"',
            "digits_lo stated precision = float32 (now tf32): put",
        ),
        ("[0, 99]", "[1, 99]", "ledger.jsonl has model_0 in phase train, and "),
    ],
)
def test_a_second_run_with_another_row_or_range_in_the_file_is_refused(
    tmp_path, capsys, old, new, sentence
):
    file, out = tmp_path / "own.toml", tmp_path / "out"
    text = (files("mico_competition.competition") / "digits.toml").read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    with using(file):
        stated = stated_by(get_scenario("digits_lo"))
        begun = replace(ledger(out, flags={"num_epochs": 1}), stated=stated).with_models([0])
        begun.write()
        assert Ledger.read(out, "digits_lo") == begun
    file.write_text(text.replace(old, new), encoding="utf-8")
    assert fleet(out, "--models", "1", "--competition", str(file), scenario="digits_lo") == 1
    complaint = capsys.readouterr().err
    assert sentence in complaint and str(file) in complaint


def test_a_fleet_that_was_begun_before_there_were_precisions_is_of_float32(tmp_path):
    begun = replace(ledger(tmp_path), stated=stated_by(get_scenario("digits_lo"))).with_models([0])
    begun.write()
    file = begun.folder / "settings.json"
    old = json.loads(file.read_text())
    assert old["settings"].pop("precision") == old["stated"].pop("precision") == "float32"
    file.write_text(json.dumps(old))
    assert Ledger.read(tmp_path, "digits_lo") == begun


def doubled(levels):
    return levels.float() / 8


def test_a_second_run_with_other_data_is_refused(tmp_path, capsys, monkeypatch):
    assert fleet(tmp_path, "--models", "0") == 0
    monkeypatch.setattr("mico_competition.data.arrays.sixteenths", doubled)
    monkeypatch.setattr("mico_competition.data.datasets.sixteenths", doubled)
    assert fleet(tmp_path, "--models", "0") == 1
    assert "The dataset is not the one" in capsys.readouterr().err


def test_a_model_of_somebody_else_is_not_taken_for_ours(tmp_path, capsys):
    train = "train --scenario digits_inf --model_id 2 --num_epochs 1 --output_dir".split()
    assert main([*train, str(tmp_path)]) == 0
    assert fleet(tmp_path, "--models", "0-3") == 1
    assert "does not have the seeds of the ledger" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("digits_lo --models 0-3", "Give --out, the folder to write into."),
        ("digits_lo --out x --models 200", "Unknown model id 200"),
        ("digits_lo --out x --models 3-1", "expected a number or a range"),
        ("digits_lo --out x --models 0 --workers 0", "Expected --workers 0 >= 1"),
        ("digits_lo --out x --models 0 --retries -1", "Expected --retries -1 >= 0"),
        ("digits_lo x --out x --models 0", "one argument too many"),
        ("digits_lo --out x --models 0 --gpus_per_task 1", "--gpus_per_task is for --ray"),
        ("status", "Name the folder"),
        ("status nowhere", "There is no fleet in nowhere"),
        ("digits_inf --out x --models 0 --secure_mode", "--secure_mode is for private training"),
    ],
)
def test_mistakes_are_sentences(tmp_path, capsys, monkeypatch, line, sentence):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["fleet", *line.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == (1 if "nowhere" in line else 2)
    error = capsys.readouterr().err.replace("usage: mico fleet SCENARIO [DIR ...] [options]\n", "")
    assert sentence.lower() in error.lower() and error.count("\n") == 1
    assert not list(tmp_path.rglob("ledger.jsonl"))


def test_what_a_killed_run_was_writing_is_cleared(tmp_path):
    fleet = ledger(tmp_path).with_models(range(2))
    fleet.write()
    place = fleet.folder_of(0).parent
    left = [place / ".model_0.abc", fleet.folder / ".ledger.jsonl.abc"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "half").write_text("written")
    fleet.clear_leftovers()
    assert not any(folder.exists() for folder in left)
    kept = Ledger.read(tmp_path, "digits_lo")
    assert kept is not None and kept.entries == fleet.entries


def doubled_lines(out, how):
    """A ledger of two models with a line too many."""
    written = ledger(out).with_models([0, 1])
    written.write()
    file = written.folder / "ledger.jsonl"
    first, second = file.read_text().splitlines(True)
    file.write_text(how(first, second))
    return written


@pytest.mark.parametrize(
    "how",
    [
        lambda a, b: a + b + a,
        lambda a, b: b + a + a + b,
        lambda a, b: a + "\n" + b + "   \n",
        lambda a, b: a.replace(", ", ",") + b + a,  # the same values in other spaces
    ],
)
def test_a_line_that_is_there_twice_counts_once(tmp_path, how):
    written = doubled_lines(tmp_path, how)
    found = Ledger.read(tmp_path, "digits_lo")
    assert found is not None and found.entries == written.entries
    assert [state.total for state in fleet_states(tmp_path)] == [2]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (lambda a, b: a + b + b.replace('"model_id": 1', '"model_id": 0'), "model_0 twice"),
        (
            lambda a, b: a + b + b.replace('"model_id": 1', '"model_id": 2'),
            "model_1 and model_2 with the same seeds",
        ),
        (lambda a, b: a + b.replace('"model_id": 1', '"model_id": 999'), "restore settings.json"),
        (lambda a, b: a + b.replace('"model_id": 1', '"model_id": true'), "restore settings.json"),
        (lambda a, b: a + "null\n", "restore settings.json"),
        (lambda a, b: a + "[" * 100_000 + "\n", "restore settings.json"),
    ],
)
def test_lines_that_contradict_each_other_are_refused(tmp_path, how, sentence):
    doubled_lines(tmp_path, how)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Ledger.read(tmp_path, "digits_lo")


@pytest.mark.slow
def test_a_second_run_with_other_code_is_refused(tmp_path, capsys, monkeypatch):
    assert fleet(tmp_path, "--models", "0") == 0
    monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", lambda: MLP(64, 256, 10, gain=1.0))
    assert fleet(tmp_path, "--models", "0-1") == 1
    error = capsys.readouterr().err
    assert "The code has changed since the fleet in" in error and "digits_mlp" in error
    assert [state.total for state in fleet_states(tmp_path)] == [1]


class Decaying(torch.optim.Adam):
    def __init__(self, parameters, lr):
        super().__init__(parameters, lr, weight_decay=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["optimiser", "schedule", "first weights", "loss", "splits"])
def test_a_second_run_that_would_train_in_another_way_is_refused(
    tmp_path, capsys, monkeypatch, change
):
    """Under the same settings, by an edit of the code."""
    assert fleet(tmp_path, "--models", "0", "--lr_scheduler_gamma", "0.9") == 0
    if change == "optimiser":
        monkeypatch.setitem(train._OPTIMIZERS, "adam", Decaying)
    elif change == "schedule":
        original = torch.optim.lr_scheduler.StepLR
        monkeypatch.setattr(
            torch.optim.lr_scheduler,
            "StepLR",
            lambda optimizer, step_size, gamma: original(optimizer, step_size, gamma**2),
        )
    elif change == "loss":
        smooth = partial(cross_entropy, label_smoothing=0.5)
        monkeypatch.setattr("mico_competition.training.losses.cross_entropy", smooth)
    elif change == "splits":
        original = challenge.permutation
        monkeypatch.setattr(challenge, "permutation", lambda *args: original(*args).flip(0))
    else:
        monkeypatch.setitem(models.ARCHITECTURES, "digits_mlp", large_weights)
    assert fleet(tmp_path, "--models", "0-1") == 1
    assert "gradients, steps or first weights are others now" in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_run_with_other_noise_is_refused(tmp_path, capsys, monkeypatch):
    """Under the same target, by an edit of the accountant."""
    assert fleet(tmp_path, "--models", "0", scenario="digits_lo") == 0
    original = train.mechanism_of

    def half(settings):
        mechanism = original(settings)
        assert mechanism is not None
        return replace(mechanism, noise_multiplier=0.5)

    monkeypatch.setattr(train, "mechanism_of", half)
    assert fleet(tmp_path, "--models", "0-1", scenario="digits_lo") == 1
    assert "and the accountant now gives 0.5 for the same target" in capsys.readouterr().err
