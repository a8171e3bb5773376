"""A run that is killed goes on from its checkpoint, with the result of a run that was not."""

import json
import logging
import random
import signal
import stat

import numpy as np
import pytest
import torch
from helpers_resume import (
    PRIVATE,
    SEEDS,
    Killed,
    place,
    records,
    run,
    small_settings,
    stop_after,
    weights,
)

from mico_competition.competition.splits import Seeds
from mico_competition.support import files, stopping
from mico_competition.training import checkpoint as module
from mico_competition.training import checkpoint_facts
from mico_competition.training.checkpoint import BusyError, Checkpoint
from mico_competition.training.dpsgd import DPSGD
from mico_competition.training.private_checks import PrivacyChecks


@pytest.fixture(autouse=True)
def sound(monkeypatch):
    """These models are sound; the checks before a first step have tests of their own."""
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)


def killed(folder, settings, steps, **options):
    """Train until a kill after `steps` steps; nothing but a checkpoint may be left."""
    with pytest.raises(Killed):
        run(folder, settings, checkpoint=place(folder), progress=stop_after(steps), **options)
    assert not folder.exists()


def resume(folder, settings):
    """Go on from the checkpoint to the end, without writing others."""
    return run(folder, settings, checkpoint=place(folder, minutes=15))


@pytest.mark.parametrize(
    ("task", "scenario"),
    [
        *(("purchase100", "inf"), ("purchase100", "lo")),
        pytest.param("sst2", "inf", marks=pytest.mark.slow),
        pytest.param("sst2", "lo", marks=pytest.mark.slow),
        pytest.param("cifar10", "inf", marks=pytest.mark.slow),
        pytest.param("cifar10", "lo", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_twice_has_the_same_weights(tmp_path, task, scenario):
    settings = small_settings(tmp_path, task, scenario, train_seed=7)
    whole = run(tmp_path / "whole", settings)
    torch.manual_seed(99), np.random.seed(99), random.seed(99)  # another process has other states
    killed(tmp_path / "model", settings, 6)
    torch.manual_seed(98), np.random.seed(98), random.seed(98)
    killed(tmp_path / "model", settings, 10)
    resumed = resume(tmp_path / "model", settings)
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")
    assert resumed.pop("resumed") == 2 and "resumed" not in whole
    assert resumed["wall_time_seconds"] > 0
    for metadata in (resumed, whole):
        metadata.pop("wall_time_seconds")
    assert resumed == whole  # accuracy, epsilon and noise among them
    assert not place(tmp_path / "model").folder.exists()


@pytest.mark.parametrize(("scenario", "steps"), [("inf", 4), ("inf", 5), ("inf", 12), ("lo", 5)])
def test_the_end_of_an_epoch_is_as_good_a_moment_as_any(tmp_path, scenario, steps):
    flags = {"lr_scheduler_step": 1, "lr_scheduler_gamma": 0.5, "train_seed": 3}
    settings = small_settings(tmp_path, "purchase100", scenario, **flags)
    run(tmp_path / "whole", settings)
    killed(tmp_path / "model", settings, steps)
    resume(tmp_path / "model", settings)
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")


def test_all_generators_go_on_where_they_were(tmp_path, monkeypatch):
    """A loss that draws from all global generators stands for a model that does."""
    from mico_competition.training import plain_trainer as training

    drawn = []

    def losses(model, inputs, labels):
        scale = random.random() + np.random.random() + torch.rand(()).item()
        drawn.append(scale)
        return kept(model, inputs, labels) * scale

    kept = training.per_example_losses
    monkeypatch.setattr(training, "per_example_losses", losses)
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=3)
    random.seed(1), np.random.seed(1)
    run(tmp_path / "whole", settings)
    expected, drawn[:] = list(drawn), []
    random.seed(1), np.random.seed(1)
    killed(tmp_path / "model", settings, 6)
    del drawn[5:]  # the last step was taken after the last checkpoint
    random.seed(2), np.random.seed(2)
    resume(tmp_path / "model", settings)
    assert drawn == expected
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_opacus_modes_are_resumed_too(tmp_path, mode):
    settings = small_settings(tmp_path, "purchase100", "lo", train_seed=7, grad_sample_mode=mode)
    run(tmp_path / "whole", settings)
    killed(tmp_path / "model", settings, 6)
    resume(tmp_path / "model", settings)
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")


def test_a_run_without_train_seed_goes_on_with_its_own_random_numbers(tmp_path, monkeypatch):
    """Batches and noise are those that the killed run would have drawn: none is drawn twice."""
    steps = []
    taken = DPSGD.step

    def step(self, batch, inputs, labels):
        total = taken(self, batch, inputs, labels)
        steps.append((batch.tolist(), self.optimizer.generator.get_state().numpy().tobytes()))
        return total

    monkeypatch.setattr(DPSGD, "step", step)
    settings = small_settings(tmp_path, "purchase100", "lo")
    killed(tmp_path / "model", settings, 6)
    first, steps[:] = list(steps), []
    resume(tmp_path / "model", settings)
    assert (len(first), len(steps)) == (6, 7)  # the sixth step was taken after the last checkpoint
    assert steps[0] == first[5]  # and is repeated with the same batch and the same noise
    assert len({noise for _, noise in steps}) == 7


def test_secure_mode_goes_on_with_fresh_randomness(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "lo", secure_mode=True)
    killed(tmp_path / "model", settings, 6)
    state = torch.load(next(place(tmp_path / "model").folder.glob("*.pt")), weights_only=True)
    assert state["noise"] is None and state["sampling"] is None
    assert (state["epoch"], state["step"]) == (1, 1)
    metadata = resume(tmp_path / "model", settings)
    assert metadata["privacy"]["num_steps"] == 12
    assert metadata["privacy"]["noise_multiplier"] == PRIVATE.noise_multiplier


def test_every_planned_step_is_taken_exactly_once_from_each_state(tmp_path, monkeypatch):
    """Whenever it is killed, what is released is the end of one chain of all 12 steps."""
    taken = []
    step = DPSGD.step

    def counted(self, *arguments):
        taken.append(1)
        return step(self, *arguments)

    monkeypatch.setattr(DPSGD, "step", counted)
    settings = small_settings(tmp_path, "purchase100", "lo", secure_mode=True)
    for steps in (3, 5, 9):
        killed(tmp_path / "model", settings, steps)
    resume(tmp_path / "model", settings)
    assert len(taken) == 12 + 3  # each kill came before the checkpoint of the last step


def test_a_run_that_is_shorter_than_the_interval_writes_nothing(tmp_path, monkeypatch):
    settings = small_settings(tmp_path, "purchase100", "inf")
    with pytest.raises(Killed):
        checkpoint = place(tmp_path / "model", minutes=15)
        run(tmp_path / "model", settings, checkpoint=checkpoint, progress=stop_after(6))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Checkpoint, "remove", None)  # so nothing is to be removed either
    run(tmp_path / "model", settings, checkpoint=place(tmp_path / "model", minutes=15))
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_only_the_owner_can_read_a_checkpoint_and_one_state_is_kept(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "lo")
    killed(tmp_path / "model", settings, 6)
    folder = place(tmp_path / "model").folder
    assert {path.name for path in folder.iterdir()} == {"checkpoint.json", "lock", "state_5.pt"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.2}, "learning_rate=0.001, and this one has learning_rate=0.2"),
        ({"train_seed": 8}, "a run with another train_seed: go on with what that run had, or"),
        ({"num_epochs": 4}, "num_epochs=3, and this one has num_epochs=4"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change, message):
    killed(tmp_path / "model", small_settings(tmp_path, "purchase100", "inf", train_seed=7), 6)
    other = small_settings(tmp_path, "purchase100", "inf", **{"train_seed": 7, **change})
    with pytest.raises(ValueError, match=message) as error:
        run(tmp_path / "model", other, checkpoint=place(tmp_path / "model"))
    assert "remove the folder to train the model anew" in str(error.value)
    assert (place(tmp_path / "model").folder / "checkpoint.json").exists()


