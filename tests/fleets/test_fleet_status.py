"""`mico fleet status`: what a word says of a fleet, its rate, and books that are not whole."""

import json
import subprocess
import sys
import time

import pytest
from helpers_fleet import Fleet, wait_for
from test_fleet import begun, finish

from mico_competition.cli import main
from mico_competition.cli.fleet import _retries
from mico_competition.fleets.finished import record_files
from mico_competition.fleets.fleet import Block, Outcome, Progress, record, run_fleet
from mico_competition.fleets.status import fleet_states


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
