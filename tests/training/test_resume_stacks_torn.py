"""A stack that is killed between its files, or whose files are damaged, takes no step too many."""

import json
import shutil

import pytest
from helpers_resume import Killed, small_settings, stop_after, weights
from helpers_resume_stacks import COUNT, assert_near, killed, runs_in, steps_in, train, whole

from mico_competition.training import checkpoint as module
from mico_competition.training.private_checks import PrivacyChecks


@pytest.fixture(autouse=True)
def sound(monkeypatch):
    """These models are sound; the checks before a first step have tests of their own."""
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)


def test_models_that_stand_at_different_steps_are_stacked_by_step(tmp_path, caplog):
    """A kill between two files leaves some checkpoints older; a damaged one begins anew."""
    settings = small_settings(tmp_path, "purchase100", "lo")
    whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 4)
    older = shutil.copytree(runs[0].checkpoint.folder, tmp_path / "older")
    killed(settings, runs, 8)
    shutil.rmtree(runs[0].checkpoint.folder)
    shutil.copytree(older, runs[0].checkpoint.folder)
    next(runs[1].checkpoint.folder.glob("*.pt")).write_bytes(b"")
    told = train(settings, runs)
    assert f"{runs[1].checkpoint.folder} is damaged, so the model is trained from" in caplog.text
    assert f"Going on from step 3, of which {runs[0].checkpoint.folder} has" in caplog.text
    assert [metadata["model_id"] for metadata in told] == [0, 1, 2]
    assert [metadata.get("resumed") for metadata in told] == [1, None, 2]
    assert_near(runs, tmp_path / "whole")


def test_progress_counts_all_models_of_a_stack_that_goes_on_in_parts(tmp_path):
    settings = small_settings(tmp_path, "purchase100", "inf")
    runs = runs_in(tmp_path / "part")
    killed(settings, runs, 6)
    shutil.rmtree(runs[1].checkpoint.folder)
    parts = []
    train(settings, runs, progress=parts.append)
    assert parts == sorted(parts) and parts[-1] == 1
    assert parts[0] == pytest.approx(2 / 3 * 6 / 12)  # two models go on behind step 5
    assert len(parts) == 7 + 12


@pytest.mark.parametrize("call", [0, 1, 2])
@pytest.mark.parametrize("method", ["try_write", "settle"])
@pytest.mark.parametrize("at", [1, 5, 8])
def test_a_kill_between_the_files_of_a_stack_leaves_a_step_that_all_have(
    tmp_path, monkeypatch, method, call, at
):
    """The stack goes on as one, with the bits of the run that nobody killed."""
    settings = small_settings(tmp_path, "purchase100", "lo")
    expected = whole(settings, tmp_path / "whole")
    runs, calls = runs_in(tmp_path / "part"), []
    true = getattr(module.OpenCheckpoint, method)

    def dying(self, *arguments, **options):
        calls.append(1)
        if len(calls) == COUNT * (at - 1) + call + 1:
            raise Killed
        return true(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module.OpenCheckpoint, method, dying)
        train(settings, runs)
    told = train(settings, runs)
    assert [weights(run.folder) for run in runs] == expected
    assert [metadata["stack"] for metadata in told] == [COUNT] * COUNT
    resumed = at > 1 or method == "settle"
    assert [metadata.get("resumed") for metadata in told] == [1 if resumed else None] * COUNT


def test_a_model_that_cannot_be_written_holds_the_others_at_a_step_that_all_have(
    tmp_path, monkeypatch, caplog
):
    settings = small_settings(tmp_path, "purchase100", "lo")
    expected = whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part")
    true, full = module.write_state, runs[1].checkpoint.folder

    def write(folder, number, state, steps):
        if folder == full and steps > 4:
            raise RuntimeError("unexpected pos 64 vs 0")
        return true(folder, number, state, steps)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_state", write)
        killed(settings, runs, 8)
    assert caplog.text.count("The checkpoints of 1 of 3 models") == 3  # after steps 5, 6 and 7
    assert "could not be written (the disk may be full: unexpected pos 64 vs 0)" in caplog.text
    assert [steps_in(run) for run in runs] == [7, 4, 7]
    assert [len(list(run.checkpoint.folder.glob("*.pt"))) for run in runs] == [2, 1, 2]
    train(settings, runs)
    assert "Going on from step 4 with a stack of 3" in caplog.text
    assert [weights(run.folder) for run in runs] == expected


@pytest.mark.parametrize("stack", [1, COUNT])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("steps", 4), ("steps", 6), ("steps", 0), ("steps", -1), ("steps", True)),
        *(("seconds", float("nan")), ("seconds", -1.0), ("resumed", -7), ("number", "x")),
        *(("state", "../model.pt"), ("state", None), ("earlier", 3), ("facts", None)),
    ],
)
def test_a_changed_number_is_damage_and_never_another_number_of_steps(
    tmp_path, caplog, stack, name, value
):
    settings = small_settings(tmp_path, "purchase100", "lo")
    whole(settings, tmp_path / "whole")
    runs = runs_in(tmp_path / "part")[:stack]
    with pytest.raises(Killed):
        train(settings, runs, stack=stack, progress=stop_after(6))
    path = runs[0].checkpoint.folder / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    told = train(settings, runs, stack=stack)
    assert "is damaged, so the model is trained from its first step" in caplog.text
    assert "resumed" not in told[0]
    assert_near(runs, tmp_path / "whole")


def test_a_kill_among_the_folders_costs_no_training(tmp_path, monkeypatch):
    """The models whose folders are not written yet go on from their last checkpoints."""
    from mico_competition.training import train_stack

    settings = small_settings(tmp_path, "purchase100", "inf")
    expected = whole(settings, tmp_path / "whole")
    runs, write = runs_in(tmp_path / "part"), train_stack.write_model_folder

    def killed_at_the_second(folder, *arguments, **options):
        if folder.name == "model_1":
            raise Killed
        write(folder, *arguments, **options)

    monkeypatch.setattr(train_stack, "write_model_folder", killed_at_the_second)
    with pytest.raises(Killed):
        train(settings, runs)
    monkeypatch.undo()
    monkeypatch.setattr(PrivacyChecks, "_check", lambda *_: None)
    assert not runs[0].checkpoint.folder.exists()
    assert [steps_in(run) for run in runs[1:]] == [12, 12]
    train(settings, runs[1:], stack=2)
    assert [weights(run.folder) for run in runs] == expected