def test_a_checkpoint_of_other_seeds_data_code_or_software_is_refused(tmp_path, monkeypatch):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    killed(tmp_path / "model", settings, 6)
    folder, other = tmp_path / "model", Seeds(*(bytes([9 + i] * 16) for i in range(3)))
    with pytest.raises(ValueError, match="other split seeds") as error:
        run(folder, settings, checkpoint=place(folder), seeds=other)
    assert "0" * 32 not in str(error.value) and "09" * 16 not in str(error.value)
    changed = records("purchase100")
    changed.labels[0] = (changed.labels[0] + 1) % 100
    with pytest.raises(ValueError, match="another dataset"):
        run(folder, settings, checkpoint=place(folder), data=changed)
    with pytest.raises(ValueError, match="code that trains in another way"):
        run(folder, settings, checkpoint=place(folder, code="other code"))
    versions = {**checkpoint_facts.software_versions(), "torch": "9.0"}
    monkeypatch.setattr(checkpoint_facts, "software_versions", lambda: versions)
    with pytest.raises(ValueError, match=r"the version of torch=.*and this one has .*9\.0"):
        run(folder, settings, checkpoint=place(folder))


def test_none_is_refused_where_there_is_one(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    killed(tmp_path / "model", settings, 6)
    with pytest.raises(ValueError, match="leave --checkpoint_minutes 0 out to go on from it"):
        run(tmp_path / "model", settings, checkpoint=place(tmp_path / "model", minutes=0))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("checkpoint.json", "torn"), ("checkpoint.json", "empty")),
        *(("state", "torn"), ("state", "changed"), ("state", "missing")),
    ],
)
def test_a_damaged_checkpoint_is_not_used(tmp_path, name, damage, caplog):
    settings = small_settings(tmp_path, "purchase100", "lo", train_seed=7)
    run(tmp_path / "whole", settings)
    killed(tmp_path / "model", settings, 6)
    folder = place(tmp_path / "model").folder
    path = folder / name if name == "checkpoint.json" else next(folder.glob("*.pt"))
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        content[0] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "torn" else b"")
    metadata = resume(tmp_path / "model", settings)
    assert "is damaged, so the model is trained from its first step" in caplog.text
    assert "resumed" not in metadata
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")


