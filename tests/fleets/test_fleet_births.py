"""Workers that cannot begin: the run says why and ends, and no model is blamed."""

import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from helpers_fleet import Fleet

from mico_competition.data.datasets import load_digits
from mico_competition.fleets import workers
from mico_competition.fleets.fleet import run_fleet
from mico_competition.fleets.ledger import Ledger
from mico_competition.fleets.shared_data import parts_of, save_parts
from mico_competition.fleets.workers import LocalWorkers
from mico_competition.training.model_folder import StorageError
from mico_competition.training.settings import resolve

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def no_room(parts):
    raise RuntimeError("no room for the data")


def killed(parts):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_first(parts, folder, times, rebuild):
    """Killed the first few times; each death claims a file, which two processes cannot share."""
    for death in range(times):
        try:
            (Path(folder) / str(death)).touch(exist_ok=False)
        except FileExistsError:
            continue
        killed(parts)
    return rebuild(parts)


def fleet_of(tmp_path, data, rebuild, models=12, count=1):
    settings = resolve({"scenario": "digits_inf", "num_epochs": 1})
    ledger = Ledger(tmp_path / "out", settings, "0" * 64, False).with_models(range(models))
    ledger.write()
    backend = LocalWorkers(ledger, data, workers=count, threads=1)
    backend._job = replace(backend._job, rebuild=rebuild)
    *_, progress = run_fleet(ledger, backend, stack=4)
    lines = (ledger.folder / "events.jsonl").read_text().splitlines()
    return ledger, progress, [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize(
    ("rebuild", "reason"),
    [(no_room, "RuntimeError: no room for the data"), (killed, "killed, or out of memory?")],
)
def test_workers_that_die_at_birth_end_the_run(tmp_path, data, rebuild, reason):
    ledger, progress, events = fleet_of(tmp_path, data, rebuild)
    assert progress.stopped == f"Worker processes die before they can begin: {reason}"
    assert (progress.done, progress.failed, progress.left, progress.retries) == (0, {}, 12, 0)
    assert events == ["run", "end"]  # no model was tried, lost or failed
    log = (ledger.folder / "failures.log").read_text()
    assert log.count("==") == 1 and ("Traceback" in log) == (rebuild is no_room)
    assert not (ledger.folder / "dataset.pt").exists()


@pytest.mark.slow
def test_one_that_can_begin_in_the_end_costs_no_model_a_try(tmp_path, data):
    births = tmp_path / "births"
    births.mkdir()
    rebuild = partial(dies_at_first, folder=births, times=2, rebuild=parts_of(data)[1])
    _, progress, events = fleet_of(tmp_path, data, rebuild)
    assert (progress.done, progress.retries, progress.stopped) == (12, 0, None)
    assert events.count("done") == 12 and "lost" not in events
    assert len(list(births.iterdir())) == 2


@pytest.mark.slow
def test_a_place_that_is_given_up_leaves_the_work_to_the_others(
    tmp_path, data, caplog, monkeypatch
):
    monkeypatch.setattr(workers, "_START_FAILURES", 1)
    monkeypatch.setattr(workers, "share_cpus", lambda *asked, devices: (2, 1))
    births = tmp_path / "births"
    births.mkdir()
    # The first death is that of the trial of memory, which costs no place its tries.
    rebuild = partial(dies_at_first, folder=births, times=2, rebuild=parts_of(data)[1])
    _, progress, _ = fleet_of(tmp_path, data, rebuild, count=2)
    assert (progress.done, progress.retries, progress.stopped) == (12, 0, None)
    assert "Going on with fewer workers." in caplog.text


def test_a_place_whose_workers_die_at_every_block_is_given_up(tmp_path, data, monkeypatch):
    """As where there is too little memory to train: not model by model, through all of them."""
    monkeypatch.setattr(workers, "_FAILURES", 4)
    monkeypatch.setattr(workers, "train", train_and_die)
    _, progress, events = fleet_of(tmp_path, data, parts_of(data)[1])
    assert progress.stopped == (
        "The worker process died: killed, or out of memory? 4 did in a row, without finishing "
        "a model."
    )
    assert events.count("lost") == 3 and events[-1] == "end"


def train_and_die(block):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_long_folder_for_temporary_files_is_no_hindrance(tmp_path, monkeypatch):
    """A socket's path may have 107 bytes."""
    long = tmp_path / ("a" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    finished = Fleet(tmp_path / "out", "--num_epochs", "1", "--workers", "1", models="0").run()
    assert finished.returncode == 0, finished.stderr
    assert "1 of 1 models done" in finished.stdout
    assert not list(long.glob("pymp-*"))


def test_a_long_one_is_said_where_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "a" * 90)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(ValueError, match="TMPDIR=/aaa.* is too long for the sockets"):
        workers._keep_sockets_short()


def test_a_disk_that_is_full_while_the_dataset_is_written_is_a_sentence(
    tmp_path, data, monkeypatch
):
    """Which torch tells in words of its own, of several kinds."""
    parts, path = parts_of(data)[0], tmp_path / "fleet" / "dataset.pt"
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed"),
    ):

        def fails(*args, error=error):
            raise error

        monkeypatch.setattr("torch.save", fails)
        with pytest.raises(
            StorageError, match=r"dataset\.pt could not be written .* takes 0\.1 MB"
        ):
            save_parts(parts, path)
    assert not list(path.parent.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_small_disk_is_no_traceback(tmp_path):
    import subprocess

    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        full = Fleet(place, "--num_epochs", "1", "--quiet", models="0").run()
        assert full.returncode == 1
        assert "dataset.pt could not be written (" in full.stderr  # the kernel's reason, or torch's
        assert "free some space and run again" in full.stderr
        assert "Traceback" not in full.stderr and full.stderr.count("\n") == 1
        assert not list(place.rglob("dataset.pt")) and not list(place.rglob(".dataset.pt*"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_workers_are_given_the_tracker(tmp_path):
    ledger = Ledger(tmp_path, resolve({"scenario": "digits_inf"}), "0" * 64, False)
    backend = LocalWorkers(ledger, load_digits(), workers=1, track="tensorboard")
    assert backend._job.track == "tensorboard"
