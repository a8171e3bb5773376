"""A stack that is killed goes on from the checkpoints of its models, each in any company."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from helpers_resume import Killed, place, small_settings, stop_after, weights
from helpers_resume_stacks import COUNT, assert_near, killed, runs_in, steps_in, train, whole

from mico_competition.support import stopping
from mico_competition.training import checkpoint as module
from mico_competition.training.private_checks import PrivacyChecks
from mico_competition.training.stacked_step import StackedDPSGD


@pytest.fixture(autouse=True)
def sound(monkeypatch):
    """These models are sound; the checks before a first step have tests of their own."""
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)


@pytest.mark.parametrize("scenario", ["inf", "lo"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_stack_that_is_killed_twice_has_the_same_weights(tmp_path, scenario, optimizer):
    flags = {"lr_scheduler_step": 1, "lr_scheduler_gamma": 0.5, "optimizer": optimizer}
    settings = small_settings(tmp_path, "purchase100", scenario, **flags)
    expected = whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    torch.manual_seed(98)  # another process has another state
    killed(settings, runs, 9)  # the step was taken after the last checkpoints, at an epoch's end
    assert [steps_in(run) for run in runs] == [8] * COUNT
    told = train(settings, runs)
    assert [weights(run.folder) for run in runs] == expected
    assert [metadata["resumed"] for metadata in told] == [2] * COUNT
    assert [metadata["stack"] for metadata in told] == [COUNT] * COUNT
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == [
        run.folder.name for run in runs
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["inf", "lo"])
def test_stacks_of_convolutional_networks_go_on_too(tmp_path, scenario):
    settings = small_settings(tmp_path, "cifar10", scenario)
    expected = whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    train(settings, runs)
    assert [weights(run.folder) for run in runs] == expected


@pytest.mark.parametrize("scenario", ["inf", "lo"])
def test_a_model_of_a_stack_goes_on_in_other_company(tmp_path, scenario):
    """Alone, as a fleet tries it after the stack has failed; and with one model less."""
    settings = small_settings(tmp_path, "purchase100", scenario)
    whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    alone = train(settings, runs[1:2], stack=1)
    pair = train(settings, [runs[2], runs[0]], stack=2)
    assert [metadata["resumed"] for metadata in (*alone, *pair)] == [1] * COUNT
    assert [metadata["model_id"] for metadata in pair] == [2, 0]
    assert_near(runs, tmp_path / "whole")


def test_a_stack_says_once_where_it_goes_on(tmp_path, caplog):
    settings = small_settings(tmp_path, "purchase100", "inf")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    train(settings, runs)
    assert caplog.text.count("Going on from step") == 1
    assert f"Going on from step 5 with a stack of 3, of which {runs[0].checkpoint.folder}" in (
        caplog.text
    )


def test_the_file_of_a_model_holds_no_other_model(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "lo")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    alone = place(tmp_path / "model")
    with pytest.raises(Killed):
        train(
            replace(settings, train_seed=100),
            [replace(runs[0], folder=tmp_path / "model", checkpoint=alone)],
            stack=1,
            progress=stop_after(6),
        )
    own = [next(run.checkpoint.folder.glob("*.pt")) for run in runs]
    single = next(alone.folder.glob("*.pt"))
    for path in own:  # a view of the stack would be stored with all of its memory
        assert path.stat().st_size == pytest.approx(single.stat().st_size, rel=0.02)
    states = [torch.load(path, weights_only=True) for path in (own[0], single)]
    assert states[0].keys() == states[1].keys()
    assert states[0]["random"] is None  # which would be that of the first model
    assert torch.equal(states[0]["noise"], states[1]["noise"])
    assert torch.equal(states[0]["sampling"], states[1]["sampling"])
    torch.testing.assert_close(states[0]["model"], states[1]["model"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        states[0]["optimizer"]["state"], states[1]["optimizer"]["state"], rtol=1e-3, atol=1e-5
    )


def test_steps_draw_the_noise_and_batches_that_the_killed_stack_would_have_drawn(
    tmp_path, monkeypatch
):
    steps = []
    taken = StackedDPSGD.step

    def step(self, batches, inputs, labels):
        total = taken(self, batches, inputs, labels)
        noise = [each.get_state().numpy().tobytes() for each in self.optimizer.generators]
        steps.append(([batch.tolist() for batch in batches], noise))
        return total

    monkeypatch.setattr(StackedDPSGD, "step", step)
    settings = small_settings(tmp_path, "purchase100", "lo")
    runs = runs_in(tmp_path / "part", seeded=False)
    killed(settings, runs, 6)
    first, steps[:] = list(steps), []
    train(settings, runs)
    assert (len(first), len(steps)) == (6, 7)  # the sixth step came after the last checkpoints
    assert steps[0] == first[5]  # it is repeated with the same batches and noise
    assert len({noise for _, drawn in steps for noise in drawn}) == 7 * COUNT


def test_secure_mode_keeps_no_generator(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "lo", secure_mode=True)
    runs = runs_in(tmp_path / "part", seeded=False)
    killed(settings, runs, 6)
    for run in runs:
        path = next(run.checkpoint.folder.glob("*.pt"))
        state = torch.load(path, weights_only=True)
        assert state["noise"] is None and state["sampling"] is None
    told = train(settings, runs)
    assert [metadata["privacy"]["num_steps"] for metadata in told] == [12] * COUNT


def test_only_the_model_that_diverges_loses_its_checkpoint(tmp_path, monkeypatch):
    from mico_competition.training import train_stack

    settings = small_settings(tmp_path, "purchase100", "inf")
    runs = runs_in(tmp_path / "part")
    taken = train_stack.StackedPlainTrainer.step

    def step(self, batches, inputs, labels):
        return taken(self, batches, inputs, labels) * torch.tensor([1.0, float("inf"), 1.0])

    monkeypatch.setattr(train_stack.StackedPlainTrainer, "step", step)
    with pytest.raises(ValueError, match="The loss of model 1 of the stack is not finite"):
        train(settings, runs)
    there = [run.checkpoint.folder.exists() for run in runs]
    assert there == [True, False, True]


def test_of_two_stacks_one_trains_a_model(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    facts = json.loads((runs[2].checkpoint.folder / "checkpoint.json").read_text())["facts"]
    with (
        module.opened(runs[2].checkpoint, lambda: facts),
        pytest.raises(module.BusyError, match=r"model whose checkpoint is in .*model_2"),
    ):
        train(settings, runs)
    train(settings, runs)


def test_a_checkpoint_of_other_settings_is_refused_in_a_stack_too(tmp_path):
    runs = runs_in(tmp_path / "part")
    killed(small_settings(tmp_path, "purchase100", "inf"), runs, 6)
    other = small_settings(tmp_path, "purchase100", "inf", learning_rate=0.2)
    with pytest.raises(ValueError, match=r"learning_rate=0.001, and this one has learning_rate"):
        train(other, runs)
    swapped = [replace(runs[0], train_seed=7), *runs[1:]]
    with pytest.raises(ValueError, match="a run with another train_seed"):
        train(small_settings(tmp_path, "purchase100", "inf"), swapped)


def test_a_long_stack_that_is_asked_to_end_writes_last_checkpoints(tmp_path, monkeypatch, caplog):
    settings = small_settings(tmp_path, "purchase100", "inf")
    expected = whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part", minutes=15)
    monkeypatch.setattr(module.OpenCheckpoint, "is_long", lambda _: True)

    def progress(part):
        if round(part * 12) == 6:
            stopping.ask(signal.SIGTERM)

    with pytest.raises(stopping.Terminated):
        train(settings, runs, progress=progress)
    assert [steps_in(run) for run in runs] == [6] * COUNT
    assert "Stopped after step 6, of which there is a checkpoint" in caplog.text
    train(settings, runs)
    assert [weights(run.folder) for run in runs] == expected


def test_a_stack_shares_its_time_among_its_models(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    checkpoint = module.OpenCheckpoint(place(tmp_path / "model", minutes=1), dict)
    now[0] = 5.0
    assert checkpoint.begin(10) is None
    now[0] = 65.0
    assert checkpoint.due()
    checkpoint.write({}, 3)
    checkpoint.close()
    about = json.loads((checkpoint.folder / "checkpoint.json").read_text())
    assert about["seconds"] == 6.0