def test_a_kill_before_the_first_checkpoint_is_whole_leaves_a_folder_that_is_used(tmp_path):
    folder = place(tmp_path / "model").folder
    folder.mkdir()
    (folder / "lock").touch()
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    resume(tmp_path / "model", settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_two_processes_never_go_on_from_one_checkpoint(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "lo", train_seed=7)
    killed(tmp_path / "model", settings, 6)
    checkpoint = place(tmp_path / "model")
    with (
        module.opened(checkpoint, lambda: json.loads(facts_in(checkpoint))),
        pytest.raises(BusyError, match="Another process is training the model"),
    ):
        run(tmp_path / "model", settings, checkpoint=checkpoint)
    run(tmp_path / "model", settings, checkpoint=checkpoint)


def facts_in(checkpoint):
    return json.dumps(json.loads((checkpoint.folder / "checkpoint.json").read_text())["facts"])


def test_of_two_that_began_together_one_writes_checkpoints(tmp_path, caplog):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    checkpoint = place(tmp_path / "model")
    other = module.OpenCheckpoint(checkpoint, dict)
    caplog.set_level(logging.WARNING)

    def progress(part):
        if round(part * 12) == 1:
            other._take_lock()

    run(tmp_path / "model", settings, checkpoint=checkpoint, progress=progress)
    assert caplog.text.count("This process writes no checkpoints") == 1
    assert checkpoint.folder.exists()  # it is the other one's
    other.close()


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, monkeypatch, caplog):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    run(tmp_path / "whole", settings)
    killed(tmp_path / "model", settings, 6)
    before = facts_in(place(tmp_path / "model"))

    def full(*args):
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    killed(tmp_path / "model", settings, 9)
    assert "A checkpoint could not be written to" in caplog.text
    assert facts_in(place(tmp_path / "model")) == before  # the last whole one is still there
    monkeypatch.undo()
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)
    resume(tmp_path / "model", settings)
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")


