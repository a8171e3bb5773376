"""Models of a fleet go on from their checkpoints when a worker or the whole fleet is killed."""

import json
import os
import shutil
import signal
import stat
import sys
from dataclasses import replace

import pytest
from helpers_fleet import SCENARIO, Fleet, wait_for

from mico_competition.data.datasets import load_digits
from mico_competition.fleets.fleet import Block, checkpoints_of, train_block
from mico_competition.fleets.ledger import CHECKPOINTS, RUNNING, Ledger
from mico_competition.fleets.running import reports_of, running_models
from mico_competition.training.settings import resolve

FLAGS = ("--num_epochs", "200", "--workers", "1")
OFTEN = ("--checkpoint_minutes", "0.001")


def new_ledger(out, ids, **flags):
    settings = resolve({"scenario": SCENARIO, **flags})
    ledger = Ledger(out, settings, "", False, training_fingerprint="a" * 64).with_models(ids)
    ledger.write()
    return ledger


def test_a_new_run_removes_the_checkpoints_of_models_that_are_whole(tmp_path):
    ledger = new_ledger(tmp_path, [0, 1])
    for model_id in (0, 1):
        ledger.checkpoint_folder(model_id).mkdir(parents=True)
        (ledger.checkpoint_folder(model_id) / "state_3.pt").write_bytes(b"secret")
    ledger.folder_of(0).mkdir(parents=True)
    ledger.clear_leftovers()
    assert not ledger.checkpoint_folder(0).exists() and ledger.checkpoint_folder(1).exists()
    ledger.remove_checkpoint(1)
    assert not (ledger.folder / CHECKPOINTS).exists()


def test_a_new_run_keeps_the_reports_of_models_that_go_on(tmp_path):
    """`mico fleet status` shows them, until they report again."""
    ledger = new_ledger(tmp_path, [0, 1])
    running = ledger.folder / RUNNING
    running.mkdir()
    for model_id in (0, 1):
        (running / f"model_{model_id}.json").write_text("{}")
        (running / f".model_{model_id}.json.tmp").write_text("")  # half-written
    ledger.checkpoint_folder(1).mkdir(parents=True)
    ledger.clear_leftovers()
    assert [path.name for path in running.iterdir()] == ["model_1.json"]


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("scenario", ["digits_inf", "digits_lo"])
def test_a_stopped_model_is_shown_at_the_step_of_its_checkpoint(tmp_path, scenario, stack):
    """And so with an epsilon that bounds that of the weights in it."""
    ids = list(range(stack))
    ledger = new_ledger(tmp_path, ids, scenario=scenario, num_epochs=3)
    block = Block(ledger.entries)
    checkpoints = checkpoints_of(ledger.folder / CHECKPOINTS, block, 1e-9, "a" * 64)
    reports = reports_of(ledger.folder, block, ledger.settings)

    class Stopped(BaseException):
        pass

    def stop(part):
        if part > 0.5:
            raise Stopped

    with pytest.raises(Stopped):
        train_block(
            *(ledger.settings, load_digits(), block, [ledger.folder_of(i) for i in ids]),
            *(checkpoints, reports),
            progress=stop,
        )
    shown = running_models(replace(ledger, noise_multiplier=5.0), running=False, finished=())
    for model, model_id in zip(shown, ids, strict=True):
        path = ledger.checkpoint_folder(model_id) / "checkpoint.json"
        assert model.step == json.loads(path.read_text())["steps"] > 0


def test_a_model_that_another_process_trains_is_tried_again(tmp_path, monkeypatch):
    from mico_competition.fleets import fleet
    from mico_competition.support.locks import lock_file

    monkeypatch.setattr(fleet, "LEASE_SECONDS", 0.0)
    ledger = new_ledger(tmp_path, [0], num_epochs=1)
    block = Block(ledger.entries)
    checkpoints = checkpoints_of(ledger.folder / CHECKPOINTS, block, 15, "a" * 64)
    folders = [ledger.folder_of(0)]
    held = lock_file(ledger.checkpoint_folder(0) / "lock")

    def train():
        data = load_digits()
        return train_block(
            ledger.settings, data, block, folders, checkpoints, [None], progress=False
        )

    outcome = train()
    assert outcome.lost and not outcome.fatal
    assert "Another process is training" in str(outcome.error)
    held.close()
    assert train().error is None
    assert not ledger.checkpoint_folder(0).exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("stack", [1, 2])
def test_killed_with_its_worker_or_alone_it_goes_on_to_the_same_bits(tmp_path, stack):
    flags = (*FLAGS, "--stack", str(stack))
    killed = Fleet(tmp_path / "killed", *flags, *OFTEN, models="0-1")
    checkpoints = killed.folder / CHECKPOINTS

    def steps():
        found = checkpoints.glob("model_*/checkpoint.json")
        return sum(json.loads(path.read_text())["steps"] for path in found)

    process = killed.start()
    wait_for(steps)
    for about in checkpoints.glob("model_*/checkpoint.json"):
        assert stat.S_IMODE(about.stat().st_mode) == 0o600
    process.kill()
    process.communicate()
    wait_for(lambda: not killed.workers(), 30)
    before = steps()
    process = killed.start()
    wait_for(lambda: steps() > before)
    os.killpg(process.pid, signal.SIGTERM)  # as Slurm does
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130 and "the same command continues from here" in error
    assert "Stopped after step" in error and "Traceback" not in error
    assert not killed.workers()
    before = steps()
    process = killed.start()
    wait_for(lambda: steps() > before)
    os.kill(killed.workers()[0], signal.SIGKILL)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    resumed = [
        json.loads((m / "metadata.json").read_text()).get("resumed", 0) for m in killed.models()
    ]
    assert len(resumed) == 2 and sum(resumed) >= 2
    assert not checkpoints.exists() and not killed.leftovers()

    whole = Fleet(tmp_path / "whole", *flags, models="0-1")
    shutil.copytree(killed.folder, whole.folder)
    for name in ("files.jsonl", "events.jsonl"):
        (whole.folder / name).unlink()
    assert whole.run().returncode == 0
    for one, other in zip(killed.models(), whole.models(), strict=True):
        assert (one / "model.pt").read_bytes() == (other / "model.pt").read_bytes()


@pytest.mark.slow
def test_more_models_than_before_are_told(tmp_path):
    flags = ("--num_epochs", "1", "--workers", "1")
    first = Fleet(tmp_path, *flags, models="0-0").run()
    assert first.returncode == 0 and "adds" not in first.stdout
    again = Fleet(tmp_path, *flags, models="0-0").run()
    assert again.returncode == 0 and "adds" not in again.stdout
    more = Fleet(tmp_path, *flags, models="0-2").run()
    assert more.returncode == 0
    assert "This command adds 2 models to the fleet's 1 (--models says which)" in more.stdout
