"""What a fleet will cost, against what a small one took."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers_competition import write_own

from mico_competition.cli import main
from mico_competition.cli.fleet_plan import lines, values
from mico_competition.competition.table import using
from mico_competition.data.datasets import load_dataset
from mico_competition.fleets import clock as clock_module
from mico_competition.fleets import trial as trial_module
from mico_competition.fleets.cost import Cost, cost
from mico_competition.fleets.power import PowerReading
from mico_competition.fleets.trial import Trial, trial
from mico_competition.training import train, train_stack
from mico_competition.training.settings import resolve

FILES = {"model.pt": 1000, "metadata.json": 10}
SIZES = dict.fromkeys(("trained", "train", "dev", "final"), FILES)


def made_up(**changes):
    """A trial of four models at once that took 2 s a step after 10 s."""
    values = {
        "stack": 4,
        "steps": 5,
        "step_seconds": 2.0,
        "begin_seconds": 10.0,
        "worker_seconds": 0.0,
        "memory": 10**9,
    }
    return Trial(**{**values, "device": "cpu", "threads": 1, "files": SIZES, **changes})


def test_times_and_sizes_of_a_made_up_trial():
    settings = resolve({"scenario": "digits_inf"})
    found = cost(settings, made_up(), range(10), missing=10, workers=2)
    block = 10 + 2 * settings.num_steps  # two blocks of four models, and one of two
    assert found.worker_seconds == 2.5 * block and found.wall_seconds == 1.5 * block
    assert found.disk["training"] == 10 * 1010 and found.disk["release"] == 10 * 1010
    assert found.disk["archives"] > found.disk["release"] and found.gpu_hours == 0
    assert found.memory == 2 * 10**9 and found.bound.startswith("the CPUs")
    some = cost(settings, made_up(), range(10), missing=4, workers=2)
    assert some.disk["training"] == 4 * 1010 and some.worker_seconds == block
    assert some.bound.startswith("the time of one model")
    none = cost(settings, made_up(), range(10), missing=0)
    assert (none.wall_seconds, none.disk["training"]) == (0, 0)


def test_energy_is_told_if_a_gpus_power_is_known():
    settings = resolve({"scenario": "digits_inf"})
    found = cost(settings, made_up(device="cuda", watts=400.0), range(10), workers=2)
    assert found.kilowatt_hours == pytest.approx(0.4 * found.worker_seconds / 3600)
    assert found.kilowatt_hours == pytest.approx(0.4 * found.gpu_hours)
    assert values(found)["gpu_kilowatt_hours"] == found.kilowatt_hours
    assert "kWh: a GPU drew 400 W" in "\n".join(lines(found, "digits_inf"))
    unknown = cost(settings, made_up(), range(10))
    assert unknown.kilowatt_hours is None and "kWh" not in "\n".join(lines(unknown, "digits_inf"))


@pytest.mark.parametrize(
    ("prints", "read"), [("echo 412.50", 412.5), ("echo '[N/A]'", None), ("exit 6", None)]
)
def test_power_is_what_nvidia_smi_prints(tmp_path, monkeypatch, prints, read):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{prints}\n')
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    reading = PowerReading("GPU-1")
    assert reading.watts() is None, "nothing was begun"
    reading.begin()
    reading.begin()
    assert reading.watts() == read
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("-i GPU-1 --query-gpu=power.draw ")


def test_no_power_is_read_without_a_gpu_or_its_tool(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for reading in (PowerReading.of(torch.device("cpu")), PowerReading("GPU-1")):
        reading.begin()
        assert reading.watts() is None


@pytest.mark.parametrize(
    ("changes", "missing", "said"),
    [
        ({"memory": 2**60}, 10, "memory: at most 1 of the 2 workers fit"),
        ({"files": {**SIZES, "train": {"model.pt": 2**60}}}, 10, "the disk, which has less space"),
    ],
)
def test_memory_and_disk_bound_a_fleet(tmp_path, changes, missing, said):
    settings = resolve({"scenario": "digits_inf"})
    out = tmp_path / "not" / "there" / "yet"
    found = cost(settings, made_up(**changes), range(10), missing=missing, workers=2, out=out)
    assert found.bound.startswith(said) and isinstance(found, Cost)
    assert said in " ".join(" ".join(lines(found, "digits_inf")).split())


@pytest.mark.parametrize(("scenario", "stack"), [("digits_inf", 1), ("digits_inf", 3)])
def test_a_trial_stops_in_time_and_leaves_torch_as_it_was(scenario, stack):
    settings = resolve({"scenario": scenario})
    data = load_dataset("digits")
    short = trial(settings, data, stack=stack, seconds=0.0, longest=0.0)
    assert short.steps == 3 and short.stack == stack and short.step_seconds > 0
    whole = trial(resolve({"scenario": scenario, "num_epochs": 1}), data, seconds=1e9)
    assert whole.steps == 4 and whole.memory > 10**7
    assert set(whole.files["trained"]) > set(whole.files["dev"])
    enough = trial(resolve({"scenario": scenario, "num_epochs": 10}), data, seconds=0.0)
    assert enough.steps == 20, "if they do not take too long"


@pytest.fixture
def takes(monkeypatch):
    """Lets calls of a function take so many seconds more, by the clocks of a trial."""
    spent = [0.0]
    late = SimpleNamespace(perf_counter=lambda: time.perf_counter() + spent[0])
    for module in (clock_module, trial_module):
        monkeypatch.setattr(module, "time", late)

    def add(module, name, seconds):
        whole, calls = getattr(module, name), []

        def slow(*arguments, **options):
            calls.append(arguments)
            spent[0] += seconds
            return whole(*arguments, **options)

        monkeypatch.setattr(module, name, slow)
        return calls

    return add


@pytest.mark.parametrize("stack", [1, 3])
def test_a_fleet_writes_no_release(takes, stack):
    """One folder of each model takes time of a fleet, and what a release holds takes disk only."""
    takes(trial_module, "write_model_folder", 10_000)
    takes(trial_module, "write_public_files", 10_000)
    settings, data = resolve({"scenario": "digits_inf"}), load_dataset("digits")
    found = trial(settings, data, stack=stack, seconds=0.0, longest=0.0)
    assert found.begin_seconds == pytest.approx(10_000 * stack, abs=500)
    assert found.written_seconds == pytest.approx(10_000, abs=500)
    again = trial(settings, data, stack=stack, seconds=0.0, longest=0.0, like=found)
    assert again.files == found.files
    assert again.begin_seconds == pytest.approx(found.begin_seconds, abs=500)


def test_nothing_is_written_for_a_trial_like_an_earlier_one(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("written")

    settings, data = resolve({"scenario": "digits_lo"}), load_dataset("digits")
    first = trial(settings, data, seconds=0.0, longest=0.0)
    monkeypatch.setattr(trial_module, "write_model_folder", refuse)
    second = trial(settings, data, stack=2, seconds=0.0, longest=0.0, like=first)
    assert second.files == first.files and second.stack == 2


@pytest.mark.parametrize(("stack", "seconds"), [(1, 0.0), (3, 0.0), (1, 1e9), (3, 1e9)])
def test_the_draw_of_each_epoch_is_counted_once(takes, stack, seconds):
    """Also if the trial sees the first epoch only, and not twice if it sees several."""
    takes(train, "epoch_of", 10_000)
    takes(train_stack, "epoch_of", 10_000)
    settings = resolve({"scenario": "digits_lo", "num_epochs": 3})
    data = load_dataset("digits")
    found = trial(settings, data, stack=stack, seconds=seconds, longest=0.0)
    assert found.begin_seconds < 500
    whole = cost(settings, found, range(stack)).worker_seconds
    assert whole == pytest.approx(3 * 10_000 * stack, abs=1000)


def test_the_splits_of_each_model_are_counted_and_those_of_one_made(takes):
    calls = takes(trial_module, "splits_of", 10_000)
    settings, data = resolve({"scenario": "digits_inf"}), load_dataset("digits")
    found = trial(settings, data, stack=3, seconds=0.0, longest=0.0)
    assert found.begin_seconds == pytest.approx(30_000, abs=500) and len(calls) == 1


def size_of(*folders):
    return sum(path.stat().st_size for f in folders for path in f.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_small_fleet_costs_what_was_said(tmp_path, monkeypatch, capsys):
    """Sizes and counts to a hundredth; times are printed, since a loaded machine bends them."""
    monkeypatch.chdir(tmp_path)
    file = write_own(tmp_path / "mine", {"only": {"target_epsilon": float("inf")}})
    command = ["fleet", "only", "--out", "trained", "--workers", "1"]
    command += ["--quiet", "--competition", str(file)]
    assert main([*command, "--dry_run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert not Path("trained").exists()
    assert (plan["models"], plan["missing"], plan["steps"]) == (7, 7, 4)
    assert main([*command, "--models", "0,1"]) == 0
    assert main([*command, "--dry_run", "--json"]) == 0
    shown = capsys.readouterr().out
    again = json.loads(shown[shown.index("{") :])["plan"]
    assert (again["models"], again["missing"]) == (7, 5)
    assert main(command) == 0
    words = ["release", "trained", "--to", "released", "--competition", str(file)]
    assert main(words) == 0
    disk, released = plan["disk_bytes"], Path("released")
    trained = sum(size_of(p) for p in Path("trained/faces/only").iterdir())
    archives = released / "faces.release" / "archives"
    found = {
        "training": trained,
        "release": size_of(released / "faces"),
        "archives": sum(path.stat().st_size for path in archives.glob("*.zip")),
    }
    assert found == pytest.approx(disk, rel=0.01)
    with using(file):
        seconds = [
            json.loads(path.read_text())["wall_time_seconds"]
            for path in Path("trained/faces").rglob("metadata.json")
        ]
    print(f"predicted {plan['worker_hours'] * 3600:.2f} s, measured {sum(seconds):.2f} s")