def test_a_checkpoint_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(files, "_flush", lambda path: order.append(f"sync {path.name}"))
    replace = files.os.replace

    def named(aside, path):
        order.append(f"name {path.name}")
        replace(aside, path)

    monkeypatch.setattr(files.os, "replace", named)
    with pytest.raises(Killed):
        settings = small_settings(tmp_path, "purchase100", "inf")
        run(
            *(tmp_path / "model", settings),
            checkpoint=place(tmp_path / "model"),
            progress=stop_after(2),
        )
    folder = place(tmp_path / "model").folder.name
    state = ["sync state_1.pt", "name state_1.pt", f"sync {folder}"]
    assert order == [*state, "sync checkpoint.json", "name checkpoint.json", f"sync {folder}"]


def asked_after(steps, total=12):
    """A `progress` that asks the run to end, as SIGTERM does, after `steps` steps."""

    def progress(part):
        if round(part * total) == steps:
            stopping.ask(signal.SIGTERM)

    return progress


@pytest.mark.parametrize("steps", [6, 8, 12])
def test_a_long_run_that_is_asked_to_end_writes_a_last_checkpoint(
    tmp_path, monkeypatch, caplog, steps
):
    settings = small_settings(tmp_path, "purchase100", "inf", train_seed=7)
    run(tmp_path / "whole", settings)
    monkeypatch.setattr(module.OpenCheckpoint, "is_long", lambda _: True)
    seldom = place(tmp_path / "model", minutes=15)
    with pytest.raises(stopping.Terminated):
        run(tmp_path / "model", settings, checkpoint=seldom, progress=asked_after(steps))
    assert json.loads((seldom.folder / "checkpoint.json").read_text())["steps"] == steps
    assert f"Stopped after step {steps}, of which there is a checkpoint" in caplog.text
    assert not stopping.asked()
    run(tmp_path / "model", settings, checkpoint=seldom)
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")


def test_a_short_run_is_not_waited_for(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf")
    asked = []
    run(
        *(tmp_path / "model", settings),
        checkpoint=place(tmp_path / "model", minutes=15),
        progress=lambda _: asked.append(stopping.ask(signal.SIGTERM)),
    )
    assert asked == [False] * 12 and not stopping.ask(signal.SIGTERM)


def test_a_run_is_long_if_its_pace_says_so_or_it_has_a_checkpoint(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    opened = module.OpenCheckpoint(place(tmp_path / "model", minutes=15), dict)
    assert not opened.is_long()
    now[0], opened.part = 60.0, 0.1  # ten minutes in all
    assert not opened.is_long()
    opened.part = 0.05
    assert opened.is_long()
    never = module.OpenCheckpoint(place(tmp_path / "model", minutes=0), dict)
    never.part = 1e-6
    now[0] += 60
    assert not never.is_long()


def test_a_run_that_diverges_leaves_no_checkpoint(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf", learning_rate=1e38, optimizer="sgd")
    with pytest.raises(ValueError, match="not finite"):
        run(tmp_path / "model", settings, checkpoint=place(tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_the_seeds_of_a_run_are_those_of_its_checkpoint(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf")
    assert place(tmp_path / "model").seeds() is None
    killed(tmp_path / "model", settings, 6)
    assert place(tmp_path / "model").seeds() == SEEDS


def test_the_fingerprint_of_the_code_is_computed_without_disturbing_the_run(tmp_path):
    def code():
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        return "computed"

    settings = small_settings(tmp_path, "sst2", "inf", train_seed=7)
    run(tmp_path / "whole", settings)
    run(tmp_path / "model", settings, checkpoint=place(tmp_path / "model", code=code))
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")
