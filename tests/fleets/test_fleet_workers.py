"""Fleets on this machine, killed for real: nothing is lost, nothing is trained twice."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_fleet import SCENARIO, Fleet, wait_for

from mico_competition import ChallengeDataset, load_model
from mico_competition.cli import main
from mico_competition.data.datasets import load_digits
from mico_competition.fleets.lock import is_running, only_fleet
from mico_competition.fleets.status import fleet_states
from mico_competition.support.cpus import available_cpus

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

ALONE = ("--stack", "1", "--num_epochs", "10")


def fleet(out, *flags, models="0-3", scenario=SCENARIO):
    """In this process, which is quicker; its workers are processes all the same."""
    base = [scenario, "--models", models, "--out", str(out), "--threads", "1", "--num_epochs", "2"]
    return main(["fleet", *base, *flags])


def digests(out):
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.glob("digits/*/*/model_*/*")
        if path.name != "metadata.json"  # has the time it took
    }


@pytest.mark.slow
def test_killed_at_every_stage_it_loses_nothing_and_trains_nothing_twice(tmp_path):
    """kill -9 of the fleet: before any model, among models, while a folder is written."""
    killed = Fleet(tmp_path, *ALONE, models="0-39")
    stages = [
        lambda: (killed.folder / "ledger.jsonl").exists(),
        killed.workers,
        lambda: len(killed.models()) >= 2,
        lambda: list(tmp_path.glob(f"digits/{SCENARIO}/*/.model_*")),
    ]
    before, ledger = {}, None
    for stage in stages:
        process = killed.start()
        wait_for(stage)
        process.kill()
        process.communicate()
        wait_for(lambda: not killed.workers(), 30)  # workers end with their fleet
        assert before.items() <= killed.stamps().items(), "a model that was done was touched"
        before = killed.stamps()
        lines = (killed.folder / "ledger.jsonl").read_text()
        assert ledger in (None, lines)
        ledger = lines
    assert 2 <= len(killed.models()) < 40
    finished = killed.run()
    assert finished.returncode == 0, finished.stderr
    assert "40 of 40 models done, 0 failed" in finished.stdout
    assert before.items() <= killed.stamps().items()
    assert len(killed.models()) == 40 and not killed.leftovers()
    done = [event["model_id"] for event in killed.events("done")]
    assert len(done) == len(set(done))
    for folder in killed.models():
        splits = ChallengeDataset.from_path(folder, load_digits())
        assert splits.get_solutions() == [
            int(c) for c in (folder / "solution.csv").read_text()[::2]
        ]
        load_model("digits", folder)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopped_politely_it_says_how_to_go_on(tmp_path, sign):
    stopped = Fleet(tmp_path, *ALONE)
    process = stopped.start()
    wait_for(stopped.models)
    os.killpg(process.pid, sign)  # as Ctrl-C does: the workers get it too
    err = process.communicate(timeout=600)[1]
    assert process.returncode in (130, -signal.SIGINT), err
    assert "of 12 models done; the same command continues from here" in err
    assert "Traceback" not in err and "leaked" not in err
    assert not stopped.workers()
    assert not is_running(stopped.folder)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_models_a_try(tmp_path):
    hurt = Fleet(tmp_path, *ALONE, "--workers", "2")
    process = hurt.start()
    wait_for(lambda: len(hurt.models()) >= 2)
    victim = hurt.workers()[0]
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "12 of 12 models done, 0 failed, 0 left, 1 retry" in out
    assert len(hurt.events("lost")) == 1
    assert "The worker process died" in (hurt.folder / "failures.log").read_text()
    done = [event["model_id"] for event in hurt.events("done")]
    assert sorted(done) == list(range(12))


@pytest.mark.slow
def test_a_disk_that_is_full_ends_it_and_room_mends_it(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    try:
        full = Fleet(place, *ALONE, "--workers", "1")
        stopped = full.run()
        assert stopped.returncode == 1
        assert "space" in stopped.stderr and "Traceback" not in stopped.stderr
        had = full.stamps()
        assert 0 < len(full.models()) < 12
        for folder in full.models():
            load_model("digits", folder)
        remount = ["mount", "-o", "remount,size=10m", str(place)]
        subprocess.run(remount, check=True)
        finished = full.run()
        assert finished.returncode == 0, finished.stderr
        assert len(full.models()) == 12 and had.items() <= full.stamps().items()
        assert not full.leftovers()
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_failures_are_kept_with_their_traceback_and_the_rest_goes_on(tmp_path, capsys):
    assert fleet(tmp_path, "--learning_rate", "1e30", "--stack", "2") == 1
    captured = capsys.readouterr()
    assert "0 of 4 models done, 4 failed" in captured.out
    assert captured.err.count("  model_") == 4 and "failures.log" in captured.err
    log = (tmp_path / "fleet" / SCENARIO / "failures.log").read_text()
    assert log.count("Traceback (most recent call last)") == 6  # two stacks, then each alone
    assert "not finite" in log
    assert main(["fleet", "status", str(tmp_path)]) == 1
    assert fleet_states(tmp_path)[0].failed == (0, 1, 2, 3)


@pytest.mark.slow
def test_the_same_ledger_gives_the_same_bits_with_any_number_of_workers(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert fleet(first, "--workers", "1", "--stack", "2", scenario="digits_lo") == 0
    for name in ("ledger.jsonl", "settings.json"):
        target = second / "fleet" / "digits_lo" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first / "fleet" / "digits_lo" / name, target)
    assert fleet(second, "--workers", "2", "--stack", "2", scenario="digits_lo") == 0
    assert digests(first) == digests(second) and len(digests(first)) == 4 * 5
    assert "models 2-3 done" in capsys.readouterr().out


@pytest.mark.slow
def test_what_it_writes_is_for_its_owner_only(tmp_path):
    """Seeds, labels, logs: on a cluster others have accounts too."""
    out = tmp_path / "out"
    assert fleet(out, "--stack", "1", models="0") == 0
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) > 8
    for path in [out, *written]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
def test_status_counts_and_more_models_join(tmp_path, capsys):
    assert fleet(tmp_path, models="0-1,150") == 0
    assert fleet(tmp_path, models="0-2") == 0
    state = fleet_states(tmp_path)[0]
    assert (state.total, state.done, state.left, state.running) == (4, 4, 0, False)
    capsys.readouterr()
    assert main(["fleet", "status", str(tmp_path)]) == 0
    row = [SCENARIO, "4", "4", "0", "0", "finished"]
    assert row in [line.split()[:6] for line in capsys.readouterr().out.splitlines()]
    assert sorted(p.parent.name + p.name for p in tmp_path.glob(f"*/{SCENARIO}/*/*")) == [
        "finalmodel_150",
        "trainmodel_0",
        "trainmodel_1",
        "trainmodel_2",
    ]


def test_one_fleet_at_a_time(tmp_path, capsys):
    folder = tmp_path / "fleet" / SCENARIO
    with only_fleet(folder):
        assert is_running(folder)
        assert fleet(tmp_path) == 1
        assert "Another fleet is at work" in capsys.readouterr().err
    assert not is_running(folder)


@pytest.mark.slow
def test_workers_map_one_dataset_file(tmp_path):
    """All of them have it mapped, and none of them has a copy: what they hold of it is shared."""
    count = min(2, available_cpus())
    running = Fleet(tmp_path, "--workers", str(count), "--stack", "1", "--num_epochs", "400")
    process = running.start()
    try:
        pids = wait_for(lambda: len(running.workers()) == count and running.workers())
        for pid in pids:
            text = Path(f"/proc/{pid}/smaps").read_text()
            area = text[text.index("dataset.pt") :].split("VmFlags")[0]
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in area.splitlines()[1:-1]}
            assert sizes["Anonymous"] == 0  # a dirty page may be the file's, not yet on disk
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=600)
    assert not running.workers()
