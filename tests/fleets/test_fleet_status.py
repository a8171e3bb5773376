"""`mico fleet status`: what a word says of a fleet, its rate, and books that are not whole."""

import json
import os
import subprocess
import sys
import time

import pytest
from helpers_fleet import Fleet, wait_for
from test_fleet import begun, finish

from mico_competition.cli import main
from mico_competition.cli.fleet_run import _retries
from mico_competition.fleets.finished import record_files
from mico_competition.fleets.fleet import Block, Outcome, Progress, record, run_fleet
from mico_competition.fleets.ledger import RUNNING, Ledger
from mico_competition.fleets.lock import only_fleet
from mico_competition.fleets.status import fleet_states
from mico_competition.training.accounting import Mechanism
from mico_competition.training.settings import resolve


def state_of(out):
    (state,) = fleet_states(out)
    return state


def with_files(ledger, ids):
    """Folders with what every model has; weights are not looked at."""
    for i in ids:
        folder = ledger.folder_of(i)
        folder.mkdir(parents=True)
        for name in ("model.pt", "metadata.json", "solution.csv"):
            (folder / name).write_text("0")
        for name in ("challenge", "training", "membership"):
            (folder / f"seed_{name}").write_text("0")
        record_files(ledger, i)


def test_finished_stopped_and_failed_are_told_apart(tmp_path):
    ledger = begun(tmp_path, range(4))
    assert state_of(tmp_path).state == "stopped"  # nothing was trained yet
    with_files(ledger, [0, 1])
    record(ledger, "run", models=2, stack=1)
    assert state_of(tmp_path).state == "stopped"  # killed, or Ctrl-C: no end
    finish(ledger, lambda block: Outcome(block, "ValueError: no"), stack=1)
    assert state_of(tmp_path).state == "failed" and state_of(tmp_path).failed == (2, 3)
    with_files(ledger, [2, 3])
    assert state_of(tmp_path).state == "finished"
    (ledger.folder_of(2) / "model.pt").write_text("")
    assert state_of(tmp_path).state == "damaged"


def test_a_run_that_gave_up_has_failed(tmp_path):
    ledger = begun(tmp_path, range(4))
    finish(ledger, lambda block: Outcome(block, "free some space", fatal=True), stack=1)
    assert state_of(tmp_path).state == "failed" and state_of(tmp_path).failed == ()
    record(ledger, "run", models=4, stack=1)
    assert state_of(tmp_path).state == "stopped"  # the last run counts


ODD = [
    "",
    "{",
    "null",
    "[]",
    "3",
    '"run"',
    '{"event": "done"}',
    '{"event": 3, "time": 1}',
    '{"event": "done", "time": "now", "model_id": 1}',
    '{"event": "failed", "time": 1.0}',
    '{"event": "failed", "time": 1.0, "model_id": [1]}',
    '{"event": "failed", "time": 1.0, "model_id": true}',
    '{"event": "run", "time": NaN}',
    '{"event": "run", "time": 1e999}',
    '{"event": "run", "time": ' + "1" * 5000 + "}",
    '{"event": "run", "time": ' + "1" * 400 + "}",
    '{"event": "done", "time": 1.0, "model_id": 0, "model_id": 1}',
    '{"model_id": 1e999, "files": {}}',
    '{"model_id": ' + "1" * 400 + ', "files": {}}',
    "[" * 100_000,
    '{"event": "done", "time": 1.0, "model_id": 0',
    "\u0000\ud800",
]


@pytest.mark.parametrize("line", ODD)
@pytest.mark.parametrize("name", ["events.jsonl", "pace.json", "files.jsonl"])
def test_odd_books_are_no_fault(tmp_path, capsys, name, line):
    ledger = begun(tmp_path, range(2))
    with_files(ledger, [0])
    record(ledger, "run", models=2, stack=1)
    with open(ledger.folder / name, "ab") as file:
        file.write(line.encode("utf-8", "surrogatepass") + b"\n")
    record(ledger, "failed", model_id=1)
    assert (state_of(tmp_path).failed, state_of(tmp_path).state) == ((1,), "failed")
    assert main(["fleet", "status", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_rate_counts_what_is_under_way(tmp_path, monkeypatch):
    """A stack of ten takes minutes: how fast it is shows before it is done."""
    ledger, now = begun(tmp_path, range(10)), [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])

    class Half:
        def run(self, blocks):
            block = blocks.popleft()
            for part in (0.1, 0.2, 0.5):
                now[0] += 60
                yield part * len(block.entries)
            yield Outcome(Block(block.entries), "lost")

    steps = run_fleet(ledger, Half(), stack=10)
    for _ in range(4):
        progress = next(steps)
    assert (progress.done, progress.under_way, progress.left) == (0, 5.0, 10)
    state = state_of(tmp_path)
    assert state.models_per_hour == pytest.approx(100)
    monkeypatch.setattr("mico_competition.fleets.status.is_running", lambda folder: True)
    assert (state_of(tmp_path).state, state_of(tmp_path).time_left) == ("running", "0:03")
    steps.close()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_real_fleet_has_a_rate_before_its_first_stack_is_done(tmp_path, capsys):
    running = Fleet(tmp_path, "--workers", "1", "--stack", "10", "--num_epochs", "20000")
    process = running.start()
    try:
        wait_for(lambda: running.workers() and (running.folder / "pace.json").exists(), 120)
        wait_for(lambda: state_of(tmp_path).models_per_hour, 120)
        state = state_of(tmp_path)
        assert state.done == 0 and state.state == "running" and state.time_left
        assert 0 < state.under_way < 10
    finally:
        process.terminate()
        err = process.communicate(timeout=600)[1]
    assert "the same command continues from here" in err
    assert state_of(tmp_path).state == "stopped"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a shell")
def test_a_reader_that_goes_does_not_stop_the_fleet(tmp_path):
    """`mico fleet ... | head -1`: all models are trained all the same."""
    words = [sys.executable, "-m", "mico_competition.cli", "fleet"]
    flags = Fleet(tmp_path, "--stack", "1", "--num_epochs", "1", models="0-4").flags
    command = " ".join([*words, *flags, "2>&1 | head -1; exit ${PIPESTATUS[0]}"])
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.count("\n") == 1, ended
    assert state_of(tmp_path).state == "finished"


def test_a_single_retry_is_one():
    assert [_retries(Progress(1, 0, retries=n)) for n in (0, 1, 2)] == [
        "0 retries",
        "1 retry",
        "2 retries",
    ]


def test_events_say_that_a_run_gave_up(tmp_path):
    ledger = begun(tmp_path, range(2))
    finish(ledger, lambda block: Outcome(block, "no room", fatal=True), stack=1)
    last = (ledger.folder / "events.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["stopped"] is True


def report(ledger, model_id, **values):
    """The file of a model in training."""
    path = ledger.folder / RUNNING / f"model_{model_id}.json"
    path.parent.mkdir(exist_ok=True)
    now = {"time": time.time(), "process": os.getpid(), "node": os.uname().nodename}
    now |= {"epoch": 2, "step": 8, "steps_per_second": 4.0, "loss": 0.25}
    path.write_text(json.dumps({**now, **values}))


def test_models_in_training_are_shown_with_loss_rate_and_time_left(tmp_path, capsys):
    settings = resolve({"scenario": "digits_inf"})
    ledger = Ledger(tmp_path, settings, "", False).with_models(range(4))
    ledger.write()
    report(ledger, 1)
    with only_fleet(ledger.folder):
        (model,) = state_of(tmp_path).models
        assert (model.model_id, model.state) == (1, "running")
        assert model.seconds_left == (ledger.settings.num_steps - 8) / 4
        assert main(["fleet", "status", str(tmp_path)]) == 1
    steps, epochs = ledger.settings.num_steps, ledger.settings.num_epochs
    line = next(line for line in capsys.readouterr().out.splitlines() if "model_1" in line)
    cells = ["digits_inf/model_1", "running", f"2/{epochs}", f"8/{steps}", "0.250", "-", "4"]
    assert line.split()[:7] == cells
    (model,) = state_of(tmp_path).models  # the fleet was killed
    assert (model.state, model.seconds_left) == ("stopped", None)


def test_a_model_whose_process_is_gone_is_stopped_while_others_run(tmp_path):
    ledger = begun(tmp_path, range(4))
    gone = subprocess.Popen(["true"])
    gone.wait()
    report(ledger, 0, process=gone.pid)
    report(ledger, 1, node="another", time=time.time() - 20)
    report(ledger, 2, node="another", time=time.time() - 3600)
    (ledger.folder / RUNNING / "model_3.json").write_text("{")
    with only_fleet(ledger.folder):
        states = {model.model_id: model.state for model in state_of(tmp_path).models}
    assert states == {0: "stopped", 1: "running", 2: "stopped"}


def test_what_failed_says_why_and_is_no_longer_in_training(tmp_path, capsys):
    ledger = begun(tmp_path, range(2))
    for model_id in range(2):
        report(ledger, model_id)
    with_files(ledger, [1])
    finish(ledger, lambda block: Outcome(block, "Traceback\nValueError: no such luck"), stack=1)
    assert state_of(tmp_path).models == ()
    assert main(["fleet", "status", str(tmp_path)]) == 1
    assert "digits_lo/model_0 failed: ValueError: no such luck" in capsys.readouterr().out


def test_a_private_model_has_an_epsilon_and_no_loss(tmp_path, monkeypatch):
    asked = []

    def epsilon(self, delta):
        asked.append(self.num_steps)
        return 1.5

    monkeypatch.setattr(Mechanism, "epsilon", epsilon)
    settings = resolve({"scenario": "digits_lo"})
    ledger = Ledger(tmp_path, settings, "", False, noise_multiplier=4.4).with_models([0])
    ledger.write()
    report(ledger, 0, step=13, loss=0.3)
    (model,) = state_of(tmp_path).models
    assert (model.loss, model.epsilon) == (None, 1.5)
    assert asked == [24] and settings.num_steps == 240  # never for fewer steps than were taken


def test_watch_shows_it_until_nothing_runs(tmp_path, capsys, monkeypatch):
    ledger = begun(tmp_path, range(2))
    with_files(ledger, [0])
    report(ledger, 1)
    running = only_fleet(ledger.folder)
    running.__enter__()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            running.__exit__(None, None, None)

    monkeypatch.setattr("mico_competition.cli.fleet_status.time.sleep", sleep)
    assert main(["fleet", "status", str(tmp_path), "--watch", "2"]) == 1
    assert slept == [2, 2]
    out = capsys.readouterr().out
    assert out.count("digits_lo/model_1") == 3 and "\x1b" not in out
    assert out.count(" running ") == 4 and out.count(" stopped ") == 2


def test_watch_is_for_status(tmp_path, capsys):
    words = ["fleet", "digits_inf", "--models", "0", "--out", str(tmp_path / "x"), "--watch"]
    assert main(words) == 2 and "--watch is for `mico fleet status DIR`" in capsys.readouterr().err
    assert main(["fleet", "status", str(tmp_path), "--watch", "0"]) == 2
